"""A labels CSV and a folder of pictures -> arrays. Pictures are read and resized by the serving code itself."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fracture_watch.errors import WrongUse
from fracture_watch.imaging import read
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.records import Pixels

FRACTURED = 0
_REQUIRED = ("image", "label", "split", "group")


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled picture. ``label`` is 0 fractured, 1 not; ``flags`` are the CSV's other columns that say 1."""

    path: Path
    label: int
    split: str
    group: str
    flags: frozenset[str]

    @property
    def fractured(self) -> bool:
        """Whether the label says fractured."""
        return self.label == FRACTURED


def read_labels(labels: Path, data: Path) -> list[Example]:
    """Read a labels CSV with the columns ``image, label, split, group`` and any 0/1 flags.

    Raises
    ------
    WrongUse
        If a column or a picture is missing, or a label is neither 0 nor 1.
    """
    try:
        with labels.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise WrongUse(f"{labels}: the labels cannot be read: {error.strerror}") from error
    missing = [name for name in _REQUIRED if not rows or name not in rows[0]]
    if missing:
        raise WrongUse(f"{labels}: needs the columns {', '.join(_REQUIRED)}; missing: {', '.join(missing)}")
    return [_example(row, data, line) for line, row in enumerate(rows, start=2)]


def _example(row: dict[str, str], data: Path, line: int) -> Example:
    path = data / row["image"]
    if row["label"] not in ("0", "1"):
        raise WrongUse(f"line {line}: label is {row['label']!r}; it must be 0 (fractured) or 1 (not fractured)")
    if not path.is_file():
        raise WrongUse(f"line {line}: there is no picture {path}")
    flags = frozenset(name for name, value in row.items() if name not in _REQUIRED and value == "1")
    return Example(path, int(row["label"]), row["split"], row["group"], flags)


def load_pictures(
    examples: Sequence[Example],
    preprocessor: Preprocessor,
    track: Callable[[Iterable[Example]], Iterable[Example]] = iter,
) -> Pixels:
    """Read every example as the model would see it.

    Returns
    -------
    ndarray of uint8, shape (n, size, size)
        Grey; colour pictures are averaged over their channels, as radiographs carry no colour.
    """
    return np.stack([_grey(preprocessor(read(example.path).pixels)) for example in track(examples)])


def _grey(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 2 else np.rint(pixels.mean(axis=2)).astype(np.uint8)


def labels_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Labels, shape (n,): 0 fractured, 1 not."""
    return np.array([example.label for example in examples], dtype=np.int64)
