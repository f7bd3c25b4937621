"""A backlog of many files, a burst into a running watcher, and files that stay: speed, memory, and what is missed.

    python -m benchmarks.endurance --files 100000 --burst 10000 --stay 100000

It measures the intake, so the network is timm's smallest, untrained: what a real one costs is in `make bench`. The
files are distinct PNGs of 48 x 48 pixels.
"""

import argparse
import io
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from fracture_watch import golden
from fracture_watch.disk import digest
from fracture_watch.intake.tree import Tree
from fracture_watch.model.card import Calibration, Card, Input, Threshold
from fracture_watch.model.network import Network

ARCHITECTURE = "timm:test_efficientnet"
SIDE = 48  # pixels
SAMPLE_SECONDS = 1.0


def main() -> None:
    """Run the three parts and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="of the backlog")
    parser.add_argument("--burst", type=int, default=10_000, help="files dropped at once into the running watcher")
    parser.add_argument("--stay", type=int, default=100_000, help="files that stay in the inbox")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {asked.files:,} files")
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        backlog(Path(name) / "moved", asked.files, asked.burst)
        staying(Path(name) / "kept", asked.stay)


def backlog(folder: Path, files: int, burst: int) -> None:
    """Files that were there before the start, and then a burst."""
    configured(folder)
    drop(folder / "inbox", range(files))
    with Watcher(folder) as watcher:
        first = watcher.until(lambda: watcher.recorded() > 0)
        begun, ready = first - watcher.started_at, first - watcher.ready_at
        print(f"first result {ready:.1f} s after it was ready, {begun:.1f} s after its start")
        done = steady(watcher, files)
        print(f"all {files:,} recorded after {done:.0f} s: {files / done:.0f} files a second")
        watcher.until(lambda: not any(Tree(folder / "inbox").walk()))
        began = time.monotonic()
        drop(folder / "inbox", range(files, files + burst))
        dropped = time.monotonic() - began
        end = watcher.until(lambda: watcher.recorded() == files + burst)
        print(f"burst of {burst:,} (dropped in {dropped:.1f} s): all recorded {end - began:.0f} s after its first file")
        print(f"missed: {files + burst - watcher.recorded()}, recorded twice: {watcher.repeated()}")


def steady(watcher: "Watcher", files: int) -> float:
    """Wait for the backlog, and print flow, memory and answers to `/predict` for each tenth of it."""
    print("| recorded | files a second | memory of the watcher, MB | with its workers, MB | /predict p50, p95, ms |")
    print("|---|---|---|---|---|")
    began = last = time.monotonic()
    before, latencies = 0, [watcher.predict() for _ in range(5)]
    for tenth in range(1, 11):
        while watcher.recorded() < files * tenth // 10:
            latencies.append(watcher.predict())
            time.sleep(SAMPLE_SECONDS)
        count, now = watcher.recorded(), time.monotonic()
        own, all_of_it = watcher.memory()
        answers = f"{statistics.median(latencies):.0f}, {np.percentile(latencies, 95):.0f}"
        flow = (count - before) / (now - last)
        print(f"| {count:,} | {flow:.0f} | {own:.0f} | {all_of_it:.0f} | {answers} |", flush=True)
        before, last, latencies = count, now, [watcher.predict()]
    return time.monotonic() - began


def staying(folder: Path, files: int) -> None:
    """An inbox whose files stay (`filing.processed: keep`): what it costs to look at them again and again."""
    configured(folder, filing={"processed": "keep"})
    drop(folder / "inbox", range(files))
    began = time.perf_counter()
    count = sum(1 for _ in Tree(folder / "inbox").walk())
    print(f"one listing of {count:,} files: {time.perf_counter() - began:.2f} s")
    with Watcher(folder) as watcher:
        watcher.until(lambda: watcher.recorded() == files)
        before = watcher.cpu_seconds()
        time.sleep(60)
        busy = (watcher.cpu_seconds() - before) / 60
        own, _ = watcher.memory()
        print(f"with {files:,} files that stay, idle: {busy:.1%} of a core, {own:.0f} MB")
        print(f"recorded twice: {watcher.repeated()}")


def configured(folder: Path, **sections: dict[str, object]) -> None:
    """A folder with settings and a small untrained network."""
    folder.mkdir()
    torch.manual_seed(7)
    weights = folder / "small.pth"
    torch.save(Network(ARCHITECTURE).body.state_dict(), weights)
    Card(
        name="small",
        version="0",
        architecture=ARCHITECTURE,
        input=Input(size=32),
        calibration=Calibration(slope=1.0, intercept=0.0),
        threshold=Threshold(value=0.5, chosen="not chosen"),
        sha256=digest(weights),
    ).save(weights)
    golden.write(weights)
    model = {"weights": str(weights), "heatmaps": "none", "device": "cpu", "batch_size": 64}
    settings = {"model": model, "web": {"port": 0}, "logging": {"level": "warning"}} | sections
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def drop(inbox: Path, numbers: range) -> None:
    """Write distinct pictures into folders of a thousand."""
    base = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    for number in numbers:
        folder = inbox / f"{number // 1000:04}"
        if number % 1000 == 0 or not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
        pixels = base.copy()
        pixels[0, :4] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        (folder / f"{number}.png").write_bytes(buffer.getvalue())


class Watcher:
    """`fracture-watch run` in a folder, as a process of its own; it is asked about `picture`, or one of the inbox."""

    def __init__(self, folder: Path, picture: bytes | None = None) -> None:
        self._folder = folder
        self._picture = picture or next((folder / "inbox").rglob("*.png")).read_bytes()

    def __enter__(self) -> "Watcher":
        self.started_at = time.monotonic()
        self._log = (self._folder / "log").open("wb")
        command = [sys.executable, "-m", "fracture_watch", "run", "--config", str(self._folder / "config.yaml")]
        environment = os.environ | {"FRACTURE_WATCH__LOGGING__LEVEL": "info"}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        self._page = self._found_page()
        self.ready_at = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()

    def _found_page(self) -> str:
        while True:
            text = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
            for word in text.split():
                if word.startswith("http://"):
                    return word
            if self._process.poll() is not None:
                raise SystemExit(text)
            time.sleep(0.05)

    def until(self, condition: Callable[[], bool]) -> float:
        """Wait for it; gives back the time (monotonic)."""
        while not condition():
            if self._process.poll() is not None:
                raise SystemExit((self._folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:])
            time.sleep(0.1)
        return time.monotonic()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"file:{self._folder / 'fracture_watch.db'}?mode=ro", uri=True)
        try:
            yield connection
        finally:
            connection.close()

    def recorded(self) -> int:
        """The number of the newest row; rows are never removed here."""
        with self._database() as connection:
            return connection.execute("SELECT coalesce(max(id), 0) FROM file").fetchone()[0] or 0

    def repeated(self) -> int:
        """Files with more than one row."""
        with self._database() as connection:
            found = connection.execute("SELECT count(*) - count(DISTINCT source_path) FROM file").fetchone()[0]
            return int(found)

    def predict(self) -> float:
        """Milliseconds of one answer."""
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        question = urllib.request.Request(f"{self._page}predict", head + self._picture + b"\r\n--b--\r\n", headers)
        began = time.perf_counter()
        with urllib.request.urlopen(question, timeout=60) as answer:
            json.loads(answer.read())
        return (time.perf_counter() - began) * 1000

    def get(self, path: str) -> float:
        """Milliseconds of one page."""
        began = time.perf_counter()
        with urllib.request.urlopen(f"{self._page.rstrip('/')}{path}", timeout=60) as answer:
            answer.read()
        return (time.perf_counter() - began) * 1000

    def memory(self) -> tuple[float, float]:
        """Resident memory in MB: of the watcher, and with its workers (pages that they share are counted for each)."""
        own = _resident(self._process.pid)
        return own, own + sum(map(_resident, _children(self._process.pid)))

    def cpu_seconds(self) -> float:
        """Processor time of the watcher and its workers so far."""
        ticks = 0
        for pid in (self._process.pid, *_children(self._process.pid)):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]


if __name__ == "__main__":
    main()
