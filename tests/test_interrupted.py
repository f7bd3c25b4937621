"""Scans of an archive that are killed and interrupted: what is recorded is never opened again.

A decoding opens its file once, and nothing else in a scan opens one, so the kernel counts the decodings.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from watchdog.events import FileOpenedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

from fracture_watch.engine.local import LocalEngine
from tests.conftest import png, write_config

FILES, BATCH = 120, 4
IN_HAND = (LocalEngine.ahead + 1) * BATCH  # files that are begun and not recorded, at most

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts with inotify")


class _Openings(FileSystemEventHandler):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileOpenedEvent):
            self.counts[Path(str(event.src_path)).name] += 1


@contextmanager
def openings(folder: Path) -> Iterator[Counter[str]]:
    """How often each file is opened meanwhile."""
    seen, observer = _Openings(), InotifyObserver()
    observer.schedule(seen, str(folder), recursive=True)
    observer.start()
    try:
        yield seen.counts
        time.sleep(0.5)  # what the kernel has told and nobody has read yet
    finally:
        observer.stop()
        observer.join()


def recorded(folder: Path) -> Counter[str]:
    try:
        with closing(sqlite3.connect(f"file:{folder}/fracture_watch.db?mode=ro", uri=True)) as connection:
            return Counter(Path(path).name for (path,) in connection.execute("SELECT source_path FROM results"))
    except sqlite3.OperationalError:
        return Counter()


def scan(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fracture_watch", "scan", "archive", "--json"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def interrupted(folder: Path, at: int, number: int) -> tuple[str, str]:
    """A scan that gets a signal once so many files are recorded."""
    process = scan(folder)
    deadline = time.monotonic() + 60
    while recorded(folder).total() < at and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate(timeout=60)


def test_a_scan_that_is_killed_and_interrupted_decodes_nothing_twice_that_it_recorded(tmp_path, weights):
    write_config(tmp_path, weights, model={"batch_size": BATCH})
    archive = tmp_path / "archive"
    archive.mkdir()
    for number in range(FILES):  # a third is for no model, and some are broken: they count as recorded, too
        content = [png(number), b"no picture", png(number), png(number), png(number)[:200], png(number)][number % 6]
        (archive / f"{number:03}").write_bytes(content)
    total: Counter[str] = Counter()
    for at, number in ((30, signal.SIGKILL), (60, signal.SIGINT)):
        before = recorded(tmp_path)
        with openings(archive) as opened:
            _, said = interrupted(tmp_path, at, number)
        after = recorded(tmp_path)
        assert at <= after.total() < FILES
        assert not opened.keys() & before.keys()
        lost = opened.keys() - after.keys()
        assert len(lost) <= (IN_HAND if number == signal.SIGKILL else 0)  # Ctrl-C lets it record what is in hand
        total += opened
    assert "interrupted: what is recorded stays" in said
    assert "Traceback" not in said

    with openings(archive) as opened:
        process = scan(tmp_path)
        out, _ = process.communicate(timeout=60)
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert summary["skipped"] == after.total()
    assert not opened.keys() & after.keys()
    assert recorded(tmp_path) == Counter(path.name for path in archive.iterdir())
    total += opened
    print(f"{FILES} files, {total.total()} decodings, of them {total.total() - FILES} again")
    assert FILES <= total.total() <= FILES + IN_HAND
    assert process.returncode == 1  # some of the last ones are broken
