"""``make demo``: drawn studies through a throw-away inbox of the real daemon."""

import argparse
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from demo import phantoms

WEIGHTS = Path(__file__).parents[1] / "saved_models" / "fracture_best_model.pth"
STUDIES = {1: False, 10: True, 4: False, 9: True, 14: False, 11: True}  # seed: with a fracture drawn in it
EXPECTED = {"classified": 2 * len(STUDIES) + 1, "rejected": 1}
_PROGRAM = [sys.executable, "-m", "fracture_watch"]
# Without the user's own settings: FRACTURE_WATCH__INBOX__PATH would send the phantoms into the real inbox.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FRACTURE_WATCH__")}


class DemoFailed(Exception):
    """What went wrong, for a person."""


def main() -> int:
    """Run the demonstration: 0 if every file came out as it should, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m demo.run", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the .pth; its card is the .yaml beside it")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long it may take (%(default)g)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the daemon and the folder do not outlive this
    folder = Path(tempfile.mkdtemp(prefix="fw-demo-"))
    try:
        _demonstrate(folder, options.weights.absolute(), time.monotonic() + options.seconds)
    except DemoFailed as error:
        sys.stderr.write(f"\nThe demo failed: {error}\n{_end_of_log(folder)}")
        return 1
    finally:
        if options.keep:
            print(f"\nKept: {folder} (look at processed/, quarantine/, artefacts/, fracture_watch.db, daemon.log)")
        else:
            shutil.rmtree(folder)
    return 0


def _demonstrate(folder: Path, weights: Path, deadline: float) -> None:
    config = _write_config(folder, weights)
    print("The pictures of this demo are drawn phantoms, not radiographs of anyone.")
    print(f"Starting: fracture-watch run --config {config}")
    with _daemon(folder, config) as daemon:
        samples = _draw_samples(folder / "drawn")
        _wait("the daemon to make its inbox", (folder / "inbox").is_dir, daemon, deadline)
        total = sum(EXPECTED.values())
        print(f"Dropping {len(STUDIES)} drawn studies of two views, a PNG and a text file into {folder / 'inbox'}")
        for sample in samples:
            sample.rename(folder / "inbox" / sample.name)
        database = folder / "fracture_watch.db"
        _wait(f"{total} rows in {database}", lambda: sum(_statuses(database).values()) >= total, daemon, deadline)
    print("The daemon was stopped with SIGTERM and ended cleanly.\n")
    _show(config, database)
    found = _statuses(database)
    if found != EXPECTED:
        raise DemoFailed(f"the files should have come out as {EXPECTED}, but came out as {dict(found)}")


def _write_config(folder: Path, weights: Path) -> Path:
    """Everything beside the config file, so that one folder is all there is to delete."""
    config = folder / "config.yaml"
    settings = {
        "inbox": {"path": "inbox", "settle_seconds": 1.0},
        "filing": {"processed_dir": "processed", "quarantine_dir": "quarantine", "artefacts_dir": "artefacts"},
        "model": {"weights": str(weights)},
        "database": {"url": "sqlite:///fracture_watch.db"},
        "web": {"port": 0},
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return config


def _draw_samples(folder: Path) -> list[Path]:
    """One folder a study, and two loose files; they are moved into the inbox as an export would arrive."""
    for seed, fractured in STUDIES.items():
        phantoms.study(seed, fractured, folder / f"{seed}-{'fractured' if fractured else 'whole'}")
    center, width = phantoms.WINDOW
    shown = np.clip((phantoms.draw(21, True) - (center - width / 2)) / width, 0, 1) * 255
    Image.fromarray(shown.astype(np.uint8)).save(folder / "fractured.png")
    (folder / "readme.txt").write_text("This is no image, so it is rejected with a reason.\n", encoding="utf-8")
    return sorted(folder.iterdir())


@contextmanager
def _daemon(folder: Path, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "daemon.log").open("wb") as log:
        command = [*_PROGRAM, "run", "--config", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_ENVIRONMENT)
        try:
            yield process
        finally:
            status = _stop(process)
    if status != 0:
        raise DemoFailed(f"the daemon ended with status {status}")


def _stop(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.wait()
        raise DemoFailed("the daemon did not stop within 60 s of SIGTERM") from error


def _wait(
    what: str, is_done: Callable[[], bool], daemon: "subprocess.Popen[bytes]", deadline: float, pause: float = 0.2
) -> None:
    while not is_done():
        if daemon.poll() is not None:
            raise DemoFailed(f"the daemon ended with status {daemon.returncode} while this waited for {what}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"the time was up while this waited for {what}; --seconds gives it more")
        time.sleep(pause)


def _statuses(database: Path) -> Counter[str]:
    """How many rows have which status, asked as any SQLite client would; none before the daemon has made the view."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return Counter(dict(connection.execute("SELECT status, count(*) FROM results GROUP BY status")))
    except sqlite3.OperationalError:
        return Counter()


def _show(config: Path, database: Path) -> None:
    print("fracture-watch results:", flush=True)
    if subprocess.run([*_PROGRAM, "results", "--config", str(config)], check=False, env=_ENVIRONMENT).returncode != 0:
        raise DemoFailed("fracture-watch results did not work")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = "SELECT heatmap_path FROM results WHERE heatmap_path IS NOT NULL ORDER BY probability DESC LIMIT 1"
        row = connection.execute(query).fetchone()
    if row and not Path(row[0]).is_file():
        raise DemoFailed(f"the database names the heat map {row[0]}, which is not there")
    print(
        f"A heat map (--keep keeps it): {row[0]}"
        if row
        else "No file was predicted fractured, so there is no heat map."
    )
    print(
        "The pictures are drawn phantoms. The model learnt from real radiographs, so its predictions here, right or "
        "wrong,\nmean nothing medically; they only show that files travel from the inbox to the database."
    )


def _end_of_log(folder: Path, lines: int = 15) -> str:
    log = folder / "daemon.log"
    if not log.exists():
        return ""
    end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(["The end of the daemon's log:", *end, ""])


if __name__ == "__main__":
    sys.exit(main())
