"""Radiographs -> predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fracture_watch.model.classifier import Classifier

__all__ = ["load_classifier"]


def load_classifier(
    weights: str | Path,
    *,
    threshold: float | None = None,
    device: str = "auto",
    batch_size: int = 16,
    runtime: Literal["torch", "openvino"] = "torch",
    one_view: bool = False,
) -> "Classifier":
    """Load weights with the card beside them.

    Parameters
    ----------
    weights : path
        A ``.pth`` file with a ``state_dict``; its card is the ``.yaml`` of the same name.
    threshold : float, optional
        Operating point in (0, 1); the card's by default.
    device : {"auto", "cpu", "cuda"}
    batch_size : int
        Most images in one forward pass.
    runtime : {"torch", "openvino"}
        What computes; OpenVINO runs on the CPU and needs its extra.
    one_view : bool
        Look at the whole picture alone, whatever views the card asks for: faster, less accurate.

    Raises
    ------
    InvalidModel
        If the weights or their card are missing, damaged or contradict each other.
    WrongUse
        If ``threshold`` is not between 0 and 1.
    """
    # torch is imported here and not above, so that decoding workers can use this package without it.
    from fracture_watch.errors import InvalidModel
    from fracture_watch.model.card import Card
    from fracture_watch.model.classifier import Classifier, torch_device
    from fracture_watch.model.inference import packed
    from fracture_watch.model.side_by_side import SideBySide
    from fracture_watch.model.weights import load_network

    weights = Path(weights)
    card = Card.load(weights).in_force(threshold, one_view)
    network = load_network(weights, card)
    if runtime == "torch":
        if torch_device(device).type != "cpu":
            return Classifier(network, card, device, batch_size)
        # Two at once, so that a core that is through with its part of one pass goes on with the other.
        return Classifier(SideBySide(packed(network)), card, device, batch_size, at_once=2)
    if device == "cuda":
        raise InvalidModel("model.runtime openvino runs on the CPU; set model.device to auto or cpu, or take torch")
    from fracture_watch.model.openvino_runtime import OpenVinoNetwork

    return Classifier(OpenVinoNetwork(network, card.input.size), card, "cpu", batch_size)
