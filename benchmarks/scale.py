"""``python -m benchmarks.scale``: the capacity plan of docs/scale.md, from what is measured here.

Measured: files per second of one core; files per second that one driver lists, passes over and records; bytes of a
row. Computed from that: hours, cores and database for 1, 10 and 100 million files. Simulated, and named so: how busy
many more workers than there are here would be.
"""

import argparse
import heapq
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.archive import build
from benchmarks.bench import SMALL, machine, write_inputs
from benchmarks.engines import files_a_second
from fracture_watch.intake.tree import Tree, scan
from fracture_watch.outcomes import Classified, Outcome
from fracture_watch.pipeline import batches
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, SourceFile
from fracture_watch.results.database import Database
from fracture_watch.results.store import Store
from fracture_watch.service import Service, in_place
from fracture_watch.stages import Measure

BATCHES = 16, 256  # model.batch_size: files of a transaction
MODEL = ModelFacts("drawn", "1", "fedcba9876543210")
MILLIONS = 1, 10, 100
CORES = 2, 16, 64, 256
KINDS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("small JPEG, one view, OpenVINO", SMALL, {"views": "whole", "runtime": "openvino"}),
    ("DICOM 3000 x 2500 JPEG Lossless, seven views, torch", "JPEG Lossless", {}),
    ("DICOM 3000 x 2500 JPEG Lossless, one view, OpenVINO", "JPEG Lossless", {"views": "whole", "runtime": "openvino"}),
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Files per second, and how many milliseconds of a core one took: the others were waits, as for a busy machine."""

    rate: float
    milliseconds: float


class Instant:
    """An engine whose answers cost nothing, so that all that is left is the driver's own work."""

    ahead = 2

    def submit(self, batch: Sequence[SourceFile], measure: Measure) -> Future[list[Outcome]]:
        """Every file is new, belongs to a study of three, and is not fractured."""
        future: Future[list[Outcome]] = Future()
        future.set_result([_drawn(source) for source in batch])
        return future


def main() -> None:
    """Measure, compute and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--files", type=int, default=48, help="pictures of each kind, classified by one core")
    parser.add_argument("--entries", type=int, default=20_000, help="files that are listed and recorded")
    parser.add_argument("--rows", type=int, default=300_000, help="results that the database has before")
    asked = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    paces = {}
    with tempfile.TemporaryDirectory(prefix="fw-scale-") as name:
        listed, recorded, skipped, size = drive(Path(name), asked.entries, asked.rows)
        print(f"\nMeasured\n\n| what | rate |\n|---|---|\n| listing | {listed:,.0f} files/s |")
        at_once = f"{BATCHES[-1]} at a time"
        print(f"| passing over what is recorded, listing included, {at_once} | {skipped:,.0f} files/s |")
        for count, pace in recorded.items():
            used = f"{pace.rate:,.0f} files/s, {pace.milliseconds:.2f} ms of a core for each"
            print(f"| recording, listing included, {count} in a transaction | {used} |")
        print(f"| the database | {size:,.0f} bytes a row, indexes included |")
        one_core()
        for label, kind, model in KINDS:
            folder = Path(name) / label
            folder.mkdir()
            write_inputs(folder, kind, asked.files // 3)
            paces[label] = files_a_second(folder / "many", model=model, imaging={"workers": 1})
            print(f"| one core: {label} | {paces[label]:.2f} files/s |", flush=True)
    print("\nComputed from that: hours\n")
    plan(paces, recorded[BATCHES[0]].rate, size)
    print("\nAn interrupted scan of a million files passes over what it has in " + _time(1e6 / skipped))
    simulate(min(paces.values()), recorded[BATCHES[0]].rate)


def drive(folder: Path, entries: int, rows: int) -> tuple[float, dict[int, Pace], float, float]:
    """Files per second listed, recorded by the size of a transaction, passed over; bytes of a row."""
    archive = folder / "entries"
    for number in range(entries):
        path = archive / f"{number // 1000}" / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    began = time.perf_counter()
    count = sum(1 for _ in scan(Tree(archive)))
    listed = count / (time.perf_counter() - began)
    recorded: dict[int, Pace] = {}
    for batch in BATCHES:
        file = folder / f"{batch}.db"
        database = Database(f"sqlite:///{file}")
        build(database, rows)
        store = Store(database, MODEL)
        service = Service(Instant(), store, store.settled)
        recorded[batch] = _pace(service, archive, batch)
        skipped = _pace(service, archive, batch).rate
        database.close()
    with sqlite3.connect(file) as connection:
        pages, page = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
        [total] = connection.execute("SELECT count(*) FROM file").fetchone()
    return listed, recorded, skipped, pages * page / total


def _pace(service: Service, archive: Path, batch: int) -> Pace:
    """Of a scan whose results cost nothing; without its first batch, which counts all studies anew."""
    processed = service.process(batches(scan(Tree(archive)), batch), in_place)
    next(processed)
    began, used = time.perf_counter(), time.process_time()
    count = sum(len(done.batch) for done in processed)
    seconds = time.perf_counter() - began
    return Pace(count / seconds, (time.process_time() - used) * 1000 / count)


def one_core() -> None:
    """From here on this process, and what it starts, has one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def plan(paces: dict[str, float], recorded: float, size: float) -> None:
    """Hours by the number of files and cores; what bounds them."""
    print("| files | database | " + " | ".join(f"{cores} cores" for cores in CORES) + " | recording alone |")
    print("|---" * (len(CORES) + 3) + "|")
    for label, pace in paces.items():
        for millions in MILLIONS:
            files = millions * 1e6
            cells = [_time(files / min(pace * cores, recorded)) for cores in CORES]
            room, alone = files * size / 1e9, _time(files / recorded)
            print(f"| {millions} million, {label} | {room:,.1f} GB | {' | '.join(cells)} | {alone} |")
    for label, pace in paces.items():
        print(f"\nFrom {recorded / pace:,.0f} cores on, {label}: the driver's database bounds it.")


