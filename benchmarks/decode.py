"""``make bench``, its part for imaging: what it costs to decode and render one radiograph, by transfer syntax.

Three programs take the same bytes in memory, by turns, and end with the same 8-bit picture as a Pillow image:
fracture_watch; pydicom as people write it, with the decoders that pip brings (pydicom's own, numpy, Pillow); and the
same with fracture_watch's decoders, so that only the rest of the chain differs. What counts is the median of
the processor time, of all threads together, so that neither a second thread nor a busy machine makes a difference.
"""

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pydicom
from imagecodecs import htj2k_encode, jpeg8_encode
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from rich.console import Console
from rich.table import Table

from benchmarks.bench import ENCODERS, ROOT, drawing, machine
from demo import phantoms
from fracture_watch.imaging import codecs
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.reader import open_image

ROWS, COLUMNS = 3000, 2500
MEGAPIXELS = ROWS * COLUMNS / 1e6
PROGRAMS = "fracture_watch", "pydicom, pip's decoders", "pydicom, our decoders"
APART = 2  # grey levels: another decoder may round otherwise, and the script cuts where we round
_LEVEL = 90
_12_BIT, _8_BIT = 12, 8
_OWN = "imagecodecs (BSD-3)"
Picture: TypeAlias = NDArray[Any]
Program: TypeAlias = Callable[[bytes], Image.Image]


class Kind(NamedTuple):
    """How a benchmark's file is written, and what reads it here."""

    syntax: uid.UID
    encode: Callable[[Any], bytes | bytearray] | None
    decoder: str
    bits: int = _12_BIT


_JPEG = "libjpeg-turbo (IJG, BSD-3)"
KINDS = {
    "uncompressed": Kind(*ENCODERS["uncompressed"], "none needed"),
    "deflated": Kind(uid.DeflatedExplicitVRLittleEndian, None, "zlib (zlib)"),
    "RLE": Kind(*ENCODERS["RLE"], _OWN),
    "JPEG Baseline, 8 bit": Kind(uid.JPEGBaseline8Bit, partial(jpeg8_encode, level=_LEVEL), _JPEG, _8_BIT),
    "JPEG Extended, 12 bit": Kind(
        uid.JPEGExtended12Bit, partial(jpeg8_encode, level=_LEVEL, bitspersample=_12_BIT), _JPEG
    ),
    "JPEG Lossless": Kind(*ENCODERS["JPEG Lossless"], _JPEG),
    "JPEG-LS": Kind(*ENCODERS["JPEG-LS"], "CharLS (BSD-3)"),
    "JPEG 2000": Kind(*ENCODERS["JPEG 2000"], "OpenJPEG (BSD-2)"),
    "HTJ2K": Kind(uid.HTJ2KLossless, partial(htj2k_encode, reversible=True), "OpenJPH (BSD-2)"),
}


