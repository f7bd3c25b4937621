"""A labels CSV and a folder of pictures -> arrays. Pictures are read and resized by the serving code itself."""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fracture_watch.errors import FractureWatchError, WrongUse
from fracture_watch.imaging import read
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.records import Pixels, Radiograph

FRACTURED = 0
_REQUIRED = ("image", "label", "split", "group")
_SPLITS = ("train", "tune", "val")
_EDGES = ("x_min", "y_min", "x_max", "y_max")
Box = tuple[float, float, float, float]
Track: TypeAlias = Callable[[Iterable[Any], str], Iterable[Any]]  # shows progress through items, under a description


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled picture.

    ``label`` is 0 fractured, 1 not; ``flags`` are the CSV's other columns that say 1; ``boxes`` hold its fractures,
    as fractions of width and height: left, top, right, bottom.
    """

    path: Path
    label: int
    split: str
    group: str
    flags: frozenset[str]
    boxes: tuple[Box, ...] = ()

    @property
    def fractured(self) -> bool:
        """Whether the label says fractured."""
        return self.label == FRACTURED


@dataclass(frozen=True, slots=True)
class Sources:
    """Where labelled pictures are: a labels CSV (``read_labels``), a folder, a CSV of boxes (``with_boxes``)."""

    labels: Path
    pictures: Path
    boxes: Path | None = None

    def examples(self) -> list[Example]:
        """Every example, with its boxes.

        Raises
        ------
        WrongUse
            If a file is missing or unusable.
        """
        examples = read_labels(self.labels, self.pictures)
        return with_boxes(examples, self.boxes, self.pictures) if self.boxes else examples


def read_labels(labels: Path, data: Path) -> list[Example]:
    """Read a labels CSV with the columns ``image, label, split, group`` and any 0/1 flags.

    Raises
    ------
    WrongUse
        If a column or a picture is missing, a label is neither 0 nor 1, a picture is named twice, or a group is in more
        than one split.
    """
    rows = _rows(labels, "labels")
    missing = [name for name in _REQUIRED if not rows or name not in rows[0]]
    if missing:
        raise WrongUse(f"{labels}: needs the columns {', '.join(_REQUIRED)}; missing: {', '.join(missing)}")
    examples: dict[Path, Example] = {}
    splits: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        example = _example(row, data, line)
        if example.path in examples:
            raise WrongUse(f"line {line}: {row['image']} is named a second time; leave one line for each picture")
        examples[example.path] = example
        if example.split in _SPLITS and example.split != splits.setdefault(example.group, example.split):
            raise WrongUse(
                f"line {line}: group {example.group!r} is in the split {splits[example.group]} and in {example.split}; "
                "figures would flatter: pictures that may show one patient must be in one split"
            )
    return list(examples.values())


def _rows(path: Path, what: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            return list(csv.DictReader(file, restval=""))
    except OSError as error:
        raise WrongUse(f"{path}: the {what} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise WrongUse(f"{path}: the {what} cannot be read as a UTF-8 CSV file: {error}") from error


def _example(row: dict[str, str], data: Path, line: int) -> Example:
    path = data / row["image"]
    if row["label"] not in ("0", "1"):
        raise WrongUse(f"line {line}: label is {row['label']!r}; it must be 0 (fractured) or 1 (not fractured)")
    if not path.is_file():
        raise WrongUse(f"line {line}: there is no picture {path}")
    flags = frozenset(name for name, value in row.items() if name not in _REQUIRED and value == "1")
    return Example(path, int(row["label"]), row["split"], row["group"], flags)


def with_boxes(examples: Sequence[Example], boxes: Path, data: Path) -> list[Example]:
    """Add fracture boxes from a CSV with the columns ``image, x_min, y_min, x_max, y_max``, several rows an image.

    Raises
    ------
    WrongUse
        If the file cannot be read, an edge is missing or is no fraction, or the boxes are of no fractured picture among
        the examples, or of one that is not fractured.
    """
    found: dict[Path, list[Box]] = defaultdict(list)
    for line, row in enumerate(_rows(boxes, "boxes"), start=2):
        image, box = _box(row, line, boxes)
        found[data / image].append(box)
    boxed = [replace(example, boxes=tuple(found[example.path])) for example in examples]
    if wrong := next((example.path.name for example in boxed if example.boxes and not example.fractured), None):
        raise WrongUse(
            f"{boxes}: has a box of {wrong}, which the labels call not fractured (1); find out which is right"
        )
    if not any(example.boxes for example in boxed):
        raise WrongUse(f"{boxes}: has no box of a labelled picture; its column image must name them as the labels do")
    return boxed


def displayed(example: Example) -> Radiograph:
    """The example's picture as a viewer would show it.

    Raises
    ------
    WrongUse
        If it cannot be read; names it.
    """
    try:
        return read(example.path)
    except FractureWatchError as error:
        raise WrongUse(f"{example.path}: {error.detail}") from error


def fingerprint(recipe: Mapping[str, Any], *parts: Sequence[Example]) -> str:
    """Digest of a recipe and of everything that labels and boxes say of examples, in their order."""
    told = [[(e.path.name, e.label, e.group, e.boxes) for e in part] for part in parts]
    return hashlib.sha256(json.dumps([recipe, told], sort_keys=True).encode()).hexdigest()


def _box(row: dict[str, str], line: int, boxes: Path) -> tuple[str, Box]:
    """The picture's name, and where its fracture is."""
    try:
        image, (left, top, right, bottom) = row["image"], (float(row[edge]) for edge in _EDGES)
    except (KeyError, TypeError, ValueError) as error:
        raise WrongUse(f"{boxes}, line {line}: needs the columns image and, as numbers, {', '.join(_EDGES)}") from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise WrongUse(f"{boxes}, line {line}: the edges must be fractions of width and height, min below max")
    return image, (left, top, right, bottom)


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures on square canvases, in memory.

    Attributes
    ----------
    pixels : sequence of ndarray of uint8, each of shape (side, side)
        Grey; colour pictures are averaged over their channels, as radiographs carry no colour.
    areas : ndarray of float, shape (n, 4)
        Where each picture lies on its canvas: left, top, right, bottom, as fractions of the canvas.
    boxes : list of ndarray of float, each of shape (k, 4)
        The fractures of each picture, as fractions of the canvas.
    """

    pixels: Sequence[Pixels]
    areas: NDArray[np.float64]
    boxes: list[NDArray[np.float64]]


class Reader:
    """Reads examples onto a canvas, with the serving code; each once, as the networks of a cross-validation share most.

    Parameters
    ----------
    canvas : Preprocessor
    track : function
        For progress.
    """

    def __init__(self, canvas: Preprocessor, track: Track) -> None:
        self._canvas, self._track = canvas, track
        self._read: dict[Path, tuple[Pixels, Box]] = {}

    def __call__(self, examples: Sequence[Example]) -> Pictures:
        """The pictures of examples, in order."""
        unread = [example for example in examples if example.path not in self._read]
        for example in self._track(unread, "reading pictures") if unread else ():
            self._read[example.path] = self._placed(example)
        boxes = []
        for example in examples:
            left, top, right, bottom = self._read[example.path][1]
            width, height = right - left, bottom - top
            fractions = np.array(example.boxes, float).reshape(-1, 4)
            boxes.append(fractions * (width, height, width, height) + (left, top, left, top))
        pixels, areas = zip(*(self._read[example.path] for example in examples), strict=True)
        return Pictures(pixels, np.array(areas), boxes)

    def _placed(self, example: Example) -> tuple[Pixels, Box]:
        shown = displayed(example).pixels
        left, top, width, height = (edge / self._canvas.size for edge in self._canvas.boxes(*shown.shape[:2])[0])
        return grey(self._canvas(shown)[0]), (left, top, left + width, top + height)


def grey(pixels: Pixels) -> Pixels:
    """One channel; colour is averaged."""
    return pixels if pixels.ndim == 2 else np.rint(pixels.mean(axis=2)).astype(np.uint8)
