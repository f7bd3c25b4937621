"""Tolerant reading of DICOM elements: a broken or absent value is ``None``, never an exception."""

import datetime
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from fracture_watch.imaging.grayscale import Lut, Window
from fracture_watch.records import Facts

# Functional groups that decide what is shown of a frame.
_MACROS = (
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "FrameDisplayShutterSequence",
)
_LONGEST_FACT = 256  # characters
_MOST_OF_A_US = 65_535
_TEXT_VRS = ("AE", "AS", "CS", "DA", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UN", "UT")


def text(header: Dataset, *keywords: str) -> str | None:
    """The first non-empty of the named elements, as text; several values are joined as in the file."""
    for keyword in keywords:
        value = _get(header, keyword)
        if value is None or isinstance(value, Sequence):  # a sequence says nothing, and may be broken inside
            continue
        joined = "\\".join(map(str, value)) if isinstance(value, MultiValue | list) else str(value)
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


def unsigned(header: Dataset, keyword: str) -> int | None:
    """The same of an element that is a US, whatever VR it was written with: 0 to 65,535."""
    value = integer(header, keyword)
    return value if value is not None and 0 <= value <= _MOST_OF_A_US else None


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
    found = descriptor(item, name, signed)
    if found is None:
        return None
    count, first, bits = found
    entries = words(item, f"{name}Data", 2)
    if len(entries) == (count + 1) // 2 < count:  # one byte an entry, two in each word
        entries, bits = words(item, f"{name}Data", 1), 8
    return Lut(first, entries[:count].astype(np.uint16), bits) if len(entries) >= count else None


def descriptor(item: Dataset, name: str, signed: bool) -> tuple[int, int, int] | None:
    """Number of entries, first value mapped, bits of an entry; ``None`` where they make no sense."""
    values = numbers(item, f"{name}Descriptor")
    if len(values) != 3 or not all(map(math.isfinite, values)):
        return None
    count, first, bits = int(values[0]) & 0xFFFF or 65536, int(values[1]), int(values[2])
    if not 8 <= bits <= 16:
        return None
    # PS3.3 C.11.2.1.1: the first value is signed as what is looked up is, whatever VR it was written with. Below zero
    # all the same it stands where the table reaches up to there.
    if signed and first > 32767:
        first -= 65536
    elif not signed and first + count <= 0:
        first += 65536
    return count, first, bits


def words(item: Dataset, keyword: str, size: int) -> NDArray[np.unsignedinteger]:
    """The values of an OW or US element in words of ``size`` bytes; empty where it is absent or broken."""
    data = _get(item, keyword)
    order = ">" if item.original_encoding[1] is False else "<"
    if isinstance(data, MultiValue | list | int):
        pairs = (np.atleast_1d(np.array(data, dtype=np.int64)) & 0xFFFF).astype(np.uint16)
    elif isinstance(data, bytes):
        if size == 1 and order == "<":
            return np.frombuffer(data, np.uint8)
        pairs = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype(np.uint16)
    else:
        pairs = np.empty(0, np.uint16)
    return pairs if size == 2 else pairs.astype("<u2").view(np.uint8)


def facts(header: Dataset) -> Facts:
    """What the file says of itself."""
    spacing = numbers(header, "PixelSpacing") or numbers(header, "ImagerPixelSpacing")
    usable = len(spacing) == 2 and all(math.isfinite(s) and s > 0 for s in spacing)
    return Facts(
        patient_id=_fact(header, "PatientID"),
        study_uid=_fact(header, "StudyInstanceUID"),
        series_uid=_fact(header, "SeriesInstanceUID"),
        sop_instance_uid=_fact(header, "SOPInstanceUID"),
        accession_number=_fact(header, "AccessionNumber"),
        modality=_fact(header, "Modality"),
        body_part=_fact(header, "BodyPartExamined") or _meaning(header, "AnatomicRegionSequence"),
        laterality=_fact(header, "ImageLaterality", "Laterality"),
        view_position=_fact(header, "ViewPosition") or _meaning(header, "ViewCodeSequence"),
        study_date=_date(_fact(header, "StudyDate")),
        rows=unsigned(header, "Rows"),
        columns=unsigned(header, "Columns"),
        spacing=(spacing[0], spacing[1]) if usable else None,
        manufacturer=_fact(header, "Manufacturer"),
    )


def _fact(header: Dataset, *keywords: str) -> str | None:
    """A text of bounded length: no value that DICOM allows here is longer than 64 characters."""
    value = text(header, *keywords)
    return None if value is None else value[:_LONGEST_FACT]


def of_frame(header: Dataset, frame: int) -> Dataset:
    """The header as it counts for one frame: enhanced objects keep values in functional groups (PS3.3 C.7.6.16)."""
    groups = items(header, "SharedFunctionalGroupsSequence")[:1]
    groups += items(header, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    macros = [item for group in groups for keyword in _MACROS for item in items(group, keyword)[:1]]
    if not macros:
        return header
    merged = Dataset()
    for part in (header, *macros):
        merged.update(part)
    return merged


def _get(header: Dataset, keyword: str) -> Any:
    try:
        return header.get(keyword)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  pydicom raises many kinds on broken values, at the first of several
        return _undecoded(header, keyword)


def _undecoded(header: Dataset, keyword: str) -> list[str] | None:
    """The values of a text element as they stand in the file; of any other, nothing can be said."""
    element = header.get_item(tag_for_keyword(keyword) or 0, keep_deferred=True)
    if not isinstance(element, RawDataElement) or element.VR not in (None, *_TEXT_VRS) or element.value is None:
        return None
    return [part.strip(" \0") for part in element.value.decode("latin-1").split("\\")]


def _meaning(header: Dataset, keyword: str) -> str | None:
    """What a code sequence says in words."""
    return next((_fact(item, "CodeMeaning") for item in items(header, keyword)), None)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _date(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return datetime.date.fromisoformat(value.replace(".", "")).isoformat()
    except ValueError:
        return None
