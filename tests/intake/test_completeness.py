import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from fracture_watch.imaging.sniff import HEAD, sniff
from fracture_watch.intake.completeness import Completeness, completeness, opened
from fracture_watch.intake.tiff import tiff
from fracture_watch.records import Format
from tests.dicoms import bare, dicom, written
from tests.imaging.hostile import deflated_to

COMPLETE, INCOMPLETE, UNKNOWN = Completeness.COMPLETE, Completeness.INCOMPLETE, Completeness.UNKNOWN
PIXELS = np.random.default_rng(3).integers(0, 4096, (5, 7)).astype(np.uint16)
NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
ALL = [*NATIVE, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLosslessSV1]


@pytest.fixture
def check(tmp_path):
    """Whether the bytes are complete, as the watcher asks: by their own format."""

    def of(content: bytes, found: Format | None = None) -> Completeness:
        path = tmp_path / "file"
        path.write_bytes(content)
        return completeness(path, found or sniff(content[:HEAD]))

    return of


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(4).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def icon(encapsulated: bool) -> Dataset:
    item = Dataset()
    item.Rows = item.Columns = 2
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 0
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit = 7
    item.PixelData = encapsulate([b"\xff\xd8\xff\xd9"]) if encapsulated else bytes(4)
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = encapsulated
    return item


def with_nested_sequences(syntax: str) -> bytes:
    """Sequences and items of undefined length in one another, and an icon with pixel data of its own."""
    inner, middle = Dataset(), Dataset()
    inner.CodeValue = "T-1"
    middle.ConceptCodeSequence = [inner, Dataset()]
    outer = {"RequestAttributesSequence": [middle], "IconImageSequence": [icon(syntax not in NATIVE)]}
    return dicom(PIXELS, syntax=syntax, BitsStored=12, HighBit=11, **outer)


def undefined_lengths(content: bytes, syntax: str) -> bytes:
    from pydicom import dcmread

    header = dcmread(io.BytesIO(content))

    def open_up(dataset: Dataset) -> None:
        for element in dataset:
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
                    open_up(item)

    open_up(header)
    return written(header, syntax)


def without_padding(content: bytes) -> bytes:
    """A deflated file less the byte that makes its length even."""
    start = 144 + int.from_bytes(content[140:144], "little")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(content[start:])
    return content[: len(content) - len(inflater.unused_data)]


@pytest.fixture
def wrongly_complete(tmp_path):
    """The places where a file may be cut off without being found out."""

    def of(content: bytes) -> list[int]:
        path = tmp_path / "cut"
        path.write_bytes(content)
        found = []
        for end in reversed(range(len(content))):
            os.truncate(path, end)
            if completeness(path, sniff(content[: min(end, HEAD)])) is COMPLETE:
                found.append(end)
        return found

    return of


@pytest.mark.parametrize("syntax", ALL, ids=lambda syntax: syntax.keyword)
def test_dicom_is_complete_at_its_end_and_nowhere_before(check, wrongly_complete, syntax):
    content = dicom(PIXELS, syntax=syntax, BitsStored=12, HighBit=11)
    content = without_padding(content) if syntax == uid.DeflatedExplicitVRLittleEndian else content
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("opened", [False, True], ids=["defined lengths", "undefined lengths"])
def test_nested_sequences_and_icons_are_walked_through(check, wrongly_complete, syntax, opened):
    content = with_nested_sequences(syntax)
    content = undefined_lengths(content, syntax) if opened else content
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_without_preamble_is_complete_at_its_end(check, wrongly_complete, implicit):
    content = bare(dicom(PIXELS), implicit=implicit)
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


def test_every_cut_of_a_sniffed_dicom_file_is_incomplete(check):
    content = dicom(PIXELS)
    assert {check(content[:end]) for end in range(132, len(content))} == {INCOMPLETE}


def test_undefined_length_un_is_walked_as_implicit_vr(check, wrongly_complete):
    start, rest = dicom(PIXELS, PatientComments="here").split(b"\x10\x00\x00\x40LT")
    inside = b"\x08\x00\x00\x01\x04\x00\x00\x00ABCD"
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inside + b"\xfe\xff\x0d\xe0" + bytes(4)
    unknown = b"\x09\x00\x10\x10UN\x00\x00\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0" + bytes(4)
    content = start + unknown + b"\x10\x00\x00\x40LT" + rest
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_bytes_after_the_pixel_data_do_not_matter(check, syntax):
    assert check(dicom(PIXELS, syntax=syntax) + b"\xfc\xff\xfc\xff trailing") is COMPLETE


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_a_report_without_pixels_is_complete_at_its_end(check, syntax):
    content = dicom(None, syntax=syntax, SOPClassUID=uid.BasicTextSRStorage, Modality="SR", PatientComments="long")
    assert check(content) is COMPLETE
    assert check(content[:-1]) is INCOMPLETE


def test_a_directory_is_complete_by_its_file_meta(check):
    index = Dataset()
    index.FileSetID = "CD1"
    index.file_meta = FileMetaDataset()
    index.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    index.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    buffer = io.BytesIO()
    index.save_as(buffer, enforce_file_format=True)
    assert check(buffer.getvalue()) is COMPLETE


