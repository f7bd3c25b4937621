"""When to stop: at the best AUROC on a split of its own, which is neither fitted nor reported."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fracture_watch.model.network import Network
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.training.data import FRACTURED, Example, displayed, grey
from fracture_watch.training.judging import truth_of

_BATCH = 32


class EarlyStopping:
    """Keeps the weights of the best epoch so far. Without examples every epoch is the best.

    Parameters
    ----------
    examples : sequence of Example
        The ``tune`` split; whole pictures are looked at.
    canvas : Preprocessor
    normalise : function
        RGB in [0, 1] -> what the network takes.
    patience : int
        Training ends after so many epochs without a better AUROC.
    """

    def __init__(
        self, examples: Sequence[Example], canvas: Preprocessor, normalise: Callable[[Tensor], Tensor], patience: int
    ) -> None:
        self._truth = truth_of(examples)
        self._images = [torch.from_numpy(grey(canvas(displayed(example).pixels)[0])) for example in examples]
        self._normalise, self._patience = normalise, patience
        self._best: dict[str, Tensor] | None = None
        self._auroc, self._epoch, self._seen = -1.0, 0, 0

    def look(self, network: Network) -> str:
        """Measure ``network`` at the end of an epoch; says what was found."""
        self._seen += 1
        if not self._images:
            return ""
        auroc = float(roc_auc_score(self._truth, self._logits(network)))
        if auroc > self._auroc:
            self._auroc, self._epoch, self._best = auroc, self._seen, copy.deepcopy(network.state_dict())
        return f", AUROC on tune {auroc:.3f} (best {self._auroc:.3f}, epoch {self._epoch})"

    @property
    def over(self) -> bool:
        """Whether training should end."""
        return bool(self._images) and self._seen - self._epoch >= self._patience

    def best(self, network: Network) -> Network:
        """``network`` with the best weights seen, or as it is where nothing was measured."""
        if self._best is not None:
            network.load_state_dict(self._best)
        return network

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": self._best, "auroc": self._auroc, "epoch": self._epoch, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._best, self._auroc = state["best"], state["auroc"]
        self._epoch, self._seen = state["epoch"], state["seen"]

    def _logits(self, network: Network) -> Any:
        parts = []
        training, device = network.training, next(network.parameters()).device
        network.eval()
        with torch.inference_mode():
            for start in range(0, len(self._images), _BATCH):
                pixels = torch.stack(self._images[start : start + _BATCH])[:, None].expand(-1, 3, -1, -1)
                logits = network(self._normalise(pixels.float() / 255).to(device)).logits
                parts.append((logits[:, FRACTURED] - logits[:, 1 - FRACTURED]).cpu().numpy())
        network.train(training)
        return np.concatenate(parts)
