"""A folder, scanned once or watched. Events are hints; the directory listing is the truth."""

import fnmatch
import logging
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from fracture_watch.errors import StorageUnavailable
from fracture_watch.intake.settling import Settled, Settling, stamp_of
from fracture_watch.records import SourceFile, now

log = logging.getLogger(__name__)
_ALWAYS_IGNORED = (".*", "*.part", "*.tmp", "*.crdownload", "@eaDir")
_TICK_SECONDS = 0.2
_MOST_WAITING = 4096  # files held in memory; the rest stay in the listing until there is room
_MOST_HINTS = 16384
# Not that files are opened and read, which we do ourselves with every one of them.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


@dataclass(frozen=True, slots=True)
class Tree:
    """Which files below a folder count.

    Parameters
    ----------
    root : Path
    recursive : bool
    ignore : tuple of str
        Globs for names, beside dotfiles and the usual names of unfinished copies.
    """

    root: Path
    recursive: bool = True
    ignore: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Whether a file or folder of this name is left alone."""
        return any(fnmatch.fnmatch(name, glob) for glob in _ALWAYS_IGNORED + self.ignore)

    def counts(self, path: Path) -> bool:
        """Whether ``path``, below the root, is looked at, by the names on its way alone."""
        parts = path.relative_to(self.root).parts
        return (self.recursive or len(parts) == 1) and not any(map(self.ignores, parts))

    def walk(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every regular file that counts, lazily. Symlinks are not followed; FIFOs and devices are not opened.

        Raises
        ------
        StorageUnavailable
            If the root cannot be listed.
        """
        folders = [self.root]
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(folder)
            except OSError as error:
                if folder == self.root:
                    raise StorageUnavailable(f"the folder {folder} cannot be listed: {error.strerror}") from error
                log.warning("%s cannot be listed: %s", folder, error.strerror)
                continue
            with entries:
                for entry in entries:
                    if self.ignores(entry.name):
                        continue
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # gone between listing and looking
                    except OSError as error:
                        log.warning("%s cannot be looked at: %s", entry.path, error.strerror)
                        continue
                    if stat.S_ISREG(facts.st_mode):
                        yield Path(entry.path), facts
                    elif stat.S_ISDIR(facts.st_mode) and self.recursive:
                        folders.append(Path(entry.path))


def scan(tree: Tree) -> Iterator[SourceFile]:
    """Every file of a tree as it stands, without waiting for writers."""
    if tree.root.is_file():
        yield SourceFile(tree.root, *stamp_of(tree.root.stat()), now())
        return
    for path, facts in tree.walk():
        yield SourceFile(path, *stamp_of(facts), now())


