"""A user's labels CSV -> cases: which file, what it truly shows, and what else is known of it."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from fracture_watch.errors import WrongUse
from fracture_watch.intake.folder import Tree, scan

_PATHS = ("path", "image", "file")
_UID = "sop_instance_uid"
_LABELS = {"0": True, "fractured": True, "1": False, "not fractured": False, "not_fractured": False}


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
    rows = _rows(labels)
    columns = set(rows[0])
    key = next((name for name in (*_PATHS, _UID) if name in columns), None)
    if key is None or "label" not in columns:
        raise WrongUse(f"{labels}: needs the column label, and one of {', '.join((*_PATHS, _UID))}")
    places = _by_uid(folder) if key == _UID else {}
    cases: dict[str, Case] = {}
    for line, row in enumerate(rows, start=2):
        name, label = row[key], row["label"].lower()
        if not name or label not in _LABELS:
            raise WrongUse(
                f"{labels}, line {line}: needs a {key}, and a label that is fractured or not fractured (or 0 "
                f"fractured, 1 not fractured); it has {name!r} and {label!r}"
            )
        if name in cases:
            raise WrongUse(f"{labels}, line {line}: {name} is named a second time; leave one line for each file")
        others = {k: v for k, v in row.items() if v and k not in (key, "label", "group")}
        path = places.get(name) if key == _UID else folder / name
        cases[name] = Case(name, path, _LABELS[label], row.get("group") or None, others)
    return list(cases.values())


def _rows(labels: Path) -> list[dict[str, str]]:
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrongUse(f"{labels}: the labels cannot be read as a UTF-8 CSV file: {error}") from error
    if not rows:
        raise WrongUse(f"{labels}: has no rows")
    return rows


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
