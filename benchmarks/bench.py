"""``make bench``: milliseconds per file of ``fracture-watch scan`` and of the obvious script, side by side.

Both run as whole processes, by turns, on the same files, at two file counts. The time per file is the slope between
the two, so that imports and loading the model do not count; they are stated apart, as the start.
"""

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from rich.console import Console
from rich.table import Table

from demo import phantoms

ROOT = Path(__file__).parents[1]
Pixels = NDArray[np.uint16]
# Each encoder's own 12-bit lossless mode, as a modality would write it.
ENCODERS: dict[str, tuple[uid.UID, Callable[[Pixels], bytes] | None]] = {
    "uncompressed": (uid.ExplicitVRLittleEndian, None),
    "JPEG Lossless": (
        uid.JPEGLosslessSV1,
        lambda p: bytes(imagecodecs.jpeg8_encode(p, lossless=True, predictor=1, bitspersample=12)),
    ),
    "JPEG-LS": (uid.JPEGLSLossless, lambda p: bytes(imagecodecs.jpegls_encode(p))),
    "JPEG 2000": (
        uid.JPEG2000Lossless,
        lambda p: bytes(imagecodecs.jpeg2k_encode(p, codecformat="j2k", reversible=True, bitspersample=12)),
    ),
    "RLE": (uid.RLELossless, lambda p: bytes(imagecodecs.dicomrle_encode(p))),
}
SMALL = "small JPEG"
KINDS = (*ENCODERS, SMALL)
PROGRAMS = ("fracture-watch", "obvious script")
_DRAWINGS = 3  # so many are drawn at full size; every file has noise of its own on one of them
# A setting of the user's must not reach the runs.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FRACTURE_WATCH__")}


def main() -> None:
    """Run the benchmark, print a table, and save the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--files", type=int, default=12, help="the smaller file count; the larger is three times it")
    parser.add_argument("--repeats", type=int, default=3, help="runs of everything; the median counts")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    options = parser.parse_args()
    if not options.weights.is_file():
        parser.error(f"{options.weights}: there are no weights here; name them with --weights")
    console = Console()
    rows = []
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(prefix="fw-bench-") as name, console.status(kind):
            folder = Path(name)
            write_inputs(folder, kind, options.files)
            rows.append({"kind": kind} | measure(folder, options.files, options.repeats, options.weights.absolute()))
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "files": [options.files, 3 * options.files],
        "repeats": options.repeats,
        "results": rows,
    }
    show(report, console)
    console.print(f"Saved: {save(report, ROOT / 'bench-results')}", soft_wrap=True)


def write_inputs(folder: Path, kind: str, files: int) -> None:
    """Write ``files`` pictures into ``few`` and ``3 * files`` into ``many``, all of different content."""
    few, many = folder / "few", folder / "many"
    few.mkdir()
    many.mkdir()
    size = (454, 373) if kind == SMALL else (3000, 2500)
    drawings = [phantoms.draw(seed, seed % 2 == 1, *size) for seed in range(_DRAWINGS)]
    for number in range(3 * files):
        noise = np.random.default_rng(number).integers(0, 8, size, np.uint16)
        pixels = np.minimum(drawings[number % _DRAWINGS] + noise, 4095)
        path = many / f"{number:04}{'.jpg' if kind == SMALL else '.dcm'}"
        _write(path, kind, pixels, number)
        if number < files:
            (few / path.name).hardlink_to(path)


def _write(path: Path, kind: str, pixels: Pixels, number: int) -> None:
    if kind == SMALL:
        Image.fromarray((pixels >> 4).astype(np.uint8)).save(path, quality=90)
        return
    syntax, encode = ENCODERS[kind]
    ds = phantoms.dataset(number % _DRAWINGS, number % 2 == 1, pixels)
    ds.file_meta.TransferSyntaxUID = syntax
    if encode:
        ds.PixelData = encapsulate([encode(pixels)])
        ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)


def measure(folder: Path, files: int, repeats: int, weights: Path) -> dict[str, Any]:
    """Run both programs by turns on both folders; milliseconds per file, seconds to start, and every run's seconds."""
    for program in PROGRAMS:  # once unmeasured, so that neither pays for cold caches
        _seconds(program, folder, "few", files, weights)
    runs: dict[str, list[tuple[float, float]]] = {program: [] for program in PROGRAMS}
    for _ in range(repeats):
        for program in PROGRAMS:
            few = _seconds(program, folder, "few", files, weights)
            runs[program].append((few, _seconds(program, folder, "many", 3 * files, weights)))
    found: dict[str, Any] = {}
    for program, times in runs.items():
        slope = statistics.median((many - few) / (2 * files) for few, many in times)
        start = statistics.median(few for few, _ in times) - slope * files
        found[program] = {"ms_per_file": slope * 1000, "start_seconds": start, "runs_seconds": times}
    ours, theirs = (found[program]["ms_per_file"] for program in PROGRAMS)
    return found | {"ratio": theirs / ours if ours > 0 else None}


def _seconds(program: str, folder: Path, inputs: str, files: int, weights: Path) -> float:
    """One whole process into a fresh database, which must hold a prediction for every file."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        database, config = Path(name) / "fracture_watch.db", Path(name) / "config.yaml"
        # The script makes no heat maps, so for a like comparison neither does the scan.
        settings = {"model": {"weights": str(weights), "heatmaps": "none"}, "logging": {"level": "error"}}
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        ours = ["fracture_watch", "scan", str(folder / inputs), "--config", str(config)]
        script = ["benchmarks.obvious", str(folder / inputs), "--weights", str(weights), "--database", str(database)]
        command = [sys.executable, "-m", *(ours if program == PROGRAMS[0] else script)]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        count = sqlite3.connect(database).execute("SELECT count(prediction) FROM results").fetchone()[0]
        if count != files:
            sys.exit(f"{program} has a prediction for {count} of {files} files:\n{done.stdout}{done.stderr}")
        return seconds


def machine() -> dict[str, Any]:
    """What it was measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_at_end": os.getloadavg()[0],
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table."""
    facts = report["machine"]
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['gpu'] or 'no GPU'}; torch {facts['torch']} with "
        f"{facts['torch_threads']} threads; load {facts['load_at_end']:.1f}; Python {facts['python']}"
    )
    few, many = report["files"]
    caption = (
        f"Slope between {few} and {many} files, median of {report['repeats']}; both use the codecs of imagecodecs."
    )
    table = Table("files", "ms per file: fracture-watch", "obvious script", "ratio", "start, s", "", caption=caption)
    for row in report["results"]:
        ours, script = (row[program] for program in PROGRAMS)
        table.add_row(
            row["kind"],
            f"{ours['ms_per_file']:.1f}",
            f"{script['ms_per_file']:.1f}",
            f"{row['ratio']:.1f}" if row["ratio"] else "",
            f"{ours['start_seconds']:.1f}",
            f"{script['start_seconds']:.1f}",
        )
    console.print(table)


def save(report: dict[str, Any], folder: Path) -> Path:
    """Write the figures as JSON and return where."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{report['measured_at'].replace(':', '').replace('+0000', 'Z')}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
