"""When a file is ready: fed by scan, events and rescans alike, it holds files until nobody writes them any more."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fracture_watch.intake.completeness import Completeness
from fracture_watch.records import SourceFile
from fracture_watch.times import now

Stamp = tuple[int, int, int]  # size, mtime in ns, inode


@dataclass(slots=True)
class _Sighting:
    seen_at: str
    first: float
    stamp: Stamp
    stable_since: float
    closed: bool
    completeness: Completeness | None = None  # of `stamp`; checked when it matters
    stalled: bool = False
    not_before: float = 0.0  # it was put off until then
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What one look at the waiting files found: what is ready, newly counts as stalled, or did so and is gone."""

    ready: tuple[SourceFile, ...] = ()
    stalled: tuple[SourceFile, ...] = ()
    gone: tuple[SourceFile, ...] = ()


class Settling:
    """Holds sighted files until they are ready.

    A file is ready when size, mtime and inode have been stable for ``settle_seconds`` and it is structurally
    complete. The quiet period is skipped when the kernel said that the writer closed it or renamed it in, and it
    is complete. After ``give_up_seconds`` a stable file is handed out as it is, so that it fails with its reason,
    and a growing one counts as stalled. Age is counted on a monotonic clock from the first sighting.

    Parameters
    ----------
    settle_seconds, give_up_seconds : float
    check : function
        Tells whether a file is complete; raises OSError where it cannot be read.
    clock : function
        Monotonic seconds.
    """

    def __init__(
        self,
        settle_seconds: float,
        give_up_seconds: float,
        check: Callable[[Path], Completeness],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settle = settle_seconds
        self._give_up = give_up_seconds
        self._check = check
        self._clock = clock
        self._waiting: dict[Path, _Sighting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Path]:
        return iter(tuple(self._waiting))

    @property
    def unfinished(self) -> int:
        """How many were looked at and are not whole, or still grew after ``give_up_seconds``."""
        return sum(s.stalled or s.completeness is Completeness.INCOMPLETE for s in self._waiting.values())

    @property
    def oldest_seconds(self) -> float:
        """How long the file that waits longest has been waiting; 0 where none does."""
        return max((self._clock() - sighting.first for sighting in tuple(self._waiting.values())), default=0.0)

    def sight(self, path: Path, facts: os.stat_result, closed: bool = False) -> None:
        """Note that ``path`` is there; ``closed`` if the kernel said that its writer is done."""
        stamp = stamp_of(facts)
        time_now = self._clock()
        known = self._waiting.get(path)
        if known is None:
            self._waiting[path] = _Sighting(now(), time_now, stamp, time_now, closed)
            return
        if known.stamp != stamp:
            known.stamp, known.stable_since, known.completeness, known.closed = stamp, time_now, None, False
        if closed and known.completeness is Completeness.INCOMPLETE:
            known.completeness = None  # bytes can come without a new size or time, as through a memory map
        known.closed |= closed

    def postpone(self, source: SourceFile, seconds: float) -> None:
        """Take back a file that was handed out; it is handed out again after ``seconds`` at the earliest."""
        time_now = self._clock()
        stamp = source.size, source.modified_ns, source.inode
        self._waiting[source.path] = _Sighting(
            source.seen_at,
            time_now,
            stamp,
            time_now,
            closed=False,
            not_before=time_now + seconds,
            attempts=source.attempts + 1,
        )

    def settle(self, limit: int) -> Settled:
        """Look at every waiting file again; hand out at most ``limit`` ready ones and forget them."""
        ready: list[SourceFile] = []
        stalled: list[SourceFile] = []
        gone: list[SourceFile] = []
        for path in self:
            if len(ready) >= limit:
                break
            known = self._waiting[path]
            sighting = self._seen_again(path)
            if sighting is None:
                gone += [_source(path, known)] if known.stalled else []
            elif self._is_ready(path, sighting):
                ready.append(_source(path, self._waiting.pop(path)))
            elif not sighting.stalled and self._clock() - sighting.first >= self._give_up:
                sighting.stalled = True
                stalled.append(_source(path, sighting))
        return Settled(tuple(ready), tuple(stalled), tuple(gone))

    def _seen_again(self, path: Path) -> _Sighting | None:
        """The sighting with today's stamp; forgotten where the file is gone."""
        try:
            facts = path.lstat()
        except FileNotFoundError:
            del self._waiting[path]
            return None
        except OSError:
            return self._waiting[path]  # cannot be looked at now; what was seen before stands
        if not stat.S_ISREG(facts.st_mode):  # a pipe or a link has taken its name
            del self._waiting[path]
            return None
        self.sight(path, facts)
        return self._waiting[path]

    def _is_ready(self, path: Path, sighting: _Sighting) -> bool:
        time_now = self._clock()
        if time_now < sighting.not_before:
            return False
        quiet = time_now - sighting.stable_since >= self._settle
        if not quiet and not sighting.closed:
            return False
        if sighting.completeness is None:
            try:
                sighting.completeness = self._check(path)
            except OSError:
                # Unreadable now; once quiet, the decoder says why.
                sighting.completeness = Completeness.UNKNOWN
        if sighting.completeness is Completeness.COMPLETE:
            return True
        if not quiet:
            return False
        return sighting.completeness is Completeness.UNKNOWN or time_now - sighting.first >= self._give_up


def is_still_there(source: SourceFile) -> bool:
    """Whether the path still holds the file that was handed out, untouched, and not a later one of the same name."""
    try:
        facts = source.path.lstat()
    except OSError:
        return False
    return stamp_of(facts) == (source.size, source.modified_ns, source.inode)


def stamp_of(facts: os.stat_result) -> Stamp:
    """What tells a file from a later one of its name; cut to 64 bits with sign, which some mtimes and inodes exceed."""
    modified_ns = max(-(1 << 63), min(facts.st_mtime_ns, (1 << 63) - 1))
    return facts.st_size, modified_ns, facts.st_ino & ((1 << 63) - 1)


def _source(path: Path, sighting: _Sighting) -> SourceFile:
    size, modified_ns, inode = sighting.stamp
    return SourceFile(path, size, modified_ns, inode, sighting.seen_at, sighting.attempts)
