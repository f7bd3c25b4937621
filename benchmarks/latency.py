"""``/predict`` over HTTP under 1, 8 and 32 clients, idle and while the daemon works through a backlog.

    python -m benchmarks.latency --files 5000

A real `fracture-watch run` with the shipped weights; every client sends its next question when it has the answer to the
last. Who is told to come back (503) does so, and is counted; the milliseconds are those of the answers. Both the
question and the backlog are PNGs of 48 x 48 pixels, so that the network is nearly all of the work.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.endurance import Watcher, drop

ROOT = Path(__file__).parents[1]
CLIENTS = 1, 8, 32


@dataclass(frozen=True, slots=True)
class Measured:
    """What some clients saw: ``cpu`` is the daemon's processor time in milliseconds for each answer."""

    clients: int
    p50: float
    p95: float
    a_second: float
    sent_away: int
    cpu: float


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500, help="of the backlog")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    parser.add_argument("--runtime", choices=("torch", "openvino"), default="torch")
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(
        f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}; {asked.runtime}, {asked.weights.name}\n"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = configured(Path(name), asked.weights, asked.runtime)
        drop(folder / "samples", range(asked.files))
        picture = (folder / "samples" / "0000" / "0.png").read_bytes()
        (folder / "inbox").mkdir()
        with Watcher(folder, picture) as watcher:
            for _ in range(5):
                watcher.predict()  # the workers start with the first
            print(
                "| daemon | clients | p50, ms | p95, ms | answers a second | told to come back | CPU time of one, ms |"
            )
            print("|---|---|---|---|---|---|---|")
            idle = [row("idle", measured(watcher, clients, asked.seconds)) for clients in CLIENTS]
            (folder / "samples").rename(folder / "inbox" / "backlog")
            one = seconds_a_file(watcher)
            busy = [row("working", measured(watcher, clients, asked.seconds)) for clients in CLIENTS]
            left = asked.files - watcher.recorded()
    print(f"\nOne file of the backlog alone: {one * 1000:.0f} ms. Left of it at the end: {left:,} files.")
    if left <= 0:
        print("The backlog ended too soon: take more --files.")
    for before, during in zip(idle, busy, strict=True):
        limit = 2 * before.p95 + one * 1000
        print(f"{during.clients} clients, working: p95 {during.p95:.0f} ms; twice idle and a file: {limit:.0f} ms")
    bound = 1.3 * 8 * idle[0].cpu / cores
    print(f"8 clients, idle: p95 {idle[1].p95:.0f} ms; 1.3 x 8 x CPU time of one / cores: {bound:.0f} ms")


def configured(folder: Path, weights: Path, runtime: str) -> Path:
    """Settings as they are shipped, but for the port."""
    model = {"weights": str(weights.resolve()), "runtime": runtime}
    text = yaml.safe_dump({"model": model, "web": {"port": 0}})
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder


def measured(watcher: Watcher, clients: int, seconds: float) -> Measured:
    """So many clients for so long."""
    cpu, began = watcher.cpu_seconds(), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        kinds = [pool.submit(client, watcher, began + seconds) for _ in range(clients)]
        answers, sent_away = zip(*[kind.result() for kind in kinds], strict=True)
    taken, cpu = time.monotonic() - began, watcher.cpu_seconds() - cpu
    times = [milliseconds for some in answers for milliseconds in some]
    p95 = float(np.percentile(times, 95))
    return Measured(clients, statistics.median(times), p95, len(times) / taken, sum(sent_away), cpu * 1000 / len(times))


def client(watcher: Watcher, until: float) -> tuple[list[float], int]:
    """Ask again and again; the milliseconds of each answer, and how often it was told to come back."""
    times: list[float] = []
    sent_away = 0
    while time.monotonic() < until or not times:
        try:
            times.append(watcher.predict())
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            sent_away += 1
            time.sleep(float(error.headers["Retry-After"]))
    return times, sent_away


def seconds_a_file(watcher: Watcher, files: int = 32) -> float:
    """Of the backlog, while nobody asks; results come by whole batches."""
    watcher.until(lambda: watcher.recorded() > 0)
    before, began = watcher.recorded(), time.monotonic()
    ended = watcher.until(lambda: watcher.recorded() >= before + files)
    return (ended - began) / (watcher.recorded() - before)


def row(state: str, found: Measured) -> Measured:
    """Print it as a row of the table; processor time means little beside a backlog's."""
    cpu = f"{found.cpu:.0f}" if state == "idle" else ""
    print(
        f"| {state} | {found.clients} | {found.p50:.0f} | {found.p95:.0f} | {found.a_second:.1f} | {found.sent_away} | "
        f"{cpu} |",
        flush=True,
    )
    return found


if __name__ == "__main__":
    main()
