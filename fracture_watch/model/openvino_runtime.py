"""The same network, run by OpenVINO: converted from torch when it is loaded, in fp32, on the CPU."""

import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from fracture_watch.errors import InvalidModel
from fracture_watch.model.network import Answer, Network
from fracture_watch.texts import how_to_install


class OpenVinoNetwork(Network):
    """Stands in for a ``Network``: the same answers, computed by OpenVINO.

    Parameters
    ----------
    network : Network
    size : int
        Side of its input in pixels.

    Raises
    ------
    InvalidModel
        If the package is missing or cannot convert the network.
    """

    def __init__(self, network: Network, size: int) -> None:
        nn.Module.__init__(self)  # not Network's, which would build another one
        self.body, self.head = network.body, network.head
        openvino = _openvino()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the tracer's, about checks of shapes that stay as they are
                model = openvino.convert_model(
                    network.eval(), example_input=torch.zeros(2, 3, size, size), input=[-1, 3, size, size]
                )
            # By default it would compute in bf16 where the CPU can, and then answers differ.
            options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            self._compiled = openvino.Core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise InvalidModel(
                f"OpenVINO cannot run this network ({error}); set model.runtime to torch in config.yaml"
            ) from error

    def forward(self, images: Tensor) -> Answer:
        """``images``: float32, shape (n, 3, size, size), normalised."""
        logits, features = self._compiled(images.contiguous().numpy(), share_outputs=False).values()
        return Answer(torch.from_numpy(logits), torch.from_numpy(features))


def _openvino() -> Any:
    # OpenVINO reports its use to its maker over the network, at import already, where it finds this package.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise InvalidModel(
            f"model.runtime is openvino, and the package openvino is missing: {how_to_install('openvino')}; or set "
            "model.runtime to torch"
        ) from error
    return openvino
