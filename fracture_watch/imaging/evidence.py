"""What a DICOM object that is derived from an image repeats of it: whose it is, and which image."""

import re

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, validate_value

from fracture_watch.errors import Corrupt
from fracture_watch.imaging.dataset import parse
from fracture_watch.imaging.header import integer, items, text, unsigned
from fracture_watch.imaging.limits import Limits

# PS3.3 C.7.1.1, C.7.2.1, C.7.2.2: the patient and the study are the image's own; type 2 ones may be empty.
_TYPE_2 = (
    "PatientName PatientID PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber "
    "ReferringPhysicianName"
).split()
_CALENDAR = {"DA": DA, "TM": TM}
_OPTIONAL = (
    "IssuerOfPatientID PatientAge StudyDescription Modality BodyPartExamined Laterality ImageLaterality ViewPosition "
    "Manufacturer ManufacturerModelName DeviceSerialNumber StationName InstitutionName"
).split()
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def evidence(content: bytes, limits: Limits) -> Dataset:
    """The elements of a DICOM file by which an object derived from it belongs to the same patient, study and image.

    Texts are decoded by the file's own character set and stand here as ISO_IR 192 (UTF-8). A value that its VR
    forbids is left out, so that what is derived is sound whatever its source was; only a PatientID stays as it is,
    since archives tell patients by it.

    Raises
    ------
    FractureWatchError
        If the file cannot be read, or has no UIDs that could be referred to.
    """
    header, found = parse(content, limits), Dataset()
    for keyword in _UIDS:
        value = text(header, keyword)
        if value is None or not UID(value).is_valid:
            raise Corrupt(
                f"it has no valid {keyword}, so no DICOM object can refer to it; send it with UIDs if its results are "
                "to go to a PACS"
            )
        setattr(found, keyword, value)
    found.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TYPE_2:
        setattr(found, keyword, _sound(header, keyword) or "")
    for keyword in _OPTIONAL:
        if value := _sound(header, keyword):
            setattr(found, keyword, value)
    if found.PatientSex not in ("M", "F", "O"):
        found.PatientSex = ""
    for keyword in ("InstanceNumber", "NumberOfFrames"):
        setattr(found, keyword, min(max(integer(header, keyword) or 1, 1), 2**31 - 1))
    found.Rows, found.Columns = unsigned(header, "Rows"), unsigned(header, "Columns")
    found.AnatomicRegionSequence = [code for item in items(header, "AnatomicRegionSequence") if (code := _code(item))]
    return found


def _sound(header: Dataset, keyword: str) -> str | None:
    """The value as text; ``None`` where it is absent, or none that this element may have."""
    value = text(header, keyword)
    if value is None or _CONTROL.search(value):
        return None
    if keyword == "PatientID":
        return value
    vr = dictionary_VR(keyword)
    try:
        validate_value(vr, value, RAISE)
        if vr in _CALENDAR:  # the check lets pass what no calendar has, and ranges, which are for questions
            _CALENDAR[vr](value)
    except (ValueError, TypeError):
        return None
    return value if "\\" not in value else None


def _code(item: Dataset) -> Dataset | None:
    """A code in its basic form (PS3.3 8.8), if it is one."""
    values = {keyword: _sound(item, keyword) for keyword in _CODE}
    if None in values.values():
        return None
    code = Dataset()
    for keyword, value in values.items():
        setattr(code, keyword, value)
    return code
