"""A user's labels CSV -> cases: which file, what it truly shows, and what else is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from fracture_watch.errors import WrongUse
from fracture_watch.intake.tree import Tree, scan
from fracture_watch.labels import UID, read_truths


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled file.

    Attributes
    ----------
    name : str
        As the CSV names it: a path or a SOP Instance UID.
    path : Path or None
        ``None`` where no file has that UID.
    fractured : bool
    group : str or None
        Cases of one group, such as a patient, are drawn together when intervals are made.
    properties : mapping of str to str
        The CSV's other columns.
    """

    name: str
    path: Path | None
    fractured: bool
    group: str | None
    properties: Mapping[str, str]


def read_cases(labels: Path, folder: Path) -> list[Case]:
    """Read a CSV with ``path`` (or ``image``, ``file``) or ``sop_instance_uid``, and ``label``; ``group`` is optional.

    Some lines may name a path and others a UID.

    Parameters
    ----------
    labels : Path
    folder : Path
        What relative paths are relative to, and where files are looked for by UID.

    Raises
    ------
    WrongUse
        If a column is missing, a label is none, or a file is named twice.
    """
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            truths = read_truths(file, str(labels))
    except OSError as error:
        raise WrongUse(f"{labels}: the labels cannot be read: {error.strerror}") from error
    places = _by_uid(folder) if any(t.key == UID for t in truths) else {}
    return [
        Case(t.name, places.get(t.name) if t.key == UID else folder / t.name, t.fractured, t.group, t.properties)
        for t in truths
    ]


def _by_uid(folder: Path) -> dict[str, Path]:
    """The DICOM files below ``folder``, by SOP Instance UID."""
    found: dict[str, Path] = {}
    for source in scan(Tree(folder)):
        try:
            header = dcmread(source.path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
            found.setdefault(str(header.SOPInstanceUID), source.path)
        except Exception:  # noqa: BLE001, S112  whatever is wrong with it, it is not a file that has this UID
            continue
    return found
