"""Where files go after their outcome is committed. Moves never overwrite and work across devices."""

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fracture_watch.disk import digest
from fracture_watch.errors import StorageUnavailable
from fracture_watch.intake.mounts import Mounts
from fracture_watch.intake.moving import moved, names
from fracture_watch.intake.settling import is_still_there, stamp_of
from fracture_watch.intake.slips import slip_path, write_slip
from fracture_watch.outcomes import Classified, Duplicate, Outcome, Recorded
from fracture_watch.records import SourceFile

log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SUFFIXES = frozenset(".dcm .dicom .dic .ima .png .jpg .jpeg .tif .tiff .webp .bmp".split())
_COARSE_NS = 2_000_000_000  # some file systems keep times to two seconds


@dataclass(frozen=True, slots=True)
class Filing:
    """Moves, keeps or deletes processed files; moves failed and rejected ones to quarantine with a sidecar.

    Parameters
    ----------
    inbox, processed_dir, quarantine_dir : Path
    processed : {"move", "keep", "delete"}
    receipts : bool
        Write a JSON receipt beside every processed file that was moved.
    min_free_bytes : int
        With less room than this on a disk that is written to, nothing more is taken in.
    others : tuple of Path
        More folders that are written to: of heat maps, of the database.
    """

    inbox: Path
    processed_dir: Path
    quarantine_dir: Path
    processed: Literal["move", "keep", "delete"] = "move"
    receipts: bool = False
    min_free_bytes: int = 0
    others: tuple[Path, ...] = ()
    _mounts: Mounts = field(default_factory=Mounts, repr=False, compare=False)

    def destination(self, source: SourceFile, outcome: Outcome) -> Path | None:
        """Where the file will go: a free name now, the source's own path to stay, ``None`` to be deleted."""
        processed = isinstance(outcome, Classified | Duplicate)
        if processed and self.processed == "keep":
            return source.path
        if processed and self.processed == "delete":
            return None
        root = self.processed_dir if processed else self.quarantine_dir
        relative = _anonymous(source, outcome) if source.alias else source.path.relative_to(self.inbox)
        return next(name for name in names(_below(root, relative)) if is_free(name))

    def file(self, recorded: Recorded) -> Path | None:
        """Put a committed file where the database says it goes; doing it again changes nothing.

        Returns
        -------
        Path or None
            Where it is now: its own path if something about it alone keeps it from being moved; ``None`` if it was
            deleted, or if somebody took it away before it could be moved.

        Raises
        ------
        StorageUnavailable
            If nothing can be put away: a folder is missing, read-only or full. The file is still in the inbox.
        """
        if recorded.filed_path == recorded.source.path:
            return recorded.filed_path
        self._mounts.check(self.inbox)  # else a file that is out of reach would look like one that was taken away
        try:
            return self._put(recorded)
        except OSError as error:
            self._require_storage(recorded, error)
        try:  # all is well by now: perhaps the fault went between the move and the look
            return self._put(recorded)
        except OSError as error:
            self._require_storage(recorded, error)
            # It is this file's own fault, and the others go on.
            reason = error.strerror or error
            name = recorded.source.name
            log.error("%s is recorded but cannot be moved, so it stays: %s; check its permissions", name, reason)  # noqa: TRY400
            return recorded.source.path

    def put_back(self, filed: Path, source: Path) -> Path:
        """Move a file from quarantine to where it was found in the inbox, and remove its sidecar.

        Returns
        -------
        Path
            Where it is now: beside a file that has come under its name meanwhile.

        Raises
        ------
        FileNotFoundError
            If it is not in quarantine any more.
        StorageUnavailable
            If it cannot be moved.
        """
        known = Path(source.name if source.is_absolute() else filed.name)  # an alias is no place
        relative = source.relative_to(self.inbox) if source.is_relative_to(self.inbox) else known
        target = _below(self.inbox, relative)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target = next(name for name in names(target) if not os.path.lexists(name) and moved(filed, name))
            slip_path(filed).unlink(missing_ok=True)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError) and self.quarantine_dir.is_dir() and not os.path.lexists(filed)
            if gone:
                raise
            raise StorageUnavailable(f"{filed} cannot be put back to {target}: {error.strerror}") from error
        return target

    def remove_emptied(self, folder: Path) -> None:
        """Remove a folder of the inbox, and those around it, if there is nothing in them any more."""
        with contextlib.suppress(OSError):  # not empty: it stays
            while folder != self.inbox and folder.is_relative_to(self.inbox):
                folder.rmdir()
                folder = folder.parent

    def probe(self) -> None:
        """Raise ``StorageUnavailable`` if files could not be put away: a folder is missing, read-only or full."""
        self.require_room()
        for folder in (self.processed_dir, self.quarantine_dir):
            self._mounts.check(folder)
            probe = folder / ".probe.part"  # one name, so that the next start removes what a crash left
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with probe.open("wb") as file:
                    file.write(bytes(65536))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StorageUnavailable(
                    f"{folder} cannot be written: {error.strerror}; it must be a folder that this user may write to, "
                    "with room on its disk"
                ) from error
            finally:
                with contextlib.suppress(OSError):
                    probe.unlink()

    def require_room(self) -> None:
        """Raise ``StorageUnavailable`` before a disk is full, while there is still room to finish what is in hand."""
        for folder in (self.processed_dir, self.quarantine_dir, *self.others):
            self._mounts.check(folder)
            try:
                free = shutil.disk_usage(folder).free
            except FileNotFoundError:
                continue  # made with its first file
            except OSError as error:
                raise StorageUnavailable(f"{folder} cannot be looked at: {error.strerror}") from error
            if free < self.min_free_bytes:
                raise StorageUnavailable(
                    f"only {free >> 20} MiB are free on the disk of {folder}, less than filing.min_free_mb "
                    f"({self.min_free_bytes >> 20}); make room, for one with `fracture-watch prune`"
                )

    def _require_storage(self, recorded: Recorded, error: OSError) -> None:
        """Raise ``StorageUnavailable`` if it was for more than this file's own fault that it could not be put away."""
        if error.errno in _FULL:
            target = recorded.filed_path
            root = self.processed_dir if target and target.is_relative_to(self.processed_dir) else self.quarantine_dir
            raise StorageUnavailable(  # /readyz says it to everybody, so it names no file
                f"nothing can be filed to {root}: {error.strerror}; make room on that disk"
            ) from error
        self.probe()
        self._require_open_inbox(recorded.source, error)

    def _require_open_inbox(self, source: SourceFile, error: OSError) -> None:
        """Raise ``StorageUnavailable`` where nothing can be taken out of the inbox, unless nothing has to be."""
        folder = source.path.parent
        if self.processed == "keep" or (folder != self.inbox and error.errno != errno.EROFS):
            return
        effective = os.access in os.supports_effective_ids
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
            shown = self.inbox if folder == self.inbox else f"a folder in {self.inbox}"
            raise StorageUnavailable(
                f"files cannot be taken out of {shown}: {error.strerror}; make it writable for this user, or "
                "set filing.processed to keep"
            ) from error

    def _put(self, recorded: Recorded) -> Path | None:
        source, target = recorded.source.path, recorded.filed_path
        if target is not None:
            return self._move(recorded, target)
        if _holds(source, recorded):
            source.unlink()
        return None

    def _move(self, recorded: Recorded, target: Path) -> Path | None:
        source = recorded.source.path
        processed = isinstance(recorded.outcome, Classified | Duplicate)
        place: Path | None
        if _holds(source, recorded):
            target.parent.mkdir(parents=True, exist_ok=True)
            place = next(name for name in names(target) if not os.path.lexists(slip_path(name)) and moved(source, name))
        else:  # it was moved before a crash, or somebody took it away
            taken = list(_taken(target))
            place = next((name for name in taken if _is_the_file(name, recorded)), None)
            place = place or next((name for name in taken if _is_what_was_moved(name, recorded)), None)
        if place is not None and (self.receipts or not processed):
            write_slip(place, recorded)
        return place


