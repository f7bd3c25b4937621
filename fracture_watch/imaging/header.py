"""Tolerant reading of DICOM elements: a broken or absent value is ``None``, never an exception."""

import datetime
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue

from fracture_watch.imaging.grayscale import Lut, Window
from fracture_watch.records import Facts


def text(header: Dataset, *keywords: str) -> str | None:
    """The first non-empty of the named elements, as text; several values are joined as in the file."""
    for keyword in keywords:
        value = _get(header, keyword)
        if value is None:
            continue
        joined = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
        if joined := joined.strip(" \0"):
            return joined
    return None


def numbers(header: Dataset, keyword: str) -> list[float]:
    """The element's values as floats; what is no number is NaN. Empty where it is absent."""
    value = _get(header, keyword)
    values = value if isinstance(value, MultiValue | list) else [] if value is None or value == "" else [value]
    return [_float(item) for item in values]


def number(header: Dataset, keyword: str) -> float | None:
    """The element's first value where it is a finite number."""
    values = numbers(header, keyword)
    return values[0] if values and math.isfinite(values[0]) else None


def integer(header: Dataset, keyword: str) -> int | None:
    """The element's first value where it is a number, cut to an integer."""
    value = number(header, keyword)
    return None if value is None else int(value)


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty where it is absent or broken."""
    value = _get(header, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Iterable) else []


def windows(header: Dataset) -> list[Window]:
    """WindowCenter and WindowWidth in pairs, as declared, valid or not."""
    function = (text(header, "VOILUTFunction") or "LINEAR").upper()
    function = function if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else "LINEAR"
    pairs = zip(numbers(header, "WindowCenter"), numbers(header, "WindowWidth"), strict=False)
    return [Window(center, width, function) for center, width in pairs]


def lut(item: Dataset, signed: bool, name: str = "LUT") -> Lut | None:
    """A Modality or VOI LUT item (PS3.3 C.11.1.1, C.11.2.1.1) or a palette; ``None`` where it is unusable."""
    descriptor = numbers(item, f"{name}Descriptor")
    if len(descriptor) != 3 or not all(map(math.isfinite, descriptor)):
        return None
    count, first, bits = int(descriptor[0]) & 0xFFFF or 65536, int(descriptor[1]), int(descriptor[2])
    if signed and first > 32767:
        first -= 65536
    entries = _lut_entries(_get(item, f"{name}Data"), count, item)
    if entries is None or not 8 <= bits <= 16:
        return None
    return Lut(first, entries.astype(np.uint16), min(bits, entries.itemsize * 8))


def _lut_entries(data: Any, count: int, item: Dataset) -> "np.ndarray[Any, np.dtype[np.unsignedinteger]] | None":
    """The entries, in the size that they are stored in."""
    values: np.ndarray[Any, np.dtype[np.unsignedinteger]]
    if isinstance(data, bytes):
        if len(data) in (count, count + count % 2):  # one byte an entry
            return np.frombuffer(data[:count], np.uint8)
        order = "<" if item.original_encoding[1] is not False else ">"
        values = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype(np.uint16)
    elif isinstance(data, MultiValue | list):
        values = (np.array(list(data), dtype=np.int64) & 0xFFFF).astype(np.uint16)
        if len(values) == (count + 1) // 2 and len(values) < count:  # two 8-bit entries packed in each word
            values = values.astype("<u2").view(np.uint8)[:count]
    else:
        return None
    return values[:count] if len(values) >= count else None


def facts(header: Dataset) -> Facts:
    """What the file says of itself."""
    spacing = numbers(header, "PixelSpacing") or numbers(header, "ImagerPixelSpacing")
    usable = len(spacing) == 2 and all(math.isfinite(s) and s > 0 for s in spacing)
    return Facts(
        patient_id=text(header, "PatientID"),
        study_uid=text(header, "StudyInstanceUID"),
        series_uid=text(header, "SeriesInstanceUID"),
        sop_instance_uid=text(header, "SOPInstanceUID"),
        accession_number=text(header, "AccessionNumber"),
        modality=text(header, "Modality"),
        body_part=text(header, "BodyPartExamined"),
        laterality=text(header, "ImageLaterality", "Laterality"),
        view_position=text(header, "ViewPosition"),
        study_date=_date(text(header, "StudyDate")),
        rows=integer(header, "Rows"),
        columns=integer(header, "Columns"),
        spacing=(spacing[0], spacing[1]) if usable else None,
        manufacturer=text(header, "Manufacturer"),
    )


def _get(header: Dataset, keyword: str) -> Any:
    try:
        return header.get(keyword)
    except Exception:  # noqa: BLE001  pydicom raises many kinds on broken values; to us the value is just not there
        return None


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _date(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return datetime.date.fromisoformat(value.replace(".", "")).isoformat()
    except ValueError:
        return None
