"""Side by side with DCMTK: computes every row of the table in docs/imaging.md again, and holds the table to it.

``python -m tests.imaging.test_dcmtk`` prints what it finds, file by file.
"""

import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom.data
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, FileDataset, dcmread, uid
from pydicom.encaps import get_frame

from fracture_watch.errors import FractureWatchError
from fracture_watch.imaging import read
from tests.conftest import REPOSITORY, SHARED, needs
from tests.dicoms import dicom

pytestmark = pytest.mark.dcmtk

COMMANDS = "dcm2pnm", "dcmj2pnm", "dcml2pnm", "opj_decompress"
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_HEADING = "## Side by side with DCMTK"
Pixels = NDArray[Any]


class Row(NamedTuple):
    """One row of the table: ``largest`` is a number of grey levels, or who refuses the file."""

    pattern: str
    largest: str
    share: float  # of samples, in percent, that are more than one grey level apart
    reason: str


# ---------------------------------------------------------------------------------------------- the two pictures


def found(path: Path) -> tuple[str, float]:
    """What the table shall say of a file: the largest difference, and the percentage more than one apart."""
    ours, theirs = _ours(path), _theirs(path)
    if ours is None or theirs is None:
        return "refused by " + ("both" if ours is theirs else "us" if ours is None else "DCMTK"), 0.0
    if ours.shape != theirs.shape:
        return f"{ours.shape} and {theirs.shape}", 100.0
    apart = np.abs(ours.astype(int) - theirs)
    return str(apart.max()), float((apart > 1).mean()) * 100


def _ours(path: Path) -> Pixels | None:
    try:
        return read(path).pixels
    except FractureWatchError:
        return None


def _theirs(path: Path) -> Pixels | None:
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        header = dcmread(path, force=True)
        syntax = header.file_meta.TransferSyntaxUID
        command = "dcml2pnm" if syntax in _JPEG_LS else "dcmj2pnm" if syntax in uid.JPEGTransferSyntaxes else "dcm2pnm"
        if syntax in _JPEG_2000:  # which DCMTK leaves to its commercial module
            if (words := _unpacked(header, folder)) is None:
                return None
            path = _uncompressed(header, words, folder / "uncompressed.dcm")
        picture = folder / "picture.pnm"
        if _run(command, "-O", "+op", *_options(header), str(path), str(picture)) != 0 or not picture.exists():
            return None
        return np.asarray(Image.open(picture))


def _run(*command: str) -> int:
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode


def _options(header: FileDataset) -> list[str]:
    """What makes dcm2pnm do what the standard says for this header: it does no VOI by itself."""
    options = []
    if header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
        width = header.get("WindowWidth")
        width = width[0] if isinstance(width, list | pydicom.multival.MultiValue) else width
        if header.get("VOILUTSequence"):
            options += ["+Wl", "1"]
        elif width is not None and width >= 1:
            options += ["+Wi", "1"]
        else:  # up to 8 bits show their full range, more than that what is there
            options += ["-W"] if header.get("BitsStored", 32) <= 8 else ["+Wm"]
    ratio = _ratio(header)
    if abs(ratio - 1) > 0.01:  # the axis with the wider pixels grows, the other keeps its size
        size = ("+Syv", header.Rows * ratio) if ratio > 1 else ("+Sxv", header.Columns / ratio)
        options += ["+a", "+i", "1", size[0], str(round(size[1]))]
    return options


def _ratio(header: FileDataset) -> float:
    """Height of a pixel over its width."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        if value := header.get(keyword):
            return float(value[0]) / float(value[1])
    return 1.0


def _unpacked(header: FileDataset, folder: Path) -> bytes | None:
    """The words of the first frame, little endian, colour by plane, as OpenJPEG's own program decodes them."""
    stream, words = folder / "frame.j2k", folder / "frame.rawl"
    frames = int(header.get("NumberOfFrames") or 1)
    stream.write_bytes(get_frame(header.PixelData, 0, number_of_frames=frames))
    failed = _run("opj_decompress", "-i", str(stream), "-o", str(words)) != 0
    return None if failed or not words.exists() else words.read_bytes()


