"""The pages on a database of a million results, and while 5,000 files arrive: milliseconds of an answer over HTTP.

    python -m benchmarks.pages

A real `fracture-watch run` with the shipped weights, on a drawn archive. `--database FILE` is copied and used, and is
drawn first where it is missing. The files that arrive are PNGs of 48 x 48 pixels; meanwhile one reader looks at the
worklist anew every quarter of a second, more often than the page itself does, and opens results.
"""

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import yaml

from benchmarks.archive import DAYS, FIRST, build
from benchmarks.endurance import Watcher, drop
from fracture_watch.results.database import Database

ROOT = Path(__file__).parents[1]
_PAST, _LAST = ((FIRST + timedelta(days=day)).date() for day in (DAYS // 2, DAYS - 1))
PAGES = {
    "worklist": "/",
    "worklist, not fractured": "/?prediction=not+fractured",
    "worklist, modality": "/?modality=DX",
    "worklist, body part": "/?body_part=HIP",
    "worklist, the latest day": f"/?since={_LAST}",
    "worklist, a past day": f"/?since={_PAST}&until={_PAST}",
    "worklist, thirty past days": f"/?since={_PAST - timedelta(days=29)}&until={_PAST}",
    "worklist, a past year": f"/?since={FIRST.date()}&until={FIRST.date() + timedelta(days=364)}",
    "worklist, a past day, body part": f"/?since={_PAST}&until={_PAST}&body_part=HIP",
    "worklist, a patient": "/?q=P000123",
    "problems": "/problems?status=rejected",
    "accuracy": "/accuracy",
    "a result": "/files/500000",
}


def main() -> None:
    """Build, ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", type=Path, help="keep it here; by default it is built in a temporary folder")
    parser.add_argument("--files", type=int, default=5000, help="that arrive")
    parser.add_argument("--seconds", type=float, default=20, help="for which pages are asked for while they do")
    parser.add_argument("--repeats", type=int, default=9, help="of each page; the median counts")
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"model": {"weights": str(asked.weights.resolve())}, "web": {"port": 0}}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        _database(asked.database, asked.rows, folder / "fracture_watch.db")
        drop(folder / "samples", range(asked.files))
        (folder / "inbox").mkdir()
        with Watcher(folder, (folder / "samples" / "0000" / "0.png").read_bytes()) as watcher:
            watcher.predict()  # the workers start with the first
            print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {asked.rows:,} rows\n")
            print("| page | ms, median | most |\n|---|---|---|")
            for title, path in PAGES.items():
                times = [watcher.get(path) for _ in range(asked.repeats)]
                print(f"| {title} | {statistics.median(times):.0f} | {max(times):.0f} |", flush=True)
            _while_files_arrive(watcher, folder, asked.seconds)


def _database(kept: Path | None, rows: int, target: Path) -> None:
    source = kept or target
    if not source.exists():
        database = Database(f"sqlite:///{source}")
        build(database, rows)
        database.close()
    if kept:
        shutil.copy(kept, target)


def _while_files_arrive(watcher: Watcher, folder: Path, seconds: float) -> None:
    pages = {"worklist": lambda: watcher.get("/"), "a result": lambda: watcher.get("/files/500000")}
    idle = {title: _asked(get, seconds / 4) for title, get in pages.items()}
    before = watcher.recorded()
    (folder / "samples").rename(folder / "inbox" / "arriving")
    watcher.until(lambda: watcher.recorded() > before)
    busy = {title: _asked(get, seconds / 2) for title, get in pages.items()}
    print(f"\n{watcher.recorded() - before:,} of the files were recorded meanwhile.\n")
    print("| page | idle p50, ms | p95 | while files arrive p50 | p95 |\n|---|---|---|---|---|")
    for title in pages:
        figures = [f"{np.percentile(times, part):.0f}" for times in (idle[title], busy[title]) for part in (50, 95)]
        print(f"| {title} | {' | '.join(figures)} |")


def _asked(get: Callable[[], float], seconds: float) -> list[float]:
    """Milliseconds of every answer, four questions a second."""
    until, times = time.monotonic() + seconds, []
    while time.monotonic() < until:
        times.append(get())
        time.sleep(0.25)
    return times


if __name__ == "__main__":
    main()
