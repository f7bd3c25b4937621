"""What hostile files are built from: a case, a plan for workers, raw DICOM elements and seeded mutations."""

import os
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from fracture_watch import errors
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.workers import Plan
from fracture_watch.records import Label, ModelFacts, Prediction
from tests.dicoms import dicom

SHARED = Path(__file__).parents[2].parent / "shared" / "data"  # not from conftest: a worker must not import torch
CLASSIFIED = "classified"
CODES = frozenset(
    kind.code for base in (errors.FileRejected, errors.FileFailed) for kind in base.__subclasses__()
)  # every code of the contract
ALLOWED = (CODES | {CLASSIFIED}) - {"internal"}

PIXELS = (np.add.outer(np.arange(48) ** 2, np.arange(40) * 31) % 4096).astype(np.uint16)
SMALL = (PIXELS >> 4).astype(np.uint8)
COLOR = np.stack([SMALL, SMALL.T.reshape(SMALL.shape), 255 - SMALL], axis=-1)
LIMITS = Limits(max_pixels=4_000_000, max_frames=4, max_bytes=64 << 20)
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Case:
    """A hostile file and what may come of it: ``classified`` or codes of ``errors.py``."""

    name: str
    make: Callable[[], bytes]
    expected: frozenset[str]


def case(name: str, make: Callable[[], bytes], *expected: str) -> Case:
    assert set(expected) <= ALLOWED, expected
    return Case(name, make, frozenset(expected))


# ---------------------------------------------------------------- workers

DIES, ABORTS, HANGS = 201, 202, 203
MARKED = (13, 17)  # the shape of pictures whose first pixel says what becomes of the worker


def misbehave(pixels: np.ndarray) -> np.ndarray:
    """The model's preprocessing; on a marked picture, what a broken codec does to its process."""
    wish = int(pixels.flat[0]) if pixels.shape[:2] == MARKED else 0
    if wish == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    if wish == ABORTS:
        os.abort()
    if wish == HANGS:
        time.sleep(600)
    return pixels[:8, :8].mean(dtype=np.float64, keepdims=True).reshape(1, 1).astype(np.uint8)


def small(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return misbehave(pixels), pixels[:1, :1]


PLAN = Plan(small, LIMITS, Scope(modalities=frozenset({"DX"})))
ANY_MODALITY = Plan(small, LIMITS, Scope())


def marked(wish: int) -> bytes:
    return dicom(np.full(MARKED, wish, np.uint8), WindowCenter=128, WindowWidth=256)


def sound(seed: int = 1) -> bytes:
    return dicom(PIXELS, seed=seed, BitsStored=12)


class OneAnswer:
    """A classifier that says the same of every picture."""

    def classify(self, prepared: Iterable[object]) -> list[Prediction]:
        answer = Prediction(Label.NOT_FRACTURED, 0.25, 0.5, ModelFacts("one answer", "1", "1"))
        return [answer for _ in prepared]


# ---------------------------------------------------------------- DICOM, byte by byte

_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def tag(group: int, number: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", group, number)


def element(
    group: int, number: int, vr: str | bytes, value: bytes, length: int | None = None, order: str = "<"
) -> bytes:
    """One explicit element; ``length`` is what it claims."""
    vr = vr.encode() if isinstance(vr, str) else vr
    claimed = len(value) if length is None else length
    if vr in _LONG:
        return tag(group, number, order) + vr + bytes(2) + struct.pack(f"{order}I", claimed) + value
    return tag(group, number, order) + vr + struct.pack(f"{order}H", claimed & 0xFFFF) + value


def implicit_element(group: int, number: int, value: bytes, length: int | None = None) -> bytes:
    return tag(group, number) + struct.pack("<I", len(value) if length is None else length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return implicit_element(0xFFFE, 0xE000, value, length)


ITEM_END, SEQUENCE_END = implicit_element(0xFFFE, 0xE00D, b""), implicit_element(0xFFFE, 0xE0DD, b"")


def split(content: bytes) -> tuple[bytes, bytes]:
    """A file -> preamble with File Meta, data set."""
    end = 144 + struct.unpack_from("<I", content, 140)[0]
    return content[:end], content[end:]


@cache
def zipped_zeros(size: int) -> bytes:
    """What a bomb is filled with: zlib's thousandth of so many zeros."""
    packer = zlib.compressobj(1)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]) + packer.flush()


def file_meta(syntax: str) -> bytes:
    plain = DeflatedExplicitVRLittleEndian if syntax == DeflatedExplicitVRLittleEndian else ExplicitVRLittleEndian
    meta = split(dicom(None, syntax=plain))[0]
    return restated(meta, plain, syntax)


def restated(content: bytes, old: str, new: str) -> bytes:
    """The same file under another TransferSyntaxUID, with the File Meta's lengths kept right."""
    meta, rest = split(content)
    before, after = (element(2, 0x10, "UI", uid.encode() + bytes(len(uid) % 2)) for uid in (old, new))
    assert before in meta
    meta = meta.replace(before, after)
    return meta[:140] + struct.pack("<I", len(meta) - 144) + meta[144:] + rest


def inserted(content: bytes, raw: bytes, before: bytes = b"\xe0\x7f\x10\x00") -> bytes:
    """Raw bytes put in before the first element with this tag, the pixel data as a rule."""
    place = content.index(before, 132)
    return content[:place] + raw + content[place:]


def replaced(content: bytes, group: int, number: int, raw: bytes) -> bytes:
    """An element of short length, explicit little endian, replaced by raw bytes."""
    start = content.index(tag(group, number), 132)
    length = struct.unpack_from("<H", content, start + 6)[0]
    return content[:start] + raw + content[start + 8 + length :]


def with_text(content: bytes, group: int, number: int, vr: str, text: str) -> bytes:
    value = text.encode("latin-1")
    raw = element(group, number, vr, value + b" " * (len(value) % 2))
    try:
        return replaced(content, group, number, raw)
    except ValueError:
        return inserted(content, raw)


def encapsulated(frames: bytes, syntax: str, pixels: np.ndarray = SMALL, **elements: object) -> bytes:
    """A DICOM file whose encapsulated pixel data, from the offset table on, are these very bytes."""
    content = dicom(pixels, syntax=syntax, encoded=[b"\0\0"], **elements)
    place = content.index(tag(0x7FE0, 0x10), 132)
    return content[:place] + element(0x7FE0, 0x10, "OB", frames, UNDEFINED)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def deflated_to(size: int) -> bytes:
    """A sound deflated file whose data set inflates to so many bytes, the last of them zeros."""
    data = split(sound())[1]
    data += element(0xFFFC, 0xFFFC, "OB", bytes(size - len(data) - 12))
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, strategy=zlib.Z_FIXED)  # ends in the midst of a byte
    return file_meta(DeflatedExplicitVRLittleEndian) + packer.compress(data) + packer.flush()