def _holds(path: Path, recorded: Recorded) -> bool:
    """Whether ``path`` still holds the file that was processed, and not a later one of the same name.

    Many senders set a file's time after they closed it: then its content tells.
    """
    source, sha256 = recorded.source, recorded.outcome.sha256
    if is_still_there(source):
        return True
    try:
        facts = path.lstat()
        if stamp_of(facts)[::2] != (source.size, source.inode) or not stat.S_ISREG(facts.st_mode) or sha256 is None:
            return False
        return digest(path) == sha256
    except FileNotFoundError:
        return False


def _taken(target: Path) -> Iterator[Path]:
    """The names that a move to ``target`` may have come to: it passes over those that others have taken meanwhile."""
    return itertools.takewhile(lambda name: not is_free(name), names(target))


def _is_the_file(name: Path, recorded: Recorded) -> bool:
    """Whether this is the recorded file, renamed."""
    source = recorded.source
    try:
        return stamp_of(name.lstat()) == (source.size, source.modified_ns, source.inode)
    except FileNotFoundError:
        return False


def _is_what_was_moved(name: Path, recorded: Recorded) -> bool:
    """Whether this is what a copy to another device made of the recorded file."""
    source, sha256 = recorded.source, recorded.outcome.sha256
    try:
        stamp = stamp_of(name.lstat())
        if stamp[0] != source.size or name.is_symlink():
            return False
        if sha256 is None:
            return abs(stamp[1] - source.modified_ns) <= _COARSE_NS
        return digest(name) == sha256
    except FileNotFoundError:
        return False


def _anonymous(source: SourceFile, outcome: Outcome) -> Path:
    """Below a folder, the place of a file that goes by an alias: its digest, and its suffix if that is a usual one."""
    name = outcome.sha256 or hashlib.sha256(source.name.encode()).hexdigest()
    suffix = source.path.suffix.lower()
    return Path(name[:2], name + (suffix if suffix in _SUFFIXES else ""))


def _below(root: Path, relative: Path) -> Path:
    """``relative`` below ``root``, beside files that have the name of one of its folders."""
    for part in relative.parts[:-1]:
        # os.path: a name that is too long or out of reach is none that is taken; the move says what is wrong with it.
        root = next(name for name in names(root / part) if os.path.isdir(name) or not os.path.lexists(name))  # noqa: PTH112
    return root / _fitting(relative.name)


def _fitting(name: str) -> str:
    """The name, cut so that a number and a sidecar's ending still fit into the 255 bytes of a file name."""
    if len(os.fsencode(name)) <= 225:
        return name
    suffix = Path(name).suffix if len(os.fsencode(Path(name).suffix)) <= 20 else ""
    return os.fsdecode(os.fsencode(name.removesuffix(suffix))[:200]) + suffix


def is_free(name: Path) -> bool:
    """Whether neither a file nor the sidecar that it may get would meet another one."""
    return not os.path.lexists(name) and not os.path.lexists(slip_path(name))
