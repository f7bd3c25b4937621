"""What came of a file, from the pipeline to its row, and from there to who is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fracture_watch.records import Facts, Kind, Prediction, SourceFile, Status


@dataclass(frozen=True, slots=True)
class Classified:
    """The file has a prediction.

    ``heatmap`` says where its picture is (a path or a data URL), ``objects`` which DICOM objects were built of it and
    ``at`` the time that these give for it; ``None``: when it is recorded.
    """

    sha256: str
    facts: Facts
    prediction: Prediction
    notes: tuple[str, ...] = ()
    heatmap: str | None = None
    objects: frozenset[Kind] = frozenset()
    at: str | None = None

    status = Status.CLASSIFIED


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same bytes were classified before by the same model."""

    sha256: str
    facts: Facts
    notes: tuple[str, ...] = ()

    status = Status.DUPLICATE


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sound file that is not for this classifier."""

    code: str
    detail: str
    sha256: str | None = None
    facts: Facts = field(default_factory=Facts)

    status = Status.REJECTED


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that could not be processed."""

    code: str
    detail: str
    sha256: str | None = None
    facts: Facts = field(default_factory=Facts)

    status = Status.FAILED


@dataclass(frozen=True, slots=True)
class Stalled:
    """A file that keeps growing; it is still watched."""

    detail: str

    status = Status.STALLED


Outcome: TypeAlias = Classified | Duplicate | Rejected | Failed


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file whose outcome is committed; what is left is to put it where the database says it is.

    ``attempts`` counts the times that this content was received and not classified, this time included.
    """

    id: int
    source: SourceFile
    outcome: Outcome
    filed_path: Path | None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that is to reach a destination at least once.

    ``id`` is the same at every attempt, of which ``attempts`` were made; ``created_at`` is when it was recorded;
    ``subject`` is the row of the view ``results`` or ``studies`` that it is about, as the database has it now.
    """

    id: str
    kind: Kind
    destination: str
    attempts: int
    created_at: str
    subject: Mapping[str, Any] = field(repr=False)
