"""``make bench``: milliseconds per file of ``fracture-watch scan`` and of what people write instead, side by side.

All run as whole processes, by turns, on the same files, at two file counts. The time per file is the slope between
the two, so that imports and loading the model do not count; they are stated apart, as the start. Beside them stands
the floor: the sum of the fastest known time of every step (``benchmarks.floor``).
"""

import argparse
import json
import os
import platform
import re
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import yaml
from imagecodecs import jpeg2k_encode, jpeg8_encode, jpegls_encode, packbits_encode
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from rich.console import Console
from rich.table import Table

from benchmarks.floor import floor
from demo import phantoms

Pixels: TypeAlias = NDArray[np.uint16]
ROOT = Path(__file__).parents[1]
OURS = {"scan": "torch", "scan, OpenVINO": "openvino"}
SCRIPTS: dict[str, list[str]] = {  # options of benchmarks.obvious
    "script": [],
    "script, MONAI": ["--reader", "monai"],
    "script, a process a core": ["--processes"],
}
PROGRAMS = *OURS, *SCRIPTS
SMALL = "small JPEG"
# The user's own settings must not reach the runs.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FRACTURE_WATCH__")}


def rle(pixels: Pixels) -> bytes:
    """One frame in DICOM's RLE (PS3.5 G): the high bytes, then the low bytes, each row packed by itself."""
    planes = [packbits_encode((pixels >> shift).astype(np.uint8)) for shift in (8, 0)]
    segments = [bytes(plane) + b"\0" * (len(plane) % 2) for plane in planes]
    return struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13) + b"".join(segments)


ENCODERS: dict[str, tuple[uid.UID, Callable[[Pixels], bytes | bytearray] | None]] = {  # all lossless, at 12 bit
    "uncompressed": (uid.ExplicitVRLittleEndian, None),
    "JPEG Lossless": (uid.JPEGLosslessSV1, partial(jpeg8_encode, lossless=True, predictor=1, bitspersample=12)),
    "JPEG-LS": (uid.JPEGLSLossless, jpegls_encode),
    "JPEG 2000": (uid.JPEG2000Lossless, partial(jpeg2k_encode, codecformat="j2k", reversible=True, bitspersample=12)),
    "RLE": (uid.RLELossless, rle),
}
KINDS = *ENCODERS, SMALL


def main() -> None:
    """Run the benchmark, print a table, and save the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--files", type=int, default=12, help="the smaller file count; the larger is three times it")
    parser.add_argument("--repeats", type=int, default=3, help="runs of everything; the median counts")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the temporary folder does not outlive this
    if not options.weights.is_file() or options.files < 1 or options.repeats < 1:
        parser.error(f"--files and --repeats must be at least 1, and the weights must exist ({options.weights})")
    console = Console(width=160)
    rows = []
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(prefix="fw-bench-") as name, console.status(kind):
            files = options.files * (10 if kind == SMALL else 1)  # their time is short, so many tell it from noise
            write_inputs(Path(name), kind, files)
            row = {"kind": kind, "files": [files, 3 * files]}
            row |= measure(Path(name), options.programs, files, options.repeats, options.weights.absolute())
            rows.append(row | {"floor": floors(next((Path(name) / "few").iterdir()), options.weights)})
    now = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
    report = {"measured_at": now, "machine": machine(), "repeats": options.repeats, "results": rows}
    show(report, options.programs, console)
    (folder := ROOT / "bench-results").mkdir(exist_ok=True)
    path = folder / f"{now}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(f"Saved: {path}", soft_wrap=True)


@cache
def drawing(seed: int, rows: int, columns: int) -> Pixels:
    """Drawing at full size takes seconds, so a few drawings serve, and every file has noise of its own on one."""
    return phantoms.draw(seed, seed % 2 == 1, rows, columns)


def write_inputs(folder: Path, kind: str, files: int) -> None:
    """Write ``3 * files`` pictures into ``many``, all of different content, and link ``files`` of them in ``few``."""
    for inputs in (few := folder / "few", many := folder / "many"):
        inputs.mkdir()
    size = (454, 373) if kind == SMALL else (3000, 2500)
    for number in range(3 * files):
        noise = np.random.default_rng(number).integers(0, 16, size, np.uint16)
        pixels = np.minimum(drawing(number % 3, *size) + noise, 4095)
        path = many / f"{number:04}.{'jpg' if kind == SMALL else 'dcm'}"
        if kind == SMALL:
            Image.fromarray((pixels >> 4).astype(np.uint8)).save(path, quality=90)
        else:
            syntax, encode = ENCODERS[kind]
            ds = phantoms.dataset(number % 3, False, pixels)
            ds.file_meta.TransferSyntaxUID = syntax
            if encode:
                ds.PixelData = encapsulate([bytes(encode(pixels))])
            ds.save_as(path, enforce_file_format=True)
        if number < files:
            (few / path.name).hardlink_to(path)


def measure(folder: Path, programs: Sequence[str], files: int, repeats: int, weights: Path) -> dict[str, Any]:
    """Run the programs by turns on both folders; milliseconds per file, seconds to start, and every run's seconds."""
    runs: dict[str, list[tuple[float, float]]] = {program: [] for program in programs}
    for number in range(repeats + 1):
        for program in programs:
            few = _seconds(program, folder, "few", files, weights)
            if number > 0:  # the first round only warms the caches
                runs[program].append((few, _seconds(program, folder, "many", 3 * files, weights)))
    found: dict[str, Any] = {program: _line(files, times) for program, times in runs.items()}
    return found