def _uncompressed(header: FileDataset, words: bytes, path: Path) -> Path:
    size = len(words) // (header.Rows * header.Columns * header.SamplesPerPixel)
    header.PixelData, header.BitsAllocated, header.NumberOfFrames = words + bytes(len(words) % 2), 8 * size, 1
    header["PixelData"].VR, header["PixelData"].is_undefined_length = "OW" if size > 1 else "OB", False
    if header.SamplesPerPixel == 3:
        header.PlanarConfiguration = 1
        if header.PhotometricInterpretation in ("YBR_RCT", "YBR_ICT"):
            header.PhotometricInterpretation = "RGB"
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.save_as(path, implicit_vr=False, little_endian=True)
    return path


# ----------------------------------------------------------------------------------------------------- the files

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every value of 12 bits
BYTES = (RAMP % 256).astype(np.uint8)
SIGNED = RAMP.astype(np.int16) - 2048
_ROW, _COLUMN = np.sin(np.arange(64) / 9)[:, None], np.cos(np.arange(64) / 7)
SMOOTH = ((_ROW + _COLUMN + 2) * 1000).astype(np.uint16)  # what lossy codecs and interpolation are made for
COLORS = np.stack([BYTES, BYTES[::-1], BYTES.T], axis=-1)
SMOOTH_COLORS = (np.stack([SMOOTH, SMOOTH.T, SMOOTH[::-1]], axis=-1) >> 4).astype(np.uint8)
GAMMA = np.rint(4095 * np.sqrt(np.arange(4096) / 4095)).astype(int)
WINDOW = {"WindowCenter": "1500", "WindowWidth": "2000"}
AROUND_0 = {"WindowCenter": "0", "WindowWidth": "3000"}
gray = partial(dicom, BitsStored=12)