def main() -> None:
    """Run the benchmark, print a table, and save the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="rounds over everything; the median counts")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/imaging.md has it")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    console = Console(width=120)
    stock = {name: _stock_decoder(KINDS[name].syntax) for name in options.kinds}  # before ours is among them
    codecs.register()
    results = []
    for name in options.kinds:
        with console.status(name):
            results.append({"kind": name} | measure(KINDS[name], stock[name], options.repeats))
    now = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
    report = {"measured_at": now, "machine": machine(), "repeats": options.repeats, "results": results}
    show(report, console, options.markdown)
    (folder := ROOT / "bench-results").mkdir(exist_ok=True)
    path = folder / f"{now}-decode.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(f"Saved: {path}", soft_wrap=True)


def _stock_decoder(syntax: uid.UID) -> str | None:
    """The decoder that a user of pydicom has from pip, if any."""
    plugins = get_decoder(syntax).available_plugins if syntax.is_encapsulated else ("",)
    return plugins[0] if plugins else None


def content(kind: Kind) -> bytes:
    """One DX file with a drawn limb."""
    pixels = drawing(0, ROWS, COLUMNS)
    ds = phantoms.dataset(0, False, pixels)
    if kind.bits == _8_BIT:
        pixels = (pixels >> (_12_BIT - _8_BIT)).astype(np.uint8)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = _8_BIT, _8_BIT, _8_BIT - 1
        ds.WindowCenter, ds.WindowWidth = (value >> (_12_BIT - _8_BIT) for value in phantoms.WINDOW)
    if kind.encode:
        ds.PixelData = encapsulate([bytes(kind.encode(pixels))])
        ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = kind.syntax
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ours(file: bytes) -> Image.Image:
    """fracture_watch: what ``read`` does, but for the digest of the file, which the others do not make."""
    return Image.fromarray(open_image(file, Limits(), Scope()).pixels(0))


def as_people_write_it(file: bytes, decoder: str) -> Image.Image:
    """Pydicom, its two LUT functions, and a stretch to 8 bit."""
    ds = pydicom.dcmread(io.BytesIO(file))
    ds.pixel_array_options(decoding_plugin=decoder)
    pixels = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(np.float64)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    return Image.fromarray(pixels.astype(np.uint8))


def programs(kind: Kind, stock: str | None) -> Iterator[tuple[str, Program]]:
    """Those that can be expected to read the file."""
    yield PROGRAMS[0], ours
    if stock is not None:
        yield PROGRAMS[1], partial(as_people_write_it, decoder=stock)
    if kind.syntax.is_encapsulated:
        yield PROGRAMS[2], partial(as_people_write_it, decoder=codecs.LABEL)


def measure(kind: Kind, stock: str | None, repeats: int) -> dict[str, Any]:
    """Milliseconds per megapixel of each program that reads the file, and every run's."""
    file = content(kind)
    able, refusals = dict(programs(kind, stock)), {}
    expected = np.asarray(ours(file))
    for name, program in list(able.items()):
        if (refusal := _refusal(program, file, expected)) is not None:
            if name != PROGRAMS[1]:
                sys.exit(f"{name} on {kind.syntax.name}: {refusal}")
            refusals[name] = refusal
            del able[name]
    runs: dict[str, list[float]] = {name: [] for name in able}
    for _ in range(repeats):
        for name, program in able.items():
            began = time.process_time()
            program(file)
            runs[name].append((time.process_time() - began) * 1000 / MEGAPIXELS)
    medians = {name: statistics.median(run) for name, run in runs.items()}
    return {"file_mb": len(file) / 1e6, "ms_per_megapixel": medians, "runs": runs, "refusals": refusals}


def _refusal(program: Program, file: bytes, expected: Picture) -> str | None:
    """Why a program is not measured: a wrong picture would make its time worthless. Also warms the caches."""
    try:
        picture = np.asarray(program(file)).astype(int)
    except Exception as error:  # noqa: BLE001  Pillow and pydicom raise many kinds
        return f"cannot read: {error}"
    apart = int(np.abs(picture - expected).max())
    return None if apart <= APART else f"wrong picture: {apart} grey levels from fracture_watch's"


def show(report: dict[str, Any], console: Console, markdown: bool) -> None:
    """Print the table."""
    console.print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), soft_wrap=True)
    heads = ["transfer syntax", "decoder (licence)", *(f"{p}, ms/MP" for p in PROGRAMS), "times faster"]
    lines = [_line(row) for row in report["results"]]
    if markdown:
        for cells in (heads, ["---"] * len(heads), *lines):
            console.print(f"| {' | '.join(cells)} |", soft_wrap=True, highlight=False, markup=False)
        return
    table = Table(*heads)
    table.caption = f"Median of {report['repeats']}, processor time; DX of {COLUMNS} x {ROWS}, 12 bit."
    for cells in lines:
        table.add_row(*cells)
    console.print(table)


def _line(row: dict[str, Any]) -> list[str]:
    kind, ms = KINDS[row["kind"]], row["ms_per_megapixel"]
    instead = {PROGRAMS[1]: "cannot read", PROGRAMS[2]: "the same"}  # it has no decoder; nothing is to be decoded
    instead |= {name: refusal.partition(":")[0] for name, refusal in row["refusals"].items()}
    figures = [f"{ms[name]:.1f}" if name in ms else instead[name] for name in PROGRAMS]
    ratios = [f"{ms[name] / ms[PROGRAMS[0]]:.1f}" for name in PROGRAMS[1:] if name in ms]
    return [row["kind"], kind.decoder, *figures, " and ".join(ratios)]


if __name__ == "__main__":
    main()