class Folder:
    """A watched inbox.

    Parameters
    ----------
    tree : Tree
    settling : Settling
    rescan_seconds : float
        How often the listing is read again, whatever events say.
    polling : bool
        Do without kernel events; the listing is then read every second.
    batch_size : int
        Most files handed out at once.
    """

    def __init__(self, tree: Tree, settling: Settling, rescan_seconds: float, polling: bool, batch_size: int) -> None:
        self._tree = tree
        self._settling = settling
        self._rescan_seconds = rescan_seconds
        self._polling = polling
        self._batch_size = batch_size
        self._hints: queue.Queue[tuple[Path, bool]] = queue.Queue(_MOST_HINTS)
        self._look_again = threading.Event()
        self._kept: dict[Path, SourceFile] = {}
        self.mode = "polling" if polling else "events"

    @property
    def waiting(self) -> int:
        """Files that were sighted and are not ready yet."""
        return len(self._settling)

    def keep(self, source: SourceFile) -> None:
        """Remember a file that stays in the folder, so that rescans pass it over until it changes."""
        self._kept[source.path] = source

    def watch(self, stop: threading.Event) -> Generator[Settled]:
        """Yield at every tick what is ready, possibly nothing, until ``stop`` is set.

        Raises
        ------
        StorageUnavailable
            If the folder cannot be listed; watching again later is possible.
        """
        root = self._root_identity()
        with self._events():
            listing, next_scan = self._tree.walk(), self._next_scan()
            while not stop.is_set():
                if self._root_identity() != root:  # its events are another folder's, or nobody's
                    raise StorageUnavailable(f"{self._tree.root} was mounted, unmounted or replaced; it is listed anew")
                self._take_hints()
                self._sight_from(listing)
                settled = self._settling.settle(self._batch_size)
                yield settled
                if self._look_again.is_set() or time.monotonic() >= next_scan:
                    self._look_again.clear()
                    self._kept = {path: kept for path, kept in self._kept.items() if path.exists()}
                    listing, next_scan = self._tree.walk(), self._next_scan()
                elif not settled.ready:
                    stop.wait(_TICK_SECONDS)

    def _root_identity(self) -> tuple[int, int]:
        try:
            facts = self._tree.root.stat()
        except OSError as error:
            raise StorageUnavailable(f"{self._tree.root} cannot be looked at: {error.strerror}") from error
        return facts.st_dev, facts.st_ino

    @contextmanager
    def _events(self) -> Iterator[None]:
        self.mode = "polling" if self._polling else "events"
        if self._polling or not self._tree.root.is_dir():  # the listing will say what is wrong with the root
            yield
            return
        try:
            observer = _observer()
            root, recursive = str(self._tree.root), self._tree.recursive
            observer.schedule(_Hints(self), root, recursive=recursive, event_filter=_EVENTS)
            observer.start()
        except OSError as error:
            # For one, max_user_watches or max_user_instances in /proc/sys/fs/inotify is used up.
            log.warning("no file events (%s): the inbox is polled instead", error)
            self.mode = "polling"
            yield
            return
        try:
            yield
        finally:
            observer.stop()
            observer.join()

    def _next_scan(self) -> float:
        return time.monotonic() + (1.0 if self.mode == "polling" else self._rescan_seconds)

    def hint(self, path: Path, closed: bool) -> None:
        """Something happened to ``path``; called by the event thread."""
        try:
            self._hints.put_nowait((path, closed))
        except queue.Full:
            self._look_again.set()

    def look_again(self) -> None:
        """A folder came, or events were lost: the listing must be read."""
        self._look_again.set()

    def _take_hints(self) -> None:
        while True:
            try:
                path, closed = self._hints.get_nowait()
            except queue.Empty:
                return
            try:
                facts = path.lstat()
            except OSError:
                continue  # gone already
            if not self._tree.counts(path) or not stat.S_ISREG(facts.st_mode):
                continue
            if len(self._settling) < _MOST_WAITING:
                self._sight(path, facts, closed)
            else:  # no room: the next listing has it
                self._look_again.set()

    def _sight_from(self, listing: Iterator[tuple[Path, os.stat_result]]) -> None:
        while len(self._settling) < _MOST_WAITING:
            entry = next(listing, None)
            if entry is None:
                return
            self._sight(*entry, closed=False)

    def _sight(self, path: Path, facts: os.stat_result, closed: bool) -> None:
        kept = self._kept.get(path)
        if kept and (kept.size, kept.modified_ns, kept.inode) == stamp_of(facts):
            return
        self._settling.sight(path, facts, closed)


def _observer() -> BaseObserver:
    """With full events, a file that is renamed in from elsewhere is moved, not created and yet to be written."""
    if sys.platform == "linux":
        from watchdog.observers.inotify import InotifyObserver

        return InotifyObserver(generate_full_events=True)
    return Observer()


class _Hints(FileSystemEventHandler):
    """Turns watchdog's events into hints, in its thread."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, DirCreatedEvent | DirMovedEvent):
            self._folder.look_again()
        elif not event.is_directory:
            target = event.dest_path or event.src_path
            renamed_in = bool(event.dest_path)
            self._folder.hint(Path(os.fsdecode(target)), closed=renamed_in or isinstance(event, FileClosedEvent))
