"""``python -m benchmarks.growth``: how time per file and peak memory grow with the number of files, 1 worker and 2.

Small JPEG files, all different, classified by one view and OpenVINO, so that everything around the network counts as
much as it can. Every count has a folder, and every run is a whole process into a fresh database. The time per file is
that between one count and the next, so that the start does not count.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.bench import ROOT, drawing, machine


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="runs of every count below 5,000 files; those run once")
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    options = parser.parse_args()
    console = Console(width=140)
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()), highlight=False)
    table = Table("workers", "files", "seconds (all runs)", "ms a file since the count before", "peak memory, MiB")
    with tempfile.TemporaryDirectory(prefix="fw-growth-") as name:
        write_inputs(Path(name), options.counts)
        for workers in options.workers:
            before, fewer = 0.0, 0
            for count in options.counts:
                repeats = options.repeats if count < 5000 else 1
                runs = [scan(Path(name), count, workers, options.weights.absolute()) for _ in range(repeats)]
                seconds = statistics.median(seconds for seconds, _ in runs)
                pace = f"{(seconds - before) * 1000 / (count - fewer):.1f}" if fewer else "(with the start)"
                peak = max(peak for _, peak in runs)
                shown = ", ".join(f"{seconds:.1f}" for seconds, _ in runs)
                table.add_row(str(workers), f"{count:,}", shown, pace, f"{peak:.0f}")
                before, fewer = seconds, count
    console.print(table)


def write_inputs(folder: Path, counts: list[int]) -> None:
    """A folder for every count; the smaller ones hold links to what the largest one has."""
    for count in counts:
        (folder / f"{count}").mkdir()
    for number in range(max(counts)):
        noise = np.random.default_rng(number).integers(0, 16, (454, 373), np.uint16)
        pixels = np.minimum(drawing(number % 3, 454, 373) + noise, 4095)
        path = folder / f"{max(counts)}" / f"{number:05}.jpg"
        Image.fromarray((pixels >> 4).astype(np.uint8)).save(path, quality=90)
        for count in counts:
            if number < count < max(counts):
                (folder / f"{count}" / path.name).hardlink_to(path)


def scan(folder: Path, count: int, workers: int, weights: Path) -> tuple[float, float]:
    """Seconds of one whole run, and the most memory that one of its processes took, in MiB."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        config = Path(name) / "config.yaml"
        model = {"weights": str(weights), "heatmaps": "none", "runtime": "openvino", "views": "whole"}
        config.write_text(yaml.safe_dump({"model": model, "imaging": {"workers": workers}}), encoding="utf-8")
        command = [sys.executable, "-m", "fracture_watch", "scan", str(folder / f"{count}"), "--config", str(config)]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"the scan of {count} files ended with status {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
