"""Radiographs -> predictions, in batches, with everything that decides a result taken from the card."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fracture_watch.errors import InvalidModel
from fracture_watch.model.card import Card
from fracture_watch.model.network import Network
from fracture_watch.model.pooling import Logits, pooled, shares
from fracture_watch.model.turns import Turns
from fracture_watch.records import Label, Pixels, Prediction, Prepared, Radiograph

_FRACTURED, _NOT_FRACTURED = 0, 1
_SHORT = 8  # images of one pass where somebody urgent may have to wait for it


class Classifier:
    """A loaded model.

    Parameters
    ----------
    network : Network
    card : Card
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes the GPU where there is one, and then switches TF32 off for the whole process: its eleven bits
        of precision would make answers vary with the batch.
    batch_size : int
        Most images in one forward pass.
    at_once : int
        How many passes the network may be asked for at the same time.
    """

    def __init__(
        self, network: Network, card: Card, device: str = "auto", batch_size: int = 16, at_once: int = 1
    ) -> None:
        self.card = card
        self._device = torch_device(device)
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False
        self.network = network.to(self._device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._batch_size = batch_size
        self._mean = torch.tensor(card.input.mean, device=self._device) * 255
        self._std = torch.tensor(card.input.std, device=self._device) * 255
        self._greys = self._standardised(torch.arange(256, device=self._device)[:, None])
        self._turns = Turns(at_once)

    def predict(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        """Classify displayed radiographs, in order.

        Parameters
        ----------
        radiographs : sequence of Radiograph
            As ``fracture_watch.imaging.read`` gives them.

        Returns
        -------
        list of Prediction
        """
        preprocessor = self.card.preprocessor
        return self._predict([preprocessor(r.pixels)[np.newaxis] for r in radiographs])

    def classify(self, prepared: Sequence[Prepared], *, urgent: bool = False) -> list[Prediction]:
        """Classify what decoding workers prepared, in order; a file's answer is its highest frame's.

        What is ``urgent`` waits for one forward pass of what is not, at most.
        """
        return self._predict([p.tensor for p in prepared], urgent)

    def view_logits(self, frames: Pixels) -> Logits:
        """What the network says of each view, before pooling and calibration.

        Parameters
        ----------
        frames : ndarray of uint8, shape (n, views, size, size) or (n, views, size, size, 3)

        Returns
        -------
        ndarray of float64, shape (n, views)
        """
        return self._looked(_together([frames]))[0].reshape(frames.shape[:2])

    def _predict(self, tensors: Sequence[Pixels], urgent: bool = False) -> list[Prediction]:
        if not tensors:
            return []
        logits, maps = self._looked(_together(tensors), urgent)
        answers, start = [], 0
        for tensor in tensors:
            frames, views = tensor.shape[:2]
            these = slice(start, start := start + frames * views)
            shape = (frames, views)
            answers.append(self._answer(logits[these].reshape(shape), maps[these].reshape(*shape, *maps.shape[1:])))
        return answers

    def _looked(self, images: Tensor, urgent: bool = False) -> tuple[Logits, NDArray[np.float32]]:
        """Logits of *fractured*, shape (n,), and its activation maps, shape (n, h, w), a batch at a time.

        ``images``: as ``_together`` makes them.
        """
        parts = []
        on_call = self._turns.contested and self._device.type == "cpu"
        for chunk in images.split(min(self._batch_size, _SHORT) if on_call else self._batch_size):
            with self._turns.turn(urgent=urgent), torch.inference_mode():
                parts.append(self._forward(chunk))
        return np.concatenate([logit for logit, _ in parts]), np.concatenate([evidence for _, evidence in parts])

    def _forward(self, images: Tensor) -> tuple[Logits, NDArray[np.float32]]:
        if self._device.type == "cuda":
            images = images.pin_memory().to(self._device, non_blocking=True)
        # What is grey has 256 levels: a table of them takes a third of the time.
        grey = images.ndim == 3
        ready = functional.embedding(images.int(), self._greys) if grey else self._standardised(images)
        answer = self.network(ready.permute(0, 3, 1, 2))  # channels last in memory already
        logits = (answer.logits[:, _FRACTURED] - answer.logits[:, _NOT_FRACTURED]).double().cpu().numpy()
        towards = self.network.head.weight[_FRACTURED] - self.network.head.weight[_NOT_FRACTURED]
        evidence = torch.einsum("nchw,c->nhw", answer.features, towards).float().cpu().numpy()
        return logits, evidence

    def _standardised(self, values: Tensor) -> Tensor:
        """``values``: 0 to 255, shape (..., 1) or (..., 3)."""
        return (values.float() - self._mean) / self._std

    def _answer(self, logits: Logits, maps: NDArray[np.float32]) -> Prediction:
        """``logits``: shape (frames, views); ``maps``: shape (frames, views, h, w)."""
        scores = pooled(logits, self.card.pool)
        frame = int(np.argmax(scores))
        score = self.card.calibration.slope * float(scores[frame]) + self.card.calibration.intercept
        if not np.isfinite(score):
            raise InvalidModel(f"{self.card.name} {self.card.version}: the network's output is not a number")
        probability = float(np.exp(-np.logaddexp(0.0, -score)))  # the logistic function, without its overflow
        threshold = self.card.threshold.value
        label = Label.FRACTURED if probability >= threshold else Label.NOT_FRACTURED
        weights = shares(logits[frame : frame + 1], self.card.pool)[0].astype(np.float32)
        evidence = maps[frame] * weights[:, np.newaxis, np.newaxis]
        return Prediction(label, probability, threshold, self.card.facts, frame, evidence)


@dataclass(frozen=True, slots=True)
class Urgent:
    """The same model for whoever waits for the answer."""

    classifier: Classifier

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Classify ahead of what nobody waits for."""
        return self.classifier.classify(prepared, urgent=True)


def _together(tensors: Sequence[Pixels]) -> Tensor:
    """The views of all files, each (frames, views, size, size) or with colours (frames, views, size, size, 3).

    Returns
    -------
    Tensor of uint8, shape (n, size, size), or (n, size, size, 3) where any has colours
    """
    images = [torch.from_numpy(tensor).flatten(0, 1) for tensor in tensors]
    if any(each.ndim == 4 for each in images):
        images = [each if each.ndim == 4 else each[..., None].expand(-1, -1, -1, 3) for each in images]
    return torch.cat(images)


def torch_device(name: str) -> torch.device:
    """What computes, for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InvalidModel
        If it is to be a GPU, and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidModel("model.device is cuda, but torch finds no GPU; set it to auto or cpu")
    return torch.device(name)
