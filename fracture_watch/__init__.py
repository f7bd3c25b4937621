"""fracture_watch: watch a folder of bone radiographs and classify each as fractured or not fractured.

Research use only. Not a medical device. The stable Python surface is ``fracture_watch.imaging.read`` and
``fracture_watch.load_classifier``; see docs/contract.md.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load_classifier"]

if TYPE_CHECKING:
    from fracture_watch.model import load_classifier


def __getattr__(name: str) -> object:
    # Loaded on first use, so that `fracture-watch --help` does not wait for torch.
    if name == "load_classifier":
        from fracture_watch.model import load_classifier

        return load_classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