def floors(path: Path, weights: Path) -> dict[str, dict[str, float]]:
    """The floor of each of our runs, step by step."""
    return {name: floor(path, weights, runtime, machine()["cores"]) for name, runtime in OURS.items()}


def _line(files: int, times: list[tuple[float, float]]) -> dict[str, Any]:
    slope = statistics.median((many - few) / (2 * files) for few, many in times)
    start = statistics.median(few for few, _ in times) - slope * files
    return {"ms_per_file": slope * 1000, "start_seconds": start, "runs_seconds": times}


def _seconds(program: str, folder: Path, inputs: str, files: int, weights: Path) -> float:
    """One whole process into a fresh database, which must then hold a prediction for every file."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        database, config = Path(name) / "fracture_watch.db", Path(name) / "config.yaml"
        # The script makes no heat maps, so for a like comparison neither does the scan.
        model = {"weights": str(weights), "heatmaps": "none", "runtime": OURS.get(program, "torch")}
        config.write_text(yaml.safe_dump({"model": model}), encoding="utf-8")
        scan = ["fracture_watch", "scan", str(folder / inputs), "--config", str(config)]
        script = ["benchmarks.obvious", str(folder / inputs), "--weights", str(weights), "--database", str(database)]
        command = [sys.executable, "-m", *(scan if program in OURS else script + SCRIPTS[program])]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            sys.exit(f"{program} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        with closing(sqlite3.connect(database)) as connection:
            ((count,),) = connection.execute("SELECT count(prediction) FROM results")
    if count != files:
        sys.exit(f"{program} has predictions for {count} of {files} files:\n{done.stdout}{done.stderr}")
    return seconds


def machine() -> dict[str, Any]:
    """What it was measured on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text(encoding="utf-8")) if info.exists() else []
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.is_available() and torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def show(report: dict[str, Any], programs: Sequence[str], console: Console) -> None:
    """Print the table, and how many times as fast each of ours is."""
    console.print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), highlight=False)
    ours, scripts = ([p for p in programs if (p in OURS) is mine] for mine in (True, False))
    table = Table("ms a file", *programs, *(f"floor of {name}" for name in ours))
    table.caption = f"Median of {report['repeats']}. All have the same weights, views and codecs; no heat maps."
    ratios = Table("times as fast", *(f"{mine} / {other}" for mine in ours for other in (*scripts, "floor")))
    starts = Table("start, s", *programs)
    for row in report["results"]:
        pace = {program: row[program]["ms_per_file"] for program in programs}
        floors = {name: row["floor"][name]["floor"] for name in ours}
        table.add_row(row["kind"], *(f"{value:.1f}" for value in (*pace.values(), *floors.values())))
        found = [other / pace[mine] for mine in ours for other in (*(pace[script] for script in scripts), floors[mine])]
        # With few files noise may win.
        ratios.add_row(row["kind"], *(f"{ratio:.2f}" if ratio > 0 else "" for ratio in found))
        starts.add_row(row["kind"], *(f"{row[program]['start_seconds']:.1f}" for program in programs))
    for part in (table, ratios, starts):
        console.print(part)


if __name__ == "__main__":
    main()
