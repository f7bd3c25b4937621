"""Files for a daemon that is killed again and again."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from fracture_watch.assembly import tree
from fracture_watch.config import load_settings
from tests.conftest import REPOSITORY, png
from tests.crash.tap import read_journal
from tests.dicoms import dicom

_COLUMNS = "id, source_path, status, code, sha256, filed_path, filed, heatmap_path, model_id"
_ALONE = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Server:
    """Forks daemons, so that a start costs milliseconds."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.start", "serve"],
            cwd=REPOSITORY, env=_ALONE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, **order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)


class Forked:
    """A daemon of the server's."""

    def __init__(self, server, order):
        self._server = server
        self.pid = server.ask(**order)

    def wait(self, seconds):
        return self._server.ask(wait=self.pid, seconds=seconds)


class Whole:
    """The whole program, as a person starts it."""

    def __init__(self, order):
        environment = {**_ALONE, "CRASH_JOURNAL": order["journal"], "CRASH_AT": order["at"]}
        with open(order["log"], "ab") as log:  # noqa: PTH123
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.start", "whole", "watch", "--config", order["config"]],
                cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def wait(self, seconds):
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)


class World:
    """An inbox that is filled, and daemons over it that die."""

    def __init__(self, server, folder, config, seed, filing, roots, bug=""):
        self.folder, self.config, self.bug = folder, config, bug
        self.inbox = folder / "inbox"
        self.roots = roots
        self.processed = filing.get("processed", "move")
        self.receipts = filing.get("receipts", False)
        self.random = random.Random(seed)
        self.contents = {}  # path in the inbox -> content
        self._named = tree(load_settings(config, {}), self.inbox).source
        self._aliases = {}  # what a row says instead of a path -> that path
        self.kills = 0
        self.hits = Counter()  # crossing -> kills there
        self.nowhere = []
        self._server = server
        self._orphans = []

    # Files

    def fill(self, pictures=1, junk=1, copies=0):
        """Distinct pictures and DICOM files, copies of earlier ones, and junk, some in folders."""
        for _ in range(pictures):
            number = len(self.contents)
            kind = self.random.choice(("png", "png", "dicom", "named like a slip"))
            if kind == "dicom":
                self._drop(f"{number}.dcm", dicom(np.full((24, 16), number % 4096, np.uint16), seed=number))
            elif kind == "named like a slip":
                self._drop(f"{number}.png", png(number, 24, 16))
                self._drop(f"{number}.png.json", png(number + 100_000, 24, 16))
            else:
                self._drop(f"é {number}.png", png(number, 24, 16))
        for _ in range(junk):
            number = len(self.contents)
            self._drop(f"{number}.txt", f"text {number}".encode())
            if self.random.random() < 0.3:
                self._drop(f"{number}.txt.json", f"text {number} of a slip's name".encode())
        for _ in range(copies if self.contents else 0):
            self._drop(f"{len(self.contents)}.copy", self.random.choice(list(self.contents.values())))

    def drop_pair(self, number):
        """Two junk files, one of which has the name of the other's sidecar, in this order or the other."""
        for name in (f"{number}.txt", f"{number}.txt.json")[:: 1 if number % 2 else -1]:
            self._drop(name, f"text {name}".encode())

    def _drop(self, name, content):
        """Renamed in; siblings that are named alike lie in the same folder."""
        folder = self.inbox / ("", "", "study", "study/series")[int(name.split(".")[0].split(" ")[-1]) % 4]
        folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "arriving"
        temporary.write_bytes(content)
        facts = temporary.stat()
        path = folder / name
        self.contents[path] = content
        temporary.rename(path)
        self._aliases[self._named(path, facts).name] = path

    # Lives and deaths

    def start(self, at="", whole=False, workers=0):
        order = {"config": str(self.config), "at": at, "bug": self.bug, "workers": workers}
        order |= {"journal": str(self.folder / "journal"), "log": str(self.folder / "log")}
        return Whole(order) if whole else Forked(self._server, order)

    def killed_at(self, crossing, seconds=6.0, **how):
        """Whether it came to the crossing and died of it; else it is killed when nothing is left to do."""
        process = self.start(crossing, **how)
        deadline = time.monotonic() + seconds
        status = process.wait(0.05)
        while status is None and time.monotonic() < deadline and not self.is_done():
            status = process.wait(0.05)
        if status is None:
            status = process.wait(0.8)  # what it does when the work is done, such as removing folders
        self._kill(process, status)
        reached = status is not None
        self.hits[crossing.partition("#")[0]] += reached
        return reached

    def killed_after(self, seconds, **how):
        process = self.start(**how)
        self._kill(process, process.wait(seconds))

    def _kill(self, process, status):
        """What is left of it lives on into the next life, where that is drawn."""
        if status is None:
            os.kill(process.pid, signal.SIGKILL)
            status = process.wait(10)
        assert status == -signal.SIGKILL, (status, self.said())
        self.kills += 1
        self._orphans.append(process.pid)
        if self.random.random() < 0.5:
            self.clear_orphans()
        self._look_for_everything()

    def clear_orphans(self):
        while self._orphans:
            with suppress(ProcessLookupError):
                os.killpg(self._orphans.pop(), signal.SIGKILL)

    def live(self, until=None, **how):
        """One life with a good end: it does all there is to do, and is stopped as systemd would."""
        process = self.start(**how)
        deadline = time.monotonic() + 60
        while not (until or self.is_done)():
            status = process.wait(0.1)
            assert status is None, (status, self.said())
            assert time.monotonic() < deadline, (self.left(), self.said())
        process.wait(0.6)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0, self.said()
        self.clear_orphans()

    # What is there

    def said(self):
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def journal(self):
        return read_journal(self.folder / "journal")

    def left(self):
        return [p for p in self.inbox.rglob("*") if p.is_file() and not p.name.startswith(".")]

    def is_done(self):
        if self.processed != "keep":
            return not self.left()
        return {self.path_of(row["source_path"]) for row in self.rows() if row["filed"]} >= set(self.contents)

    def path_of(self, text):
        """The path that a row means."""
        return self._aliases.get(text, Path(text))

    def rows(self, sql=f"SELECT {_COLUMNS} FROM file ORDER BY id"):
        database = self.folder / "fracture_watch.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            with suppress(sqlite3.OperationalError):  # not migrated yet
                return connection.execute(sql).fetchall()
        return []

    def places(self):
        """How often each content lies somewhere; what is being copied does not count."""
        found = Counter()
        for root in (self.inbox, *self.roots):
            for path in root.rglob("*"):
                if path.is_file() and path.suffix != ".part":
                    found[sha256(path.read_bytes()).hexdigest()] += 1
        return found

    def _look_for_everything(self):
        """Right after a death, before the next life could mend it, every file is somewhere."""
        if self.processed == "delete":
            return  # only rows could tell, and to read them now would recover the database in the daemon's place
        found = self.places()
        for digest, count in Counter(sha256(content).hexdigest() for content in self.contents.values()).items():
            if found[digest] < count:
                self.nowhere.append(f"{digest}: {found[digest]} of {count} after kill {self.kills}")