def lut(entries: Pixels, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


def palette(bits: int, segmented: bool = False) -> dict[str, Any]:
    elements: dict[str, Any] = {}
    for step, color in ((1, "Red"), (3, "Green"), (5, "Blue")):
        entries = np.arange(256) * step % 256 * (257 if bits == 16 else 1)
        segments = np.concatenate([[0, 256], entries]) if segmented else entries
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        name = f"{'Segmented' if segmented else ''}{color}PaletteColorLookupTableData"
        elements[name] = segments.astype("<u2" if bits == 16 else "u1").tobytes()
    return elements


def _float() -> bytes:
    return dicom(
        None,
        FloatPixelData=RAMP.astype("<f4").tobytes(),
        Rows=64,
        Columns=64,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=32,
    )


GENERATED: dict[str, Callable[[], bytes]] = {
    "window": partial(gray, RAMP, **WINDOW),
    "window, fractional": partial(gray, RAMP, WindowCenter="1500.25", WindowWidth="333.7"),
    "window, width 1": partial(gray, RAMP, WindowCenter="1500", WindowWidth="1"),
    "window, width 2": partial(gray, RAMP, WindowCenter="1500", WindowWidth="2"),
    "window, width 0": partial(gray, RAMP, WindowCenter="1500", WindowWidth="0"),
    "window, first of two": partial(gray, RAMP, WindowCenter=["1500", "9"], WindowWidth=["2000", "5"]),
    "LINEAR_EXACT window": partial(gray, RAMP, VOILUTFunction="LINEAR_EXACT", **WINDOW),
    "LINEAR_EXACT window, narrow": partial(
        gray, RAMP, VOILUTFunction="LINEAR_EXACT", WindowCenter="1500", WindowWidth="20"
    ),
    "SIGMOID window": partial(gray, RAMP, VOILUTFunction="SIGMOID", **WINDOW),
    "SIGMOID window, narrow": partial(gray, RAMP, VOILUTFunction="SIGMOID", WindowCenter="1500", WindowWidth="20"),
    "no window": partial(dicom, RAMP + 50, BitsStored=13),
    "no window, 8 bit": partial(dicom, BYTES // 2 + 10),
    "no window, 7 bit": partial(dicom, BYTES // 2, BitsStored=7),
    "no window, 4 bit": partial(dicom, BYTES // 16, BitsStored=4),
    "padding value, no window": partial(gray, np.where(RAMP < 500, 0, RAMP), PixelPaddingValue=0),
    "padding range, no window": partial(gray, RAMP, PixelPaddingValue=0, PixelPaddingRangeLimit=500),
    "VOI LUT": partial(gray, RAMP, VOILUTSequence=[lut(GAMMA, 0, 12)]),
    "VOI LUT, from 1000": partial(gray, RAMP, VOILUTSequence=[lut(GAMMA[::2], 1000, 12)]),
    "VOI LUT, 8 bit": partial(gray, RAMP, VOILUTSequence=[lut(GAMMA >> 4, 0, 8)]),
    "VOI LUT, 10 bit": partial(gray, RAMP, VOILUTSequence=[lut(GAMMA >> 2, 0, 10)]),
    "VOI LUT, 16 bit": partial(gray, RAMP, VOILUTSequence=[lut(GAMMA << 4, 0, 16)]),
    "VOI LUT before window": partial(gray, RAMP, VOILUTSequence=[lut(GAMMA, 0, 12)], **WINDOW),
    "VOI LUT, signed": partial(gray, SIGNED, VOILUTSequence=[lut(GAMMA, -2048, 12)]),
    "VOI LUT after rescale": partial(
        gray, RAMP, RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=[lut(GAMMA, -1024, 12)]
    ),
    "Modality LUT": partial(gray, RAMP, ModalityLUTSequence=[lut(GAMMA, 0, 12)], **WINDOW),
    "Modality LUT, no window": partial(gray, RAMP, ModalityLUTSequence=[lut(GAMMA[500:1500], 1000, 12)]),
    "Modality LUT and VOI LUT": partial(
        gray, RAMP, ModalityLUTSequence=[lut(GAMMA, 0, 12)], VOILUTSequence=[lut(GAMMA[::-1].copy(), 0, 12)]
    ),
    "rescale, fractional": partial(gray, RAMP, RescaleSlope="0.684", RescaleIntercept="200", **WINDOW),
    "rescale, negative": partial(gray, RAMP, RescaleSlope="-1", RescaleIntercept="4095", **WINDOW),
    "rescale, negative, no window": partial(gray, RAMP, RescaleSlope="-2", RescaleIntercept="100"),
    "rescale, negative, 8 bit": partial(dicom, BYTES, RescaleSlope="-1", RescaleIntercept="255"),
    "fractional rescale, narrow window": partial(
        gray, RAMP, RescaleSlope="0.684", RescaleIntercept="200", WindowCenter="1500", WindowWidth="20"
    ),
    "fractional rescale, VOI LUT": partial(
        gray, RAMP, RescaleSlope="0.25", RescaleIntercept="0", VOILUTSequence=[lut(np.arange(1024) % 5 * 1000, 0, 12)]
    ),
    "MONOCHROME1": partial(gray, RAMP, photometric="MONOCHROME1", **WINDOW),
    "MONOCHROME1, no window": partial(gray, RAMP, photometric="MONOCHROME1"),
    "MONOCHROME1, 8 bit": partial(dicom, BYTES, photometric="MONOCHROME1"),
    "MONOCHROME1, VOI LUT": partial(gray, RAMP, photometric="MONOCHROME1", VOILUTSequence=[lut(GAMMA, 0, 12)]),
    "MONOCHROME1, SIGMOID": partial(gray, RAMP, photometric="MONOCHROME1", VOILUTFunction="SIGMOID", **WINDOW),
    "MONOCHROME1, shape INVERSE": partial(
        gray, RAMP, photometric="MONOCHROME1", PresentationLUTShape="INVERSE", **WINDOW
    ),
    "shape IDENTITY of MONOCHROME1": partial(
        gray, RAMP, photometric="MONOCHROME1", PresentationLUTShape="IDENTITY", **WINDOW
    ),
    "MONOCHROME2, shape INVERSE": partial(gray, RAMP, PresentationLUTShape="INVERSE", **WINDOW),
    "MONOCHROME2, shape IDENTITY": partial(gray, RAMP, PresentationLUTShape="IDENTITY", **WINDOW),
    "signed, 12 bit": partial(gray, SIGNED, **AROUND_0),
    "signed, 16 bit": partial(dicom, SIGNED, **AROUND_0),
    "signed, 8 bit": partial(dicom, BYTES.view(np.int8)),
    "signed, 8 bit, window": partial(dicom, BYTES.view(np.int8), WindowCenter="0", WindowWidth="100"),
    "HighBit 15 of 12 bit": partial(gray, RAMP << 4, HighBit=15, **WINDOW),
    "HighBit 15 of 12 bit, JPEG-LS": partial(gray, RAMP << 4, HighBit=15, syntax=uid.JPEGLSLossless, **WINDOW),
    "HighBit 13 of 12 bit, others set": partial(gray, (RAMP << 2) | 0xC003, HighBit=13, **WINDOW),
    "overlay in the unused bits": partial(gray, RAMP | 0xF000, **WINDOW),
    "32 bit": partial(dicom, RAMP.astype(np.uint32) * 100_000),
    "32 bit, window": partial(dicom, RAMP.astype(np.uint32) * 100_000, WindowCenter="2e8", WindowWidth="1e8"),
    "Float Pixel Data": _float,
    "palette, 16 bit": partial(dicom, BYTES, photometric="PALETTE COLOR", **palette(16)),
    "palette, 8 bit": partial(dicom, BYTES, photometric="PALETTE COLOR", **palette(8)),
    "palette, segmented": partial(dicom, BYTES, photometric="PALETTE COLOR", **palette(16, segmented=True)),
    "RGB by pixel": partial(dicom, COLORS, photometric="RGB"),
    "RGB by plane": partial(dicom, COLORS, photometric="RGB", PlanarConfiguration=1),
    "YBR_FULL by pixel": partial(dicom, COLORS, photometric="YBR_FULL"),
    "YBR_FULL by plane": partial(dicom, COLORS, photometric="YBR_FULL", PlanarConfiguration=1),
    "pixels 2:1": partial(gray, SMOOTH, PixelAspectRatio=["2", "1"], **WINDOW),
    "pixels 1:2": partial(gray, SMOOTH, PixelAspectRatio=["1", "2"], **WINDOW),
    "spacing 0.3 and 0.2": partial(gray, SMOOTH, PixelSpacing=["0.3", "0.2"], **WINDOW),
    "Display Shutter": partial(
        gray,
        RAMP,
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=10,
        ShutterRightVerticalEdge=50,
        ShutterUpperHorizontalEdge=8,
        ShutterLowerHorizontalEdge=40,
        **WINDOW,
    ),
    "Implicit VR": partial(gray, RAMP, syntax=uid.ImplicitVRLittleEndian, **WINDOW),
    "big endian": partial(gray, RAMP, syntax=uid.ExplicitVRBigEndian, **WINDOW),
    "deflated": partial(gray, RAMP, syntax=uid.DeflatedExplicitVRLittleEndian, **WINDOW),
    "RLE": partial(gray, RAMP, syntax=uid.RLELossless, **WINDOW),
    "RLE, signed": partial(gray, SIGNED, syntax=uid.RLELossless, **AROUND_0),
    "RLE, RGB": partial(dicom, COLORS, photometric="RGB", syntax=uid.RLELossless),
    "JPEG Baseline": partial(dicom, (SMOOTH >> 4).astype(np.uint8), syntax=uid.JPEGBaseline8Bit),
    "JPEG Baseline, YBR_FULL": partial(dicom, SMOOTH_COLORS, photometric="YBR_FULL", syntax=uid.JPEGBaseline8Bit),
    "JPEG Baseline, 422": partial(dicom, SMOOTH_COLORS, photometric="YBR_FULL_422", syntax=uid.JPEGBaseline8Bit),
    "JPEG Extended, 12 bit": partial(gray, SMOOTH, syntax=uid.JPEGExtended12Bit, **WINDOW),
    "JPEG Lossless": partial(gray, RAMP, syntax=uid.JPEGLossless, **WINDOW),
    "JPEG Lossless SV1": partial(gray, RAMP, syntax=uid.JPEGLosslessSV1, **WINDOW),
    "JPEG Lossless, YBR_FULL": partial(dicom, COLORS, photometric="YBR_FULL", syntax=uid.JPEGLossless),
    "JPEG Lossless SV1, signed": partial(gray, SIGNED, syntax=uid.JPEGLosslessSV1, **AROUND_0),
    "JPEG-LS": partial(gray, RAMP, syntax=uid.JPEGLSLossless, **WINDOW),
    "JPEG-LS, signed": partial(gray, SIGNED, syntax=uid.JPEGLSLossless, **AROUND_0),
    "JPEG 2000": partial(gray, RAMP, syntax=uid.JPEG2000Lossless, **WINDOW),
    "JPEG 2000, signed": partial(gray, SIGNED, syntax=uid.JPEG2000Lossless, **AROUND_0),
    "JPEG 2000, YBR_RCT": partial(dicom, COLORS, photometric="YBR_RCT", syntax=uid.JPEG2000Lossless),
    "HTJ2K": partial(gray, RAMP, syntax=uid.HTJ2KLossless, **WINDOW),
    "HTJ2K, signed": partial(gray, SIGNED, syntax=uid.HTJ2KLossless, **AROUND_0),
    "HTJ2K, YBR_RCT": partial(dicom, COLORS, photometric="YBR_RCT", syntax=uid.HTJ2KLossless),
}


@cache
def files() -> dict[str, Path | None]:
    """Every file by its name in the table: pydicom's, the shared ones, and the generated, which have no path."""
    shared = {f"shared/{path.name}": path for path in _pictures(SHARED / "dicom")}
    return {
        **{f"pydicom/{path.relative_to(PYDICOM).as_posix()}": path for path in _pictures(PYDICOM)},
        **(shared or {row.pattern: SHARED for row in table() if row.pattern.startswith("shared/")}),
        **{f"generated/{name}": None for name in GENERATED},
    }


def _pictures(folder: Path) -> Iterator[Path]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = dcmread(path, force=True)
        if "Rows" in header and any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            yield path


def compared(name: str, folder: Path) -> tuple[str, float]:
    """``found`` for a file by its name in the table."""
    if (path := files()[name]) is None:
        path = folder / "generated.dcm"
        path.write_bytes(GENERATED[name.removeprefix("generated/")]())
    return found(path)


# ----------------------------------------------------------------------------------------------------- the table


@cache
def table() -> list[Row]:
    """The rows of the table in docs/imaging.md."""
    text = (REPOSITORY / "docs" / "imaging.md").read_text(encoding="utf-8")
    _, heading, section = text.partition(_HEADING + "\n")
    assert heading, f"docs/imaging.md has no section {_HEADING!r}"
    lines = re.findall(r"^\| `(.+?)` \| (.+?) \| (.*?) \| (.*?) \|$", section.partition("\n## ")[0], re.MULTILINE)
    return [Row(name, largest, float(share.strip("< %") or 0), reason) for name, largest, share, reason in lines]


def rows_of(name: str) -> list[Row]:
    return [row for row in table() if fnmatchcase(name, row.pattern)]


@pytest.mark.parametrize("name", files())
def test_is_as_far_from_dcmtk_as_the_table_says(name: str, tmp_path: Path) -> None:
    if files()[name] == SHARED:
        pytest.skip("../shared/data/dicom is missing")
    needs(*COMMANDS)
    rows = rows_of(name)
    assert len(rows) == 1, f"{name} must have one row in docs/imaging.md; it has {len(rows)}"
    largest, share = compared(name, tmp_path)
    written = rows[0]
    if largest.isdecimal() and written.largest.isdecimal():
        assert int(largest) <= int(written.largest), f"{name} is {largest} grey levels from DCMTK's"
        assert share <= written.share + 0.005, f"of {name} {share:.2f} % are more than one grey level from DCMTK's"
    else:
        assert largest == written.largest


def test_every_row_has_a_file() -> None:
    assert not [row.pattern for row in table() if not any(fnmatchcase(name, row.pattern) for name in files())]


def test_every_row_is_explained_where_it_must_be() -> None:
    assert not [row.pattern for row in table() if row.largest not in ("0", "1") and not row.reason]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        for each in files():
            if fnmatchcase(each, (sys.argv[1:] or ["*"])[0]):
                difference, percent = compared(each, Path(where))
                share = "" if percent == 0 else f"{percent:.2f} %" if percent >= 0.01 else "< 0.01 %"
                print(f"| `{each}` | {difference} | {share} |  |", flush=True)
