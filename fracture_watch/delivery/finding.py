"""A result as DICOM objects say it: what was found, by what, and the UIDs that follow from both."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DT

from fracture_watch.records import DISCLAIMER, OWN_MODEL_NAME, Kind, Prediction

if TYPE_CHECKING:
    from highdicom import ContributingEquipment

MANUFACTURER = "fracture_watch"
_UIDS = uuid.UUID("0f6d3ad5-95cd-5a4c-8d8e-6c3f0c0b7a11")  # the namespace of all UIDs that are made here
_MEANING = {Kind.SR: "fracture_watch report (research use)", Kind.SC: "fracture_watch heat map (research use)"}
_SERIES_NUMBER = {Kind.SR: 9101, Kind.SC: 9102}  # behind those of any modality


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of one image.

    Parameters
    ----------
    sha256 : str
        Digest of the image's file.
    prediction : Prediction
    at : str
        When it was recorded, as the database has it (UTC, ISO 8601).
    software : str
        Version of this program.
    """

    sha256: str
    prediction: Prediction
    at: str
    software: str

    @property
    def time(self) -> datetime:
        """``at`` in UTC, without its offset: what DA and TM hold beside ``TimezoneOffsetFromUTC``."""
        return datetime.fromisoformat(self.at).astimezone(UTC).replace(tzinfo=None)

    def uid(self, kind: Kind) -> UID:
        """The SOP Instance UID: the same result is the same object, whenever and wherever it is built."""
        return object_uid(kind, self.sha256, self.prediction.model.id)

    def series_uid(self, kind: Kind, study_uid: str) -> UID:
        """One series of each kind for every study and model."""
        return _uid(kind, study_uid, self.prediction.model.id)

    def tracking_uid(self) -> UID:
        """Names this finding in this image, whichever model looks at it."""
        return _uid("finding", self.sha256)

    def device_uid(self) -> UID:
        """Names what spoke: the weights and every setting that decides a result (IHE AI Results wants one)."""
        return _uid("device", self.prediction.model.id)


def object_uid(kind: Kind, sha256: str, model_id: str) -> UID:
    """The SOP Instance UID of what ``model_id`` says of a content."""
    return _uid(kind, sha256, model_id)


def series(finding: Finding, kind: Kind, source: Dataset) -> dict[str, Any]:
    """What every object says of its series, its instance and its maker, as highdicom's constructors take it."""
    model, time = finding.prediction.model, finding.time
    return {
        "series_instance_uid": finding.series_uid(kind, source.StudyInstanceUID),
        "series_number": _SERIES_NUMBER[kind],
        "series_description": _MEANING[kind],
        "sop_instance_uid": finding.uid(kind),
        "instance_number": source.InstanceNumber,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": OWN_MODEL_NAME,  # by which what comes back is known as ours
        "software_versions": _versions(finding),
        "device_serial_number": model.id,
        "content_date": time.date(),
        "content_time": time.time(),
        "contributing_equipment": [_equipment(finding)],
        "specific_character_set": "ISO_IR 192",
    }


def finish(made: Dataset, finding: Finding) -> None:
    """What highdicom leaves out, or takes from the clock: the same result again is the same bytes."""
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    made.TimezoneOffsetFromUTC = "+0000"
    made.DeviceUID = finding.device_uid()
    made.ContributingEquipmentSequence[-1].ContributionDateTime = DT(finding.time)  # highdicom's own entry


def _equipment(finding: Finding) -> "ContributingEquipment":
    from highdicom import ContributingEquipment
    from pydicom.sr.codedict import codes

    model = finding.prediction.model
    item = ContributingEquipment(
        MANUFACTURER,
        codes.DCM.ProcessingEquipment,
        manufacturer_model_name=OWN_MODEL_NAME,
        software_versions=_versions(finding),
        device_serial_number=model.id,
        contribution_datetime=finding.time,
        contribution_description=f"Classified by {model.name} {model.version} ({model.id}). {DISCLAIMER}",
    )
    item.DeviceUID = finding.device_uid()
    return item


def _versions(finding: Finding) -> list[str]:
    model = finding.prediction.model
    return [finding.software[:64], f"{model.name} {model.version}"[:64]]


def _uid(*parts: str) -> UID:
    """PS3.5 B.2: a UID made of a UUID."""
    return UID(f"2.25.{uuid.uuid5(_UIDS, ' '.join(parts)).int}")
