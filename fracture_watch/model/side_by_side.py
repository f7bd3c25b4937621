"""The same network on a CPU, every core over images of its own."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from fracture_watch.model.network import Answer, Network

_CACHED = 4  # images of one pass: more of them push each other's features out of the cache of a core


class SideBySide(Network):
    """Stands in for a ``Network``: the same answers, with a batch divided among the cores.

    Threads that share a batch wait for one another after every layer, and the layers of a small network are short.
    Several batches may be asked for at the same time; each part waits for the next core that is free.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        nn.Module.__init__(self)  # not Network's, which would build another one
        self.body, self.head = network.body, network.head
        self._network = network
        self._cores = torch.get_num_threads()
        self._threads = ThreadPoolExecutor(self._cores, thread_name_prefix="pass")
        all_there = threading.Barrier(self._cores)

        def alone(_: int) -> None:
            torch.set_num_threads(1)
            all_there.wait()

        list(self._threads.map(alone, range(self._cores)))
        torch.set_num_threads(self._cores)  # of threads yet to come; these keep theirs

    def forward(self, images: Tensor) -> Answer:
        """``images``: float32, shape (n, 3, size, size), normalised."""
        parts = max(min(self._cores, len(images)), math.ceil(len(images) / _CACHED))
        answers = list(self._threads.map(self._answer, images.tensor_split(parts)))
        return Answer(*(torch.cat(part) for part in zip(*answers, strict=True)))

    def _answer(self, images: Tensor) -> Answer:
        with torch.inference_mode():  # a matter of each thread's own
            answer: Answer = self._network(images)
            return answer
