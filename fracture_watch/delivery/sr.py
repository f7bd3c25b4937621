"""A result as a DICOM Comprehensive 3D SR: a measurement report (PS3.16 TID 1500) that nobody has verified."""

import io
from typing import TYPE_CHECKING

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from fracture_watch.delivery.finding import MANUFACTURER, Finding, finish, series
from fracture_watch.records import DISCLAIMER, OWN_MODEL_NAME, Kind, Label

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTAINS = RelationshipTypeValues.CONTAINS
SCHEME = "99FWATCH"  # ours, for what no standard has a code
FRACTURE = CodedConcept("125605004", "SCT", "Fracture of bone")
PROBABILITY = CodedConcept("probability", SCHEME, "Calibrated probability of fracture")
THRESHOLD = CodedConcept("threshold", SCHEME, "Threshold of the probability")
_SOURCE = CodedConcept("260753009", "SCT", "Source")
_UNIT = CodedConcept("{0:1}", "UCUM", "range: 0:1")
_LONGEST = 64  # characters of a text that a person is to read on one line


def report(finding: Finding, source: Dataset) -> bytes:
    """Build the report of one image.

    Parameters
    ----------
    finding : Finding
    source : Dataset
        As ``imaging.evidence`` gives it.

    Returns
    -------
    bytes
        A DICOM file, the same for the same finding.
    """
    made = Comprehensive3DSR(
        evidence=[source],
        content=_content(finding, source),
        is_complete=True,
        is_final=False,  # a person has to look at it before it is the last word
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=[_our_scheme()],
        **series(finding, Kind.SR, source),
    )
    finish(made, finding)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _content(finding: Finding, source: Dataset) -> Dataset:
    model = finding.prediction.model
    observer = DeviceObserverIdentifyingAttributes(
        uid=finding.device_uid(),
        name=f"fracture_watch {finding.software}"[:_LONGEST],
        manufacturer_name=MANUFACTURER,
        model_name=OWN_MODEL_NAME,
        serial_number=model.id,
    )
    [root] = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(codes.DCM.Device, observer),
        ),
        procedure_reported=codes.SCT.PlainRadiography,
        imaging_measurements=[_group(finding, source)],
    )
    measurements = root.ContentSequence.pop()
    root.ContentSequence += [_library(source), _comment(), measurements]
    _separate(root)
    return root


def _separate(container: Dataset) -> None:
    """PS3.3 C.18.8: a list of items, each with its name. highdicom says continuous text, whose items are shown bare."""
    if "ContinuityOfContent" in container:
        container.ContinuityOfContent = "SEPARATE"
    for item in container.get("ContentSequence", ()):
        _separate(item)


def _library(source: Dataset) -> ContainerContentItem:
    """TID 1600: the images that were looked at. highdicom's own wants descriptors that not every image has."""
    library = ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=CONTAINS)
    group = ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
    image = ImageContentItem(_SOURCE, source.SOPClassUID, source.SOPInstanceUID, relationship_type=CONTAINS)
    group.ContentSequence = ContentSequence([image])
    library.ContentSequence = ContentSequence([group])
    return library


def _comment() -> TextContentItem:
    """TID 1500 is extensible; this stands before the numbers."""
    return TextContentItem(codes.DCM.Comment, DISCLAIMER, relationship_type=CONTAINS)


def _group(finding: Finding, source: Dataset) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501: present or absent, with the numbers that say so, in which image, by which algorithm."""
    prediction = finding.prediction
    fractured = prediction.label is Label.FRACTURED
    frames = [prediction.frame + 1] if source.NumberOfFrames > 1 else None
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=finding.tracking_uid(), identifier=f"fracture, image {source.InstanceNumber}"
        ),
        finding_type=FRACTURE,
        finding_sites=_sites(source),
        algorithm_id=_algorithm(finding),
        qualitative_evaluations=[QualitativeEvaluation(FRACTURE, codes.SCT.Present if fractured else codes.SCT.Absent)],
        measurements=[
            Measurement(PROBABILITY, prediction.probability, _UNIT),
            Measurement(THRESHOLD, prediction.threshold, _UNIT),
        ],
        source_images=[SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID, frames)],
    )


def _algorithm(finding: Finding) -> AlgorithmIdentification:
    model = finding.prediction.model
    return AlgorithmIdentification(model.name, model.version, parameters=[f"model_id={model.id}"])


def _sites(source: Dataset) -> "Sequence[FindingSite] | None":
    """Where the image was taken, if its own header says it in a code."""
    coded = [CodedConcept(c.CodeValue, c.CodingSchemeDesignator, c.CodeMeaning) for c in source.AnatomicRegionSequence]
    return [FindingSite(site) for site in coded] or None


def _our_scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(
        SCHEME, name="fracture_watch's own codes (docs/dicom-results.md)", responsible_organization=MANUFACTURER
    )
