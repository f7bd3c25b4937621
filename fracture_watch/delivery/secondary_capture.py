"""A result as a DICOM Secondary Capture: the radiograph under its heat map, with a banner that says what it is."""

import io
from collections.abc import Sequence

import numpy as np
from highdicom.sc import SCImage
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import JPEGBaseline8Bit

from fracture_watch.delivery.finding import Finding, finish, series
from fracture_watch.records import DISCLAIMER, Kind, Pixels

LONGEST_SIDE = 2048  # pixels: what a screen shows
_LEAST_SIDE = 512  # narrower pictures get a wider ground, so that the banner can be read
_INK, _GROUND = (255, 255, 255), (0, 0, 0)


def capture(finding: Finding, source: Dataset, picture: Pixels, *, painted: bool) -> bytes:
    """Build the picture of one image.

    Parameters
    ----------
    finding : Finding
    source : Dataset
        As ``imaging.evidence`` gives it.
    picture : ndarray of uint8, shape (rows, columns, 3)
        RGB, the longest side at most ``LONGEST_SIDE``.
    painted : bool
        Whether the heat map lies over it.

    Returns
    -------
    bytes
        A DICOM file, the same for the same finding.
    """
    pixels = bannered(picture, banner(finding, painted=painted))
    made = SCImage(
        pixel_array=pixels,
        photometric_interpretation="YBR_FULL_422",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # wanted by the constructor, and replaced below
        study_instance_uid=source.StudyInstanceUID,
        patient_id=source.PatientID,
        patient_name=source.PatientName,
        patient_birth_date=source.PatientBirthDate or None,
        patient_sex=source.PatientSex,
        accession_number=source.AccessionNumber,
        study_id=source.StudyID,
        study_date=source.StudyDate or None,
        study_time=source.StudyTime or None,
        referring_physician_name=source.ReferringPhysicianName,
        # The one compression that every archive and viewer reads; nobody is to diagnose from this picture.
        transfer_syntax_uid=JPEGBaseline8Bit,
        **series(finding, Kind.SC, source),
    )
    made.copy_patient_and_study_information(source)
    made["PatientOrientation"].value = made.Laterality = ""  # not known; and one series may show both sides
    finish(made, finding)
    _describe(made, finding, source, pixels, painted=painted)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def banner(finding: Finding, *, painted: bool) -> tuple[str, ...]:
    """What stands burnt into the picture, line by line."""
    prediction = finding.prediction
    model = prediction.model
    return (
        f"{prediction.label.upper()}   probability {prediction.probability:.3f} (threshold {prediction.threshold:.3f})",
        f"{model.name} {model.version} ({model.id}){'' if painted else '; no heat map'}",
        DISCLAIMER,
    )


def bannered(picture: Pixels, lines: Sequence[str]) -> Pixels:
    """The picture below its banner: nothing of it is covered. A narrow one gets black beside it."""
    rows, columns = picture.shape[:2]
    width = max(columns, _LEAST_SIDE)
    font = _fitting(lines, width)
    height = round(font.size * 1.35)
    top = height * len(lines) + height // 2
    ground = Image.new("RGB", (width, top + rows), _GROUND)
    draw = ImageDraw.Draw(ground)
    for number, line in enumerate(lines):
        draw.text((font.size // 2, height // 4 + number * height), line, _INK, font)
    ground.paste(Image.fromarray(picture), ((width - columns) // 2, top))
    return np.asarray(ground)


def _fitting(lines: Sequence[str], width: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, as large as the longest line allows; a model's name may be long."""
    size = width // 32
    while True:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101  Pillow's wheels have FreeType
        if size <= 8 or max(map(font.getlength, lines)) <= width - size:
            return font
        size -= 1


def _describe(made: Dataset, finding: Finding, source: Dataset, pixels: Pixels, *, painted: bool) -> None:
    """PS3.3 C.7.6.1, C.8.6: where the pixels come from, and that they are no radiograph any more."""
    model, shown = finding.prediction.model, "under its heat map" if painted else "without a heat map"
    made.ConversionType = "WSD"
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    made.BurnedInAnnotation = "YES"
    made.RecognizableVisualFeatures = "NO"
    made.LossyImageCompression = "01"
    made.LossyImageCompressionMethod = "ISO_10918_1"
    frame = made.PixelData
    made.LossyImageCompressionRatio = f"{pixels.nbytes / len(frame):.2f}"
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = made.ContentDate, made.ContentTime
    made.ImageComments = DISCLAIMER
    made.DerivationDescription = (
        f"Frame {finding.prediction.frame + 1} as displayed, {shown}, below a banner with the answer of {model.name} "
        f"{model.version} ({model.id}). {DISCLAIMER}"
    )
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    if source.NumberOfFrames > 1:
        image.ReferencedFrameNumber = finding.prediction.frame + 1
    image.PurposeOfReferenceCodeSequence = [_code(codes.DCM.SourceImageForImageProcessingOperation)]
    made.SourceImageSequence = [image]


def _code(code: tuple[str, ...]) -> Dataset:
    """A code in its basic form (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item
