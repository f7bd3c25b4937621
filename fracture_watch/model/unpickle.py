"""Unpickles a trusted file in this process, which then ends: ``python -m fracture_watch.model.unpickle FILE OUT``."""

import sys

import torch

from fracture_watch.errors import InvalidModel
from fracture_watch.model.foreign import plain
from fracture_watch.model.torchvision_ops import import_torchvision


def main(source: str, target: str) -> None:
    """Write nothing but the tensors and the class names of ``source``."""
    import_torchvision()  # where most pickled models have their classes from
    found = plain(torch.load(source, map_location="cpu", weights_only=False), source)
    torch.save({"state": found.state, "classes": list(found.classes or ())}, target)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InvalidModel as error:
        sys.exit(error.detail)
