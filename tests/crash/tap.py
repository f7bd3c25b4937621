"""Counts what a commit or a move is made of, from outside: every call is crossed before and after it.

Installed by the tests' own start-up module around the standard library's and SQLAlchemy's calls, so the program knows
nothing of it. Each crossing goes into a journal, with the paths it is about; at a chosen one the process kills itself.
A crossing is named for its call and for who made it: ``before unlink in moving.moved``.
"""

import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

START = "start of a life"
_PROGRAM = "fracture_watch."
_PASSES_ON = ("writing", "_named", "_undone", "write_whole", "sync_folder", "_alone")
_CALLS = ("link", "unlink", "replace", "rename", "rmdir", "fsync")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Tap:
    """One process's crossings; ``deadly`` is ``NAME`` or ``NAME#NUMBER``, the crossing that it does not survive."""

    def __init__(self, journal, deadly=""):
        self._pid = os.getpid()
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._deadly, _, number = deadly.partition("#")
        self._number = int(number or 1)
        self._counts = Counter()
        self._busy = threading.local()
        self._recording = []

    def install(self):
        self._note(START, [], False)
        for name in _CALLS:
            self._around(os, name)
        self._in_copies()
        self._around_commits()
        sys.addaudithook(self._opening)

    def cross(self, side, call, paths=()):
        if os.getpid() != self._pid:
            return  # a child that was forked
        name = f"{side} {call} in {_caller()}"
        self._counts[name] += 1
        killed = name == self._deadly and self._counts[name] == self._number
        self._note(name, paths, killed)
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, name, paths, killed):
        entry = {"crossing": name, "paths": [os.fspath(path) for path in paths], "killed": killed}
        os.write(self._journal, json.dumps(entry).encode() + b"\n")

    def _around(self, owner, name):
        call = getattr(owner, name)

        def crossing(*arguments, **options):
            paths = [_named(argument) for argument in arguments]
            self.cross("before", name, paths)
            found = call(*arguments, **options)
            self.cross("after", name, paths)
            return found

        setattr(owner, name, crossing)

    def _in_copies(self):
        copy = shutil.copyfileobj

        def copying(reader, writer, length=0):
            paths = reader.name, writer.name
            self.cross("before", "copy", paths)
            writer.write(reader.read(100))
            writer.flush()
            self.cross("during", "copy", paths)
            copy(reader, writer, length)
            writer.flush()
            self.cross("after", "copy", paths)

        shutil.copyfileobj = copying

    def _around_commits(self):
        from sqlalchemy.engine.default import DefaultDialect

        from fracture_watch.results.store import Store

        commit, record = DefaultDialect.do_commit, Store.record

        def committing(dialect, connection):
            self.cross("before", "commit", self._recording)
            commit(dialect, connection)
            self.cross("after", "commit", self._recording)

        def recording(store, entries):
            self._recording = [entry[0].path for entry in entries]
            try:
                return record(store, entries)
            finally:
                self._recording = []

        DefaultDialect.do_commit, Store.record = committing, recording

    def _opening(self, event, arguments):
        """Python tells of a file before it opens it; one that is written to is a crossing, with no ``after``."""
        if event != "open" or getattr(self._busy, "now", False):
            return
        path, _, flags = arguments
        if not isinstance(path, str | os.PathLike) or not isinstance(flags, int) or not flags & _WRITES:
            return
        self._busy.now = True
        try:
            if _caller() and not os.fspath(path).endswith(".lock"):
                self.cross("before", "open", [path])
        finally:
            self._busy.now = False


def _named(argument):
    return Path(f"/proc/self/fd/{argument}").readlink() if isinstance(argument, int) else argument


def _caller():
    """The function of the program that the call is made for, ``module.function``; who merely passes it on is none."""
    frame = sys._getframe(2)
    while frame:
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module.startswith(_PROGRAM) and function not in _PASSES_ON:
            return f"{module.rpartition('.')[2]}.{function}"
        frame = frame.f_back
    return ""


def read_journal(path):
    """Every entry; the last line of a killed process is whole, since it is one write."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
