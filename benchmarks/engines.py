"""``python -m benchmarks.engines``: the Dask engine beside the local one, on the same cores and the same files.

By turns: a scan in this process, and a scan whose batches go to a scheduler and one worker with as many threads as
there are cores, both started here. Counted is the time from the first batch that is recorded to the last, so that no
start counts; every run has a fresh database.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bench import ROOT, SMALL, machine, write_inputs
from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.intake.tree import scan
from fracture_watch.pipeline import batches
from fracture_watch.service import in_place

PORT = 8796


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--files", type=int, default=99)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", default=SMALL)
    asked = parser.parse_args()
    address = f"tcp://127.0.0.1:{PORT}"
    engines = {"local": {"kind": "local"}, "dask": {"kind": "dask", "address": address}}
    found: dict[str, list[float]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory(prefix="fw-engines-") as name, cluster(address):
        write_inputs(Path(name), asked.kind, asked.files // 3)
        for _ in range(asked.repeats):
            for engine, section in engines.items():
                found[engine].append(files_a_second(Path(name) / "many", engine=section))
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"\n{asked.files} files ({asked.kind}), heat maps none\n")
    print("| engine | files/s, every run | median |\n|---|---|---|")
    for engine, rates in found.items():
        print(f"| {engine} | {', '.join(f'{rate:.2f}' for rate in rates)} | {statistics.median(rates):.2f} |")
    pairs = [local / dask for local, dask in zip(found["local"], found["dask"], strict=True)]
    told = ", ".join(f"{pair:.2f}" for pair in pairs)
    print(f"\nlocal / dask, pair by pair: {told}; median {statistics.median(pairs):.2f}")


def files_a_second(folder: Path, **sections: Mapping[str, Any]) -> float:
    """From the first batch that is recorded to the last, by a scan in this process."""
    with tempfile.TemporaryDirectory(prefix="fw-scan-") as home:
        config = Path(home) / "config.yaml"
        model = {"weights": str(ROOT / "saved_models" / "fracture_best_model.pth"), "heatmaps": "none"}
        values = dict(sections) | {"model": model | dict(sections.get("model", {}))}
        config.write_text(yaml.safe_dump(values), encoding="utf-8")
        settings = load_settings(config, {})
        times, counts = [], []
        with assembly.scanner(settings, [folder], retry=False) as scanner:
            sources = scan(assembly.tree(settings, folder))
            for done in scanner.service.process(batches(sources, settings.model.batch_size), in_place):
                times.append(time.perf_counter())
                counts.append(len(done.recorded))
    return sum(counts[1:]) / (times[-1] - times[0])


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """A scheduler and a worker with a thread for each core, until the end."""
    threads = str(assembly.cores())
    port = address.rpartition(":")[2]
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"],
        ["worker", address, "--no-nanny", "--nthreads", threads, "--no-dashboard", "--memory-limit", "0"],
    )
    started = [
        subprocess.Popen([sys.executable, "-m", "dask", *command], stderr=subprocess.DEVNULL, env=os.environ)
        for command in commands
    ]
    try:
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
