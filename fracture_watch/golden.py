"""Golden images: drawn pictures whose probabilities stand in the card.

They go through the real decoding and the real model. A swapped class order, another normalisation, an edited card or
a library that computes otherwise answers differently, and is caught before anything is recorded.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from fracture_watch.errors import InvalidModel
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.workers import Plan, prepare
from fracture_watch.model import load_classifier
from fracture_watch.model.card import Card
from fracture_watch.model.preprocess import Small
from fracture_watch.records import Prediction, Prepared, Upload

Grid: TypeAlias = NDArray[np.int64]

# In log-odds: at most 0.0125 in probability. Rounding is far below it (OpenVINO against torch: under 0.0001); a wrong
# class order, normalisation or resize moves at least one image of the shipped model by ten times as much.
TOLERANCE = 0.05
_CLIP = 1e-6


class Model(Protocol):
    """What is checked: a classifier with its card."""

    card: Card

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Classify, in order."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One golden image: the probability in the card (``None`` where the card has none) and today's."""

    name: str
    expected: float | None
    found: float

    @property
    def agrees(self) -> bool:
        """Whether today's answer is the card's; without an expected one there is nothing to contradict."""
        return self.expected is None or abs(_log_odds(self.expected) - _log_odds(self.found)) <= TOLERANCE


def compare(model: Model) -> list[Comparison]:
    """Decode and classify every golden image, and put the card's probability beside the answer."""
    plan = Plan(Small(model.card.preprocessor), Limits(), Scope())
    prepared = [prepare(Upload(name, draw()), plan) for name, draw in _IMAGES.items()]
    predictions = model.classify(prepared)
    expected = model.card.golden
    return [
        Comparison(name, expected.get(name), prediction.probability)
        for name, prediction in zip(_IMAGES, predictions, strict=True)
    ]


def complaint(model: Model, compared: Sequence[Comparison]) -> str | None:
    """What is wrong and what to do next; ``None`` where every image that the card knows agrees."""
    wrong = [c for c in compared if not c.agrees]
    if not wrong:
        return None
    answers = ", ".join(f"{c.name} {c.found:.4f} instead of {c.expected:.4f}" for c in wrong)
    return (
        f"{model.card.name} {model.card.version}: golden images get other probabilities than its card says: {answers}. "
        "The card, the weights or a library (torch, Pillow, pydicom) is not what it was when the card was written: put "
        "the matching ones back. If the change was meant, measure the model again with `fracture-watch model evaluate` "
        "and accept it with `fracture-watch model check --write`"
    )


def write(weights: Path) -> Card:
    """Store today's probabilities in the card of ``weights`` as the ones to expect.

    They are the reference runtime's (torch on the CPU), whatever the settings say.
    """
    card = Card.load(weights)
    changes: dict[str, Any] = {"golden": _answers(load_classifier(weights, device="cpu"))}
    if card.one_view:
        whole = _answers(load_classifier(weights, device="cpu", one_view=True))
        changes["one_view"] = card.one_view.model_copy(update={"golden": whole})
    card = card.model_copy(update=changes)
    card.save(weights)
    return card


def _answers(model: Model) -> dict[str, float]:
    # Nine digits: with fewer, a probability near 1 would be rounded to other log-odds than it has.
    return {c.name: float(f"{_clipped(c.found):.9g}") for c in compare(model)}


def require(model: Model) -> bool:
    """Refuse a model that contradicts its card.

    Returns
    -------
    bool
        Whether the card has probabilities to compare with.

    Raises
    ------
    InvalidModel
        If a golden image gets another probability than the card says.
    """
    compared = compare(model)
    if wrong := complaint(model, compared):
        raise InvalidModel(wrong)
    return all(c.expected is not None for c in compared)


def _log_odds(probability: float) -> float:
    clipped = _clipped(probability)
    return math.log(clipped / (1 - clipped))


def _clipped(probability: float) -> float:
    return min(max(probability, _CLIP), 1 - _CLIP)


def _limb(rows: int, columns: int, gap: int) -> Grid:
    """A limb with two bones, 0 to 4095, bone bright; ``gap`` rows of the larger bone are dark.

    Integer arithmetic only: the same picture from every NumPy, on every machine.
    """
    y, x = np.ogrid[0:rows, 0:columns]
    y, x = y.astype(np.int64), x.astype(np.int64)
    middle, radius = columns // 2 + (y - rows // 2) // 9, columns * 3 // 8
    picture = 300 + np.maximum(0, radius * radius - (x - middle) ** 2) * 1300 // (radius * radius)
    for offset, width, broken in ((-columns // 10, columns // 9, True), (columns // 6, columns // 16, False)):
        distance = np.abs(x - middle - offset) + 0 * y
        bone = np.where(distance > width * 3 // 4, 1900, 1000) * (distance < width)
        if broken:
            crack = np.abs(y - rows // 2 - (x - middle) // 2) * 2 < gap
            bone = np.where(crack, bone // 5, bone)
        picture = picture + bone
    grain = (x * 7919 + y * 104729 + x * y * 31) % 61 - 30
    return np.asarray(np.clip(picture + grain, 0, 4095))


def _dicom() -> bytes:
    """12 bits, MONOCHROME1, a window: the whole grey chain."""
    stored = 4095 - _limb(320, 224, gap=10)
    header = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "2.25.1",
        "Modality": "DX",
        "BodyPartExamined": "FOREARM",
        "PresentationIntentType": "FOR PRESENTATION",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": 2200,
        "WindowWidth": 3600,
    }
    for keyword, value in values.items():
        setattr(header, keyword, value)
    header.add_new("PixelData", "OW", stored.astype("<u2").tobytes())
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _png() -> bytes:
    """8 bits, wide, as an export from a viewer."""
    return _as_png((_limb(300, 200, gap=0).T // 16).astype(np.uint8))


def _colour_png() -> bytes:
    """Three different channels: their order and each one's normalisation count."""
    grey = _limb(240, 240, gap=24) // 16
    return _as_png(np.stack([grey, grey * 3 // 4, 255 - grey], axis=-1).astype(np.uint8))


def _as_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# A changed drawing gets a new name: cards hold the answers to these.
_IMAGES: dict[str, Callable[[], bytes]] = {"dicom-1": _dicom, "png-1": _png, "colour-1": _colour_png}
