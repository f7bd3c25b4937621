"""Files whose room is set aside before their bytes come, with zeros, with holes, or through a memory map."""

import io
import mmap
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from fracture_watch.assembly import check_completeness
from fracture_watch.intake.completeness import Completeness
from fracture_watch.intake.tiff import tiff
from tests.conftest import png
from tests.dicoms import dicom
from tests.intake.test_readiness import watched
from tests.test_daemon import until

PIXELS = np.random.default_rng(5).integers(0, 4096, (900, 900)).astype(np.uint16)
GRAY = Image.fromarray((PIXELS >> 4).astype(np.uint8))


def saved(kind, **options):
    buffer = io.BytesIO()
    GRAY.save(buffer, kind, **options)
    return buffer.getvalue()


def fallocate(handle, size):
    os.posix_fallocate(handle, 0, size)


def libtiff():
    """libtiff's order: pixels first, then the directory that says where they are."""
    return saved("TIFF", compression="tiff_lzw")


WHOLE = {
    "native": lambda: dicom(PIXELS),
    "encapsulated": lambda: dicom(PIXELS, syntax=uid.JPEGLosslessSV1),
    "implicit": lambda: dicom(PIXELS, syntax=uid.ImplicitVRLittleEndian),
    "png": lambda: png(1, 2000, 2000),
    "jpeg": lambda: saved("JPEG", quality=100),
    "tiff": lambda: saved("TIFF"),
    "libtiff": libtiff,
}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox" / "a"


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if kind not in ("native", "implicit", "tiff")])
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3])
def test_a_tail_of_written_zeros_is_not_taken_for_the_end(path, kind, share):
    """Some senders fill the file with zeros first, and some file systems cannot tell that from data."""
    content = WHOLE[kind]()
    head = int(len(content) * share)
    path.write_bytes(content[:head] + bytes(len(content) - head))
    assert check_completeness(path) is Completeness.INCOMPLETE
    path.write_bytes(content)
    assert check_completeness(path) is Completeness.COMPLETE


@pytest.mark.parametrize(
    ("kind", "reserve"),
    [("native", os.ftruncate), ("native", fallocate), ("libtiff", os.ftruncate), ("png", fallocate)],
    ids=["native-ftruncate", "native-fallocate", "libtiff-ftruncate", "png-fallocate"],
)
def test_room_that_is_set_aside_is_waited_for(path, kind, reserve):
    content = WHOLE[kind]()
    with watched(path.parent, settle=0.2) as watch, path.open("wb", buffering=0) as file:
        reserve(file.fileno(), len(content))
        assert watch.during(0.3) == []
        file.write(content[: len(content) // 3])
        assert watch.during(0.4) == []
        file.write(content[len(content) // 3 :])
        file.close()
        watch.until_ready(path)
    assert path.read_bytes() == content


def test_what_is_written_through_a_memory_map_is_seen_when_it_is_closed(path):
    """Its size never changes, and its time not before the kernel writes it out."""
    content = WHOLE["encapsulated"]()
    path.write_bytes(bytes(len(content)))
    facts = path.stat()
    with watched(path.parent, settle=0.2) as watch:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as room:
            assert watch.during(0.5) == []
            room[:] = content
            room.flush()
            os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
        watch.until_ready(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/shm is Linux's")
@pytest.mark.parametrize("black", [False, True], ids=["noise", "black"])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_ordinary_files_have_no_holes(tmp_path, place, black):
    content = dicom(PIXELS * (not black))
    with TemporaryDirectory(dir=tmp_path if place == "disk" else Path("/dev/shm")) as folder:
        for size in (len(content), len(content) + 1, len(content) + 4095):
            whole = Path(folder) / f"{size}"
            whole.write_bytes(content + bytes(size - len(content)))
            assert check_completeness(whole) is Completeness.COMPLETE
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            assert check_completeness(whole) is Completeness.COMPLETE


@pytest.mark.parametrize("kind", ["TIFF", "libtiff", "big-endian", "tiles and pages"])
def test_tiff_is_complete_at_its_end_and_nowhere_before(kind):
    small = Image.fromarray(np.arange(30 * 20, dtype=np.uint16).reshape(30, 20))
    buffer = io.BytesIO()
    if kind == "tiles and pages":
        small.save(buffer, "TIFF", save_all=True, append_images=[small, small])
    elif kind == "big-endian":
        Image.fromarray(np.arange(30 * 20, dtype=">u2").reshape(30, 20)).save(buffer, "TIFF")
    else:
        small.save(buffer, "TIFF", compression="tiff_lzw" if kind == "libtiff" else None)
    content = buffer.getvalue()
    assert tiff(io.BytesIO(content), len(content)) is True
    early = [end for end in range(len(content)) if tiff(io.BytesIO(content[:end]), end) is not False]
    with Image.open(io.BytesIO(content)) as image:
        pages = getattr(image, "n_frames", 1)
    assert pages == (3 if kind == "tiles and pages" else 1)
    for end in early:  # only what follows the last page's last byte may be missing
        with Image.open(io.BytesIO(content[:end])) as image:
            for page in range(pages):
                image.seek(page)
                image.load()


def test_a_tiff_writer_that_pauses_is_waited_for(path):
    content = WHOLE["libtiff"]()
    with watched(path.parent, settle=0.1) as watch, path.open("wb", buffering=0) as file:
        for start in range(0, len(content), len(content) // 3 + 1):
            file.write(content[start : start + len(content) // 3 + 1])
            if start + len(content) // 3 + 1 < len(content):
                assert watch.during(0.3) == []
        file.close()
        watch.until_ready(path)
        assert until(lambda: len(watch.ready) == 1)


@pytest.mark.parametrize("content", [b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff" + bytes(100_000)])
def test_a_tiff_that_points_into_nowhere_is_waited_for_and_costs_nothing(path, content):
    path.write_bytes(content)
    assert check_completeness(path) is not Completeness.COMPLETE


def test_a_tiff_whose_pages_go_in_a_circle_is_given_up_on(path):
    one = b"\x01\x00" + b"\x00\x01\x03\x00\x01\x00\x00\x00\x05\x00\x00\x00" + b"\x08\x00\x00\x00"
    path.write_bytes(b"II*\0\x08\0\0\0" + one)
    assert check_completeness(path) is Completeness.UNKNOWN
