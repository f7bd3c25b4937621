"""Files for a daemon that is killed again and again, and what must be true of them in the end."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from tests.conftest import REPOSITORY, png
from tests.dicoms import dicom

LEAN = "tests.crash.start"
WHOLE = "fracture_watch"


@dataclass
class Verdict:
    """What was found in the end."""

    kills: int = 0
    files: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    places: Counter = field(default_factory=Counter)


class World:
    """An inbox that is filled, and a daemon over it that dies."""

    def __init__(self, folder, config, seed, processed="move", bug=""):
        self.folder = folder
        self.config = config
        self.processed = processed
        self.bug = bug
        self.random = random.Random(seed)
        self.contents = {}  # path in the inbox -> content
        self.kills = 0
        self.places = Counter()

    def fill(self, count):
        """Distinct pictures and DICOM files, copies of earlier ones, and junk, some in folders."""
        for _ in range(count):
            number = len(self.contents)
            kind = self.random.choices(("png", "dicom", "copy", "junk"), (70, 10, 10, 10))[0]
            if kind == "copy" and self.contents:
                content = self.random.choice(list(self.contents.values()))
            elif kind == "dicom":
                content = dicom(np.full((24, 16), number % 4096, np.uint16), seed=number)
            elif kind == "junk":
                content = f"text {number}".encode()
            else:
                content = png(number, 24, 16)
            folder = self.folder / "inbox" / self.random.choice(("", "", "study", "study/series"))
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{number}.bin"
            temporary = self.folder / "arriving"
            temporary.write_bytes(content)
            temporary.rename(path)
            self.contents[path] = content

    def start(self, crossing, module=LEAN):
        arguments = ["watch", "--config", self.config] if module == WHOLE else [self.config, str(crossing), self.bug]
        log = (self.folder / "log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments], cwd=REPOSITORY, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def killed_at_a_crossing(self, most):
        """Run until a crossing of a random number; without so many, kill it when there is nothing left to do."""
        process = self.start(self.random.randint(1, most))
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline and not self.is_done():
            time.sleep(0.05)
        self.kill(process)

    def killed_after(self, seconds, module=LEAN):
        process = self.start(0, module)
        time.sleep(seconds)
        self.kill(process)

    def kill(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        assert status == -signal.SIGKILL, (status, self.said())
        self.kills += 1

    def said(self):
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def finish(self):
        """Let it end its work, and stop it as systemd would."""
        process = self.start(0)
        deadline = time.monotonic() + 120
        while not self.is_done():
            assert process.poll() is None, self.said()
            assert time.monotonic() < deadline, (self.left(), self.said())
            time.sleep(0.1)
        time.sleep(0.5)
        process.terminate()
        assert process.wait(30) == 0, self.said()

    def left(self):
        inbox = self.folder / "inbox"
        return [p for p in inbox.rglob("*") if p.is_file() and not p.name.startswith(".")]

    def is_done(self):
        if self.processed != "keep":
            return not self.left()
        return {path for path, *_ in self.rows()} == set(map(str, self.contents))

    def rows(self):
        database = self.folder / "fracture_watch.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            try:
                return connection.execute("SELECT source_path, status, sha256, filed_path, code FROM file").fetchall()
            except sqlite3.OperationalError:  # not migrated yet
                return []

    def verdict(self):
        """Every file has one row and is in one place; every content has one result."""
        found = Verdict(self.kills, len(self.contents))
        rows = self.rows()
        counts = Counter(path for path, *_ in rows)
        for path, content in self.contents.items():
            count = counts.pop(str(path), 0)
            if count > 1:
                found.repeated.append(f"{path}: {count} rows")
            if count == 0:
                found.lost.append(f"{path}: no row")
            self._look_at(path, content, [row for row in rows if row[0] == str(path)], found)
        found.wrong += [f"{path}: a row of no file" for path in counts]
        results = Counter(digest for _, status, digest, *_ in rows if status == "classified")
        found.repeated += [f"{digest}: {count} results" for digest, count in results.items() if count > 1]
        found.wrong += self._things_that_must_not_be()
        found.places = Counter(re.findall(r"killed at (\w+ \w+)", (self.folder / "log").read_text(errors="replace")))
        return found

    def _look_at(self, path, content, rows, found):
        places = [place for place in self._places(path) if place.is_file() and place.read_bytes() == content]
        named = [Path(row[3]) for row in rows if row[3]]
        junk = content.startswith(b"text ")
        if self.processed == "delete" and not junk:
            if path.exists():
                found.wrong.append(f"{path}: is not deleted")
            return
        if not any(place.is_file() and place.read_bytes() == content for place in named):
            (found.wrong if places else found.lost).append(f"{path}: is not at {named}, but at {places}")
        if self.processed == "move" and path.exists():
            found.repeated.append(f"{path}: is still in the inbox")
        for place in named if junk else ():
            slip = json.loads(place.with_name(f"{place.name}.json").read_text())
            if (slip["status"], slip["sha256"]) != ("rejected", sha256(content).hexdigest()):
                found.wrong.append(f"{place}: its sidecar says {slip}")

    def _places(self, path):
        relative = path.relative_to(self.folder / "inbox")
        return [path, *(root / relative for root in self.roots())]

    def roots(self):
        return [self.folder / "processed", self.folder / "quarantine"]

    def _things_that_must_not_be(self):
        """Unfinished copies, files without a row, a database that is not whole."""
        named = {row[3] for row in self.rows()}
        for root in self.roots():
            for path in root.rglob("*") if root.exists() else ():
                slip = path.suffix == ".json" and str(path.with_suffix("")) in named
                if path.is_file() and str(path) not in named and not slip:
                    yield f"{path}: nothing says why it is there"
        with closing(sqlite3.connect(self.folder / "fracture_watch.db")) as connection:
            for pragma in ("integrity_check", "foreign_key_check"):
                answer = connection.execute(f"PRAGMA {pragma}").fetchall()
                if answer not in ([("ok",)], []):
                    yield f"{pragma}: {answer}"
            if connection.execute("SELECT count(*) FROM file WHERE NOT filed").fetchone()[0]:
                yield "a row says that its file is not in its place yet"
