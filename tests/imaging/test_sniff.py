import io

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian

from fracture_watch.imaging.sniff import HEAD, sniff
from fracture_watch.records import Format
from tests.dicoms import bare, dicom

PIXELS = np.zeros((4, 4), np.uint16)


def head(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, kind)
    return buffer.getvalue()[:HEAD]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_pictures_are_known_by_their_first_bytes(kind):
    assert sniff(head(kind)) is Format(kind.lower())


def test_big_endian_tiff_is_tiff():
    assert sniff(b"MM\x00*" + bytes(20)) is Format.TIFF


def test_dicom_is_known_by_its_preamble():
    assert sniff(dicom(PIXELS)[:HEAD]) is Format.DICOM


def test_a_preamble_that_looks_like_tiff_is_still_dicom():
    assert sniff(b"II*\x00" + dicom(PIXELS)[4:HEAD]) is Format.DICOM


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_without_preamble_is_dicom(implicit):
    assert sniff(bare(dicom(PIXELS), implicit=implicit)[:HEAD]) is Format.DICOM


def test_file_meta_without_preamble_is_dicom():
    assert sniff(dicom(PIXELS, syntax=ImplicitVRLittleEndian)[132:][:HEAD]) is Format.DICOM


def test_riff_that_is_not_webp_is_unknown():
    assert sniff(b"RIFF\x24\x00\x00\x00WAVEfmt ") is Format.UNKNOWN


def test_webp_without_riff_is_unknown():
    assert sniff(b"JUNK\x24\x00\x00\x00WEBPVP8 ") is Format.UNKNOWN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG",
        b"GIF89a" + bytes(20),
        b"%PDF-1.7\n%abcdefghijk",
        b"PatientID,Result\n1,fractured\n",
        b"BMI of the patients: 21, 22, 23\n",
    ],
    ids=["empty", "too short", "GIF", "PDF", "CSV", "a text with BM"],
)
def test_anything_else_is_unknown(content):
    assert sniff(content) is Format.UNKNOWN


def test_dicm_in_another_place_is_unknown():
    assert sniff(bytes(100) + b"DICM" + bytes(100)) is Format.UNKNOWN
