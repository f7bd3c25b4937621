"""The frozen values that travel through the house. Imports nothing heavy.

``SourceFile | Upload -> Prepared -> Prediction -> Outcome -> one row``; a constructed value is valid.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pixels: TypeAlias = "NDArray[np.uint8]"

DISCLAIMER = "Research use only. Not a medical device."
OWN_MODEL_NAME = "fracture_watch"  # ManufacturerModelName of the DICOM objects that this program writes
DROPPED = "dropped:"  # begins the alias of a file whose path is not recorded in any form
LOOPBACK = ("127.0.0.1", "::1", "localhost")  # names of this machine that no other one reaches


class Label(StrEnum):
    """What the classifier says of a radiograph."""

    FRACTURED = "fractured"
    NOT_FRACTURED = "not fractured"


class Status(StrEnum):
    """What came of a received file."""

    CLASSIFIED = "classified"  # it has a prediction
    DUPLICATE = "duplicate"  # the same bytes were classified before by the same model
    REJECTED = "rejected"  # a sound file that is not for this classifier
    FAILED = "failed"  # a file that could not be processed
    STALLED = "stalled"  # still growing after inbox.give_up_seconds; still watched


class Format(StrEnum):
    """What a file's content is, whatever its name says."""

    DICOM = "dicom"
    PNG = "png"
    JPEG = "jpeg"
    TIFF = "tiff"
    WEBP = "webp"
    BMP = "bmp"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """What is delivered."""

    RESULT = "result"  # what came of one file
    STUDY = "study"  # a study that no new file came to for a while
    SR = "sr"  # a result as a DICOM structured report
    SC = "sc"  # a result as a DICOM picture with its heat map


OBJECTS = (Kind.SR, Kind.SC)  # kinds that are files, built when the result is recorded


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it stood when it was found ready.

    Path, size, mtime and inode tell it from a later file of the same name; ``seen_at`` (UTC, ISO 8601) is when it
    was first sighted; ``attempts`` counts how often it was tried and put off before. ``alias`` stands for the path
    wherever the file is recorded, shown or logged, since a path may identify a patient; ``None``: the path itself.
    """

    path: Path
    size: int
    modified_ns: int
    inode: int
    seen_at: str = field(compare=False)
    attempts: int = field(default=0, compare=False)
    alias: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What may be said of where it is: the one name for records, people and logs."""
        return self.alias or str(self.path)


@dataclass(frozen=True, slots=True)
class Upload:
    """Bytes that arrived by HTTP; they have no place on disk."""

    name: str
    content: bytes = field(repr=False)


Source: TypeAlias = SourceFile | Upload


@dataclass(frozen=True, slots=True)
class Greys:
    """Another window than the one that a viewer opens with, whatever gave that: its greys are 0 (black) to 1 (white).

    From ``low``, then black, to ``high``, then white, they are spread over the screen; below 0 and over 1 lies what
    the first window clips.
    """

    low: float = 0.0
    high: float = 1.0

    def __call__(self, grey: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Greys shown at first -> greys to show, neither clipped."""
        return (grey - self.low) / (self.high - self.low)


ALL_GREYS = Greys()


@dataclass(frozen=True, slots=True)
class Filed:
    """One frame of a file that has a result, and what is to be seen of it.

    Unless it is ``None``, the digest tells whether it is still the same file.
    """

    path: Path
    sha256: str | None
    frame: int = 0
    greys: Greys = ALL_GREYS


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of itself. An absent or unreadable fact is ``None``; a PNG has none but its size.

    ``rows`` and ``columns`` are in pixels, ``spacing`` is (row, column) in millimetres as PixelSpacing or
    ImagerPixelSpacing gives it, ``study_date`` is ISO 8601.
    """

    patient_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    sop_instance_uid: str | None = None
    accession_number: str | None = None
    modality: str | None = None
    body_part: str | None = None
    laterality: str | None = None
    view_position: str | None = None
    study_date: str | None = None
    rows: int | None = None
    columns: int | None = None
    spacing: tuple[float, float] | None = None
    manufacturer: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """One frame as a viewer shows it.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
        Display values, 0 black to 255 white; three channels are RGB.
    sha256 : str
        Digest of the bytes that were decoded.
    frame : int
        Counted from 0.
    frames : int
        How many frames the file has.
    facts : Facts
    notes : tuple of str
        What was unusual but handled.
    """

    pixels: Pixels
    sha256: str
    frame: int
    frames: int
    facts: Facts
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What crosses from a decoding worker to the classifier: small pictures and facts, never the full image.

    Attributes
    ----------
    sha256 : str
        Digest of the very bytes that were decoded.
    tensor : ndarray of uint8, shape (frames, views, size, size) or (frames, views, size, size, 3)
        The model's input, before normalisation: every frame's whole picture, then its tiles.
    previews : tuple of ndarray of uint8, each of shape (rows, columns) or (rows, columns, 3)
        Every frame as displayed, at most 512 pixels on its long side.
    shapes : tuple of (int, int)
        Rows and columns of every frame as displayed, in full size.
    facts : Facts
    notes : tuple of str
        What was unusual but handled.
    """

    sha256: str
    tensor: Pixels
    previews: tuple[Pixels, ...]
    shapes: tuple[tuple[int, int], ...]
    facts: Facts
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model spoke: ``id`` is the digest of the weights and of every card field that decides a result."""

    name: str
    version: str
    id: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The classifier's answer for one file.

    ``probability`` is the calibrated probability of *fractured*; the label is *fractured* at or over
    ``threshold``. ``frame`` (from 0) is the one with the highest probability. ``evidence`` holds a map for each view
    of it, float32 of shape (views, h, w) over the model's input. With one view the map's mean (plus a constant) is
    the logit; with several each map counts by the slope of the pooled logit along its view's.
    """

    label: Label
    probability: float
    threshold: float
    model: ModelFacts
    frame: int = 0
    evidence: "NDArray[np.float32] | None" = field(default=None, compare=False, repr=False)
