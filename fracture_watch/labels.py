"""What images truly show, as people keep it: a CSV file with a line for each."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fracture_watch.errors import WrongUse

PATHS = ("path", "image", "file")
UID = "sop_instance_uid"
SHA256 = "sha256"
# What a spreadsheet takes for the beginning of a formula. Exports put an apostrophe before it, which is undone here.
BEFORE = r"[\s\x00-\x20\ufeff\u200b\"']*"
SIGN = "[=+@\uff1d\uff0b\uff0d\uff20-]"
_GUARDED = re.compile(rf"'(?=[\t\r\n]|{BEFORE}{SIGN})")
_GUARDED_WITHIN = re.compile(rf"([;\t\r\n]{BEFORE})'(?={SIGN})")
_FRACTURED = {"0": True, "fractured": True, "1": False, "not fractured": False, "not_fractured": False}


@dataclass(frozen=True, slots=True)
class Truth:
    """A line of it.

    Attributes
    ----------
    line : int
        Counted from 1, which is the header.
    key : str
        The column that names the image.
    name : str
        What it says there: a path, a SOP Instance UID or a digest.
    fractured : bool
    group : str or None
        Images of one group, such as a patient, belong together.
    properties : mapping of str to str
        The other columns.
    """

    line: int
    key: str
    name: str
    fractured: bool
    group: str | None
    properties: Mapping[str, str]


def read_truths(
    text: Iterable[str], where: str, keys: tuple[str, ...] = (*PATHS, UID), most: int | None = None
) -> list[Truth]:
    """Read the lines of a CSV file with the column ``label`` and one of ``keys``; ``group`` is optional.

    Parameters
    ----------
    text : iterable of str
        Lines, or an open file.
    where : str
        What errors call the file.
    keys : tuple of str
        Columns that may name the image; of each line the first that says something counts.
    most : int, optional
        How many lines there may be below the header.

    Raises
    ------
    WrongUse
        If a column is missing, a label is none, an image is named twice, or there are too many lines.
    """
    truths: dict[tuple[str, str], Truth] = {}
    for line, row in enumerate(_rows(text, where), start=2):
        key = _key(row, where, keys)
        if len(truths) == most:
            raise WrongUse(f"{where}: has over {most:,} lines; bring it in parts")
        name, label = row.get(key, ""), row.get("label", "").lower()
        if not name or label not in _FRACTURED:
            raise WrongUse(
                f"{where}, line {line}: needs a {key}, and a label that is fractured or not fractured (or 0 "
                f"fractured, 1 not fractured); it has {name!r} and {label!r}"
            )
        if (key, name) in truths:
            raise WrongUse(f"{where}, line {line}: {name} is named a second time; leave one line for each file")
        others = {k: v for k, v in row.items() if v and k not in (key, "label", "group")}
        truths[key, name] = Truth(line, key, name, _FRACTURED[label], row.get("group") or None, others)
    if not truths:
        raise WrongUse(f"{where}: has no rows")
    return list(truths.values())


def _unguarded(cell: str) -> str:
    """A cell of an export as it was before it was made safe for spreadsheets."""
    whole = cell[1:] if _GUARDED.match(cell) else cell
    return _GUARDED_WITHIN.sub(r"\1", whole)


def _key(row: Mapping[str, str], where: str, keys: tuple[str, ...]) -> str:
    there = [name for name in keys if name in row]
    if not there or "label" not in row:
        raise WrongUse(f"{where}: needs the column label, and one of {', '.join(keys)}")
    return next((name for name in there if row[name]), there[0])


def _rows(text: Iterable[str], where: str) -> Iterator[dict[str, str]]:
    try:
        for row in csv.DictReader(text):
            yield {k: _unguarded((v or "").strip()) for k, v in row.items() if k}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrongUse(f"{where}: the labels cannot be read as a UTF-8 CSV file: {error}") from error