@dataclass(frozen=True, slots=True)
class Simulation:
    """``threads`` workers of one thread, a driver, two batches in flight for each; times are drawn."""

    threads: int
    compute: float
    record: float
    in_order: bool
    seed: int = 1

    def busy(self, batch_count: int) -> float:
        """The share of the workers' time in which they compute."""
        dice = random.Random(self.seed)
        durations = [dice.lognormvariate(0, 0.3) * self.compute for _ in range(batch_count)]
        for number in range(500, batch_count * 3 // 4, 1000):
            durations[number] = 600.0  # one in a thousand batches waits for decoders until they are killed
        free = [0.0] * self.threads
        ends: dict[int, float] = {}
        begun, clock = 0, 0.0
        for _ in range(batch_count):
            while begun < batch_count and len(ends) < 2 * self.threads:
                start = max(heapq.heappop(free), clock)
                ends[begun] = start + durations[begun]
                heapq.heappush(free, ends[begun])
                begun += 1
            first = min(ends) if self.in_order else min(ends, key=lambda number: ends[number])
            clock = max(clock, ends.pop(first)) + self.record
        return sum(durations) / (self.threads * max(clock, *free))


def simulate(pace: float, recorded: float) -> None:
    """Print the share of busy workers."""
    compute, record = BATCHES[0] / pace, BATCHES[0] / recorded
    print("\nSimulated: the share of the time in which workers compute.")
    print(f"A batch takes {compute:.1f} s, its record {record * 1000:.1f} ms; one batch in a thousand takes 600 s.")
    print("\n| threads | recorded as they are done | recorded in order |\n|---|---|---|")
    for threads in (2, 16, 64):
        cells = [f"{Simulation(threads, compute, record, order).busy(400 * threads):.0%}" for order in (False, True)]
        print(f"| {threads} | {' | '.join(cells)} |")


def _drawn(source: SourceFile) -> Outcome:
    number = source.inode
    facts = Facts(f"P{number // 6}", f"1.2.3.{number // 3}", f"1.2.3.{number // 3}.1", f"1.2.3.{number}", modality="DX")
    return Classified(f"{number:064x}", facts, Prediction(Label.NOT_FRACTURED, 0.01, 0.5, MODEL))


def _time(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 360_000 else f"{seconds / 86400:,.0f} days"


if __name__ == "__main__":
    main()