def test_sequences_20000_deep_are_checked_quickly(check):
    level = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    start = dicom(None)
    begun = time.monotonic()
    assert check(start + level * 20_000) is INCOMPLETE
    assert time.monotonic() - begun < 5


def test_endless_tiny_elements_are_given_up_on(check):
    begun = time.monotonic()
    assert check(dicom(None) + b"\x09\x00\x00\x10LO\x00\x00" * 250_000) is UNKNOWN
    assert time.monotonic() - begun < 10


def test_endless_fragments_are_given_up_on(check):
    head = dicom(np.zeros((2, 2), np.uint8), syntax=uid.JPEGBaseline8Bit)
    head = head[: head.rindex(b"\xfe\xff\xdd\xe0")]
    assert check(head + b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 210_000) is UNKNOWN


def test_a_deflate_bomb_is_given_up_on(check):
    whole = dicom(PIXELS, syntax=uid.DeflatedExplicitVRLittleEndian)
    start = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    blocks = b"".join(packer.compress(bytes(1 << 24)) for _ in range(66))
    assert check(start + blocks) is UNKNOWN


def test_a_deflated_file_is_complete_however_large_what_it_holds_is(check):
    for more in range(1, 259, 8):
        content = deflated_to((1 << 20) + more)
        assert check(content) is COMPLETE
        assert check(content[:-9]) is INCOMPLETE


def test_a_deflated_file_with_damaged_data_is_left_to_the_decoder(check):
    content = bytearray(dicom(PIXELS, syntax=uid.DeflatedExplicitVRLittleEndian))
    start = 144 + int.from_bytes(content[140:144], "little")
    content[start] = 0x07  # a block type that does not exist
    assert check(bytes(content)) is UNKNOWN


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_pictures_are_complete_at_their_end_and_nowhere_before(check, wrongly_complete, kind):
    content = saved(kind)
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_jpeg_is_complete_at_its_end_and_nowhere_before(check, wrongly_complete, options):
    content = saved("JPEG", **options)
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


def test_the_end_of_a_thumbnail_is_not_the_end_of_its_jpeg(check, wrongly_complete):
    thumbnail = saved("JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = saved("JPEG", progressive=True)
    content = whole[:2] + segment + whole[2:]
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_bytes_after_a_picture_do_not_matter(check, kind):
    assert check(saved(kind) + bytes(100)) is COMPLETE


def test_png_chunks_without_end_are_given_up_on(check):
    assert check(saved("PNG")[:8] + b"\0\0\0\0tEXt\0\0\0\0" * 210_000) is UNKNOWN


def test_a_bmp_that_does_not_state_its_size_says_nothing(check):
    content = saved("BMP")
    assert check(content[:2] + bytes(4) + content[6:]) is UNKNOWN


def test_what_is_no_image_says_nothing(check):
    assert check(b"patient,result\n") is UNKNOWN


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        completeness(tmp_path / "gone", Format.PNG)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with opened(tmp_path / "pipe") as file:
        assert file.read() == b""


@pytest.mark.parametrize(
    ("pages", "values"), [(1, 4_000_000), (30, 99_000)], ids=["many pieces", "the same pieces on many pages"]
)
def test_a_tiff_that_asks_for_too_many_numbers_is_not_looked_through(pages, values):
    place = 8 + 30 * pages  # of the numbers, behind the directories
    content = struct.pack("<2sHL", b"II", 42, 8)
    for page in range(pages):
        entries = [struct.pack("<HHLL", tag, 4, values, place) for tag in (273, 279)]
        following = 8 + 30 * (page + 1) if page + 1 < pages else 0
        content += struct.pack("<H", 2) + b"".join(entries) + struct.pack("<L", following)
    content += struct.pack("<L", 8) * values
    assert tiff(io.BytesIO(content), len(content)) is None


def stated(content: bytes, syntax: uid.UID) -> bytes:
    """The same data set under File Meta that states another transfer syntax."""
    start = 144 + int.from_bytes(content[140:144], "little")
    meta = dicom(PIXELS, syntax=syntax)
    return meta[: 144 + int.from_bytes(meta[140:144], "little")] + content[start:]


def test_a_data_set_of_another_vr_kind_than_stated_is_complete_at_its_end(check, wrongly_complete):
    for real, said in ((NATIVE[0], NATIVE[1]), (NATIVE[1], NATIVE[0])):
        content = stated(dicom(PIXELS, syntax=real), said)
        assert check(content) is COMPLETE
        assert wrongly_complete(content) == []


def test_a_big_endian_data_set_without_preamble_is_complete_at_its_end(check, wrongly_complete):
    whole = dicom(PIXELS, syntax=uid.ExplicitVRBigEndian)
    content = whole[144 + int.from_bytes(whole[140:144], "little") :]
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []


def test_file_meta_in_implicit_vr_is_walked_through(check, wrongly_complete):
    whole = dicom(PIXELS)
    syntax = uid.ExplicitVRLittleEndian.encode() + b"\0"
    element = struct.pack("<HHL", 2, 16, len(syntax)) + syntax
    group = struct.pack("<HHLL", 2, 0, 4, len(element))
    content = whole[:132] + group + element + whole[144 + int.from_bytes(whole[140:144], "little") :]
    assert check(content) is COMPLETE
    assert wrongly_complete(content) == []