# ---------------------------------------------------------------- mutations of real files

_REAL = (
    "693_J2KI.dcm CT_small.dcm ExplVR_BigEnd.dcm GDCMJ2K_TextGBR.dcm JPEG-lossy.dcm JPEG2000.dcm "
    "JPEGLSNearLossless_08.dcm JPEGLSNearLossless_16.dcm JPGExtended.dcm MR_small_RLE.dcm MR_small_bigendian.dcm "
    "MR_small_implicit.dcm MR_small_jp2klossless.dcm MR_small_jpeg_ls_lossless.dcm SC_rgb_dcmtk_+eb+cy+s4.dcm "
    "SC_rgb_jls_lossy_line.dcm SC_rgb_rle_16bit_2frame.dcm SC_rgb_small_odd_jpeg.dcm SC_ybr_full_422_uncompressed.dcm "
    "UN_sequence.dcm badVR.dcm image_dfl.dcm liver_1frame.dcm no_meta.dcm nested_priv_SQ.dcm rtdose_rle.dcm "
    "rtplan.dcm test-SR.dcm"
).split()


def real_files() -> list[tuple[str, bytes]]:
    """What pydicom ships, and the radiographs beside the repository where they are."""
    paths = [Path(found) for name in _REAL if (found := get_testdata_file(name, download=False))]
    paths += [path for path in sorted((SHARED / "dicom").glob("RG3_*.dcm")) if path.stat().st_size < 200_000]
    return [(path.name, path.read_bytes()) for path in paths]


def mutated(content: bytes, seed: int) -> bytes:
    """Some bytes changed, cut, put in or swapped, half the time in the header."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        most = min(len(data), 2000) if rng.random() < 0.5 else len(data)
        place = int(rng.integers(0, max(1, most)))
        size = int(rng.integers(1, 17))
        match int(rng.integers(0, 6)):
            case 0:
                data[place : place + 1] = bytes([int(rng.integers(0, 256))])
            case 1:
                data[place : place + 1] = bytes([data[place] ^ (1 << int(rng.integers(0, 8)))]) if data else b""
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = rng.bytes(size)
            case 4:
                other = int(rng.integers(0, max(1, most)))
                data[place : place + size], data[other : other + size] = (
                    data[other : other + size],
                    data[place : place + size],
                )
            case 5:
                data[place : place + 4] = bytes([[0, 255, 127, 128][int(rng.integers(0, 4))]]) * 4
    if rng.random() < 0.15:
        del data[int(rng.integers(0, len(data) + 1)) :]
    return bytes(data)


def mutations(count: int, first_seed: int) -> list[tuple[str, bytes]]:
    """The same ``count`` broken files for the same seed."""
    files = real_files()
    chosen = ((seed, *files[seed % len(files)]) for seed in range(first_seed, first_seed + count))
    return [(f"{seed} of {name}", mutated(content, seed)) for seed, name, content in chosen]
