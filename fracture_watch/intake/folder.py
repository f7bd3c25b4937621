"""A folder that is watched. Events are hints; the directory listing is the truth."""

import logging
import os
import stat
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from fracture_watch.errors import StorageUnavailable
from fracture_watch.intake.events import Hints, events
from fracture_watch.intake.mounts import Mounts
from fracture_watch.intake.settling import Settled, Settling, stamp_of
from fracture_watch.intake.tree import Tree
from fracture_watch.outcomes import Recorded
from fracture_watch.records import SourceFile

log = logging.getLogger(__name__)
_TICK_SECONDS = 0.2
_MOST_WAITING = 4096  # files held in memory; the rest stay in the listing until there is room
_MOST_UNFINISHED = 16384  # beside them, that are known not to be whole: others need not wait for these
_POLL_SECONDS = 1.0
_POLL_SHARE = 10  # a listing that took a second is read again after ten: polling takes a tenth of one core at most


class Folder:
    """A watched inbox.

    Parameters
    ----------
    tree : Tree
    settling : Settling
    rescan_seconds : float
        How often the listing is read again, whatever events say.
    polling : str or None
        Why to do without kernel events; the listing is then read every second. ``None`` wants them.
    batch_size : int
        Most files handed out at once.
    """

    def __init__(
        self, tree: Tree, settling: Settling, rescan_seconds: float, polling: str | None, batch_size: int
    ) -> None:
        self._tree = tree
        self._settling = settling
        self._rescan_seconds = rescan_seconds
        self._polling = polling
        self._batch_size = batch_size
        self._mounts = Mounts()
        self._hints = Hints()
        self._kept: dict[Path, SourceFile] = {}
        self._handed_out: dict[Path, SourceFile] = {}
        self._listing: _Listing | None = None
        self._next_listing = 0.0

    @property
    def mode(self) -> str:
        """How it is watched: ``events``, or ``polling`` and why."""
        why = self._polling or self._hints.blind
        return f"polling: {why}" if why else "events"

    @property
    def waiting(self) -> int:
        """Files that were sighted and are not ready yet."""
        return len(self._settling)

    @property
    def oldest_seconds(self) -> float:
        """How long the file that waits longest has been waiting; 0 where none does."""
        return self._settling.oldest_seconds

    def find_again(self, recorded: Sequence[Recorded]) -> list[Recorded]:
        """Files that are recorded by an alias alone, with the paths where they lie; filing makes sure of each."""
        wanted = {(item.source.size, item.source.inode) for item in recorded if item.source.alias}
        paths: dict[tuple[int, int], Path] = {}
        for path, facts in self._tree.walk() if wanted else ():
            size, _, inode = stamp_of(facts)
            if (size, inode) in wanted:
                paths[size, inode] = path
        return [_lying_at(item, paths.get((item.source.size, item.source.inode))) for item in recorded]

    def keep(self, source: SourceFile) -> None:
        """Remember a file that was dealt with and stays in the folder: rescans pass it over until it changes."""
        self.forget(source)
        self._kept[source.path] = source
        if self._listing:
            self._listing.kept.add(source.path)

    def forget(self, source: SourceFile) -> None:
        """Be done with a file that was handed out: one of its name is a new one."""
        if self._handed_out.get(source.path) == source:
            del self._handed_out[source.path]

    def postpone(self, source: SourceFile, seconds: float) -> None:
        """Take back a file that was handed out, to be handed out again later."""
        self.forget(source)
        self._settling.postpone(source, seconds)

    def watch(self, stop: threading.Event) -> Generator[Settled]:
        """Yield at every tick what is ready, possibly nothing, until ``stop`` is set.

        A file that was handed out is passed over, unless it changes, until ``keep``, ``forget`` or ``postpone`` say
        what came of it.

        Raises
        ------
        StorageUnavailable
            If the folder cannot be listed; watching again later is possible.
        """
        root = self._root_identity()
        self._hints = Hints()
        self._listing, self._next_listing = None, 0.0
        self._handed_out = {}
        with ExitStack() as watched:
            if not self._polling and self._tree.root.is_dir():  # the listing will say what is wrong with the root
                self._start_events(watched)
            log.info("watching %s by %s", self._tree.root, self.mode)
            while not stop.is_set():
                if self._root_identity() != root:  # its events are another folder's, or nobody's
                    raise StorageUnavailable(f"{self._tree.root} was mounted, unmounted or replaced; it is listed anew")
                self._take_hints()
                self._list()
                settled = self._settling.settle(self._batch_size)
                known = self._tree.known
                settled = Settled(
                    *(tuple(map(known, found)) for found in (settled.ready, settled.stalled, settled.gone))
                )
                self._handed_out |= {source.path: source for source in settled.ready}
                yield settled
                if not settled.ready:
                    stop.wait(_TICK_SECONDS)

    def _root_identity(self) -> tuple[int, int]:
        root = self._tree.root
        try:
            facts = root.stat()
        except OSError as error:
            raise StorageUnavailable(
                f"{root} cannot be looked at: {error.strerror}; see that it is there, mounted and open to this user"
            ) from error
        self._mounts.check(root)
        return facts.st_dev, facts.st_ino

    def _start_events(self, watched: ExitStack) -> None:
        try:
            watched.enter_context(events(self._tree.root, self._tree.recursive, self._hints))
        except OSError as error:
            self._hints.miss(error.strerror or str(error))

    def _take_hints(self) -> None:
        most = self._most()
        for path, closed in self._hints.take():
            try:
                facts = path.lstat()
            except OSError:
                continue  # gone already
            if not self._tree.counts(path) or not stat.S_ISREG(facts.st_mode):
                continue
            if len(self._settling) < most:
                self._sight(path, facts, closed)
            else:  # no room: the next listing has it
                self._hints.lose()

    def _list(self) -> None:
        """Go on with the listing while there is room; begin the next when it is due and the last one is through."""
        if self._listing is None:
            if not self._hints.were_lost() and time.monotonic() < self._next_listing:
                return
            self._listing = _Listing(self._tree.walk())
        began, most = time.monotonic(), self._most()
        while len(self._settling) < most:
            entry = next(self._listing.entries, None)
            if entry is None:
                self._end_listing(self._listing.seconds + time.monotonic() - began)
                return
            self._sight(*entry, closed=False)
        self._listing.seconds += time.monotonic() - began

    def _most(self) -> int:
        return _MOST_WAITING + min(self._settling.unfinished, _MOST_UNFINISHED)

    def _end_listing(self, seconds: float) -> None:
        if self._listing:
            self._kept = {path: kept for path, kept in self._kept.items() if path in self._listing.kept}
        self._listing = None
        pause = max(_POLL_SECONDS, _POLL_SHARE * seconds) if self.mode != "events" else self._rescan_seconds
        self._next_listing = time.monotonic() + pause

    def _sight(self, path: Path, facts: os.stat_result, closed: bool) -> None:
        if _same(self._handed_out.get(path), facts):
            return
        if _same(self._kept.get(path), facts):
            if self._listing:
                self._listing.kept.add(path)
            return
        self._settling.sight(path, facts, closed)


def _same(source: SourceFile | None, facts: os.stat_result) -> bool:
    return source is not None and (source.size, source.modified_ns, source.inode) == stamp_of(facts)


def _lying_at(item: Recorded, path: Path | None) -> Recorded:
    return replace(item, source=replace(item.source, path=path)) if path and item.source.alias else item


@dataclass(slots=True)
class _Listing:
    """A listing that is being read, what it met of the files that stay, and how long that took."""

    entries: Iterator[tuple[Path, os.stat_result]]
    kept: set[Path] = field(default_factory=set)
    seconds: float = 0.0
