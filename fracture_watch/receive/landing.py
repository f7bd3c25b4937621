"""Objects on their way into the inbox: written as they come, and under their name only when whole and on disk."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fracture_watch.disk import digest, sync_folder
from fracture_watch.errors import StorageUnavailable, TooLarge
from fracture_watch.intake.mounts import Mounts
from fracture_watch.intake.moving import names

_BUFFER = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.ESTALE)
_ATTEMPTS = 100  # the watcher may remove a folder that it emptied just when the next object is put there
_DIGITS = 12  # 48 bits of the digest tell objects of one UID apart


@dataclass(frozen=True, slots=True)
class Landed:
    """An object that is in the inbox for good."""

    path: Path
    size: int
    sha256: str


class Arriving:
    """One object that is being written, by one thread at a time.

    What stands in its way is kept until the object can be answered, since its bytes come all the same.
    """

    def __init__(self, path: Path, most_bytes: int, failure: Exception | None = None) -> None:
        self.path = path
        self.size = 0
        self._most = most_bytes
        self._failure = failure
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        if failure is None:
            try:
                self._file = path.open("xb", _BUFFER)
            except OSError as error:
                self._failure = error

    @property
    def is_endless(self) -> bool:
        """Whether it goes on and on after it was too large already."""
        return self.size > 2 * self._most

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes; once something failed, they are only counted."""
        self.size += len(data)
        if self._file is None:
            return
        if self.size > self._most:
            self._fail(TooLarge(f"the object is larger than {self._most >> 20} MiB (inbox.max_file_mb)"))
            return
        try:
            self._file.write(data)
            self._digest.update(data)
        except OSError as error:
            self._fail(error)

    def sync(self) -> str:
        """Write the rest to disk; the digest of the whole.

        Raises
        ------
        StorageUnavailable, TooLarge, OSError
            What stood in its way.
        """
        if self._file is None:
            raise self._failure or ValueError("it was put away already")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Leave nothing of it, unless it has its name already."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what is still in the buffer has no room either
                self._file.close()
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._file = None

    def _fail(self, failure: Exception) -> None:
        self.discard()
        self._failure = failure


class Landing:
    """Puts objects into the inbox, each below the folder of its sender.

    Parameters
    ----------
    inbox : Path
    most_bytes : int
        Of one object.
    min_free_bytes : int
        With less room than this on the inbox's disk, nothing is taken.
    folder_of : function
        AE title of the sender -> a folder in the inbox, below which the watcher looks.
    """

    def __init__(self, inbox: Path, most_bytes: int, min_free_bytes: int, folder_of: Callable[[str], Path]) -> None:
        self._inbox = inbox
        self._most = most_bytes
        self._min_free = min_free_bytes
        self._folder_of = folder_of
        self._mounts = Mounts()
        self._placing = threading.Lock()

    def begin(self, sender: str) -> Arriving:
        """An object begins to come; if it cannot be taken, it says so at its end.

        Its folder is made now: the watcher sees at once what is renamed into one that it knows already.
        """
        path = self._inbox / f".{secrets.token_hex(8)}.received.part"
        try:
            self.require_room()
        except StorageUnavailable as error:
            return Arriving(path, self._most, error)
        with contextlib.suppress(OSError):  # said when it is put there
            self._make(self._folder_of(sender))
        return Arriving(path, self._most)

    def refuse(self, failure: Exception) -> Arriving:
        """An object begins to come that is not taken."""
        return Arriving(self._inbox, self._most, failure)

    def land(self, arriving: Arriving, sender: str, uid: str) -> Landed:
        """Give a whole object its name, on disk before this returns.

        The name is its SOP Instance UID and the beginning of its digest: other bytes have another name, and the same
        bytes that are still waiting there are the same object.

        Raises
        ------
        StorageUnavailable
            If the inbox is full, read-only or gone.
        TooLarge
            If it was larger than one may be.
        OSError
            If something else kept it from being written.
        """
        try:
            sha256 = arriving.sync()
            name = f"{uid}-{sha256[:_DIGITS]}.dcm"
            folder = self._folder_of(sender)
            path = self._placed(arriving, folder / name, sha256)
            self._sync(folder)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise StorageUnavailable(
                    f"{self._inbox} cannot be written: {error.strerror}; make room on its disk, or mount it again"
                ) from error
            raise
        finally:
            arriving.discard()
        return Landed(path, arriving.size, sha256)

    def require_room(self) -> None:
        """Raise ``StorageUnavailable`` if objects should not be taken now."""
        try:
            self._mounts.check(self._inbox)
            free = shutil.disk_usage(self._inbox).free
        except OSError as error:
            raise StorageUnavailable(f"{self._inbox} cannot be looked at: {error.strerror}") from error
        if free < self._min_free:
            raise StorageUnavailable(
                f"only {free >> 20} MiB are free on the disk of {self._inbox}, less than filing.min_free_mb "
                f"({self._min_free >> 20}); make room"
            )

    def clear(self) -> int:
        """Remove what a receiver that was killed left unfinished; nobody was told that it had come."""
        left = list(self._inbox.glob(".*.received.part"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _placed(self, arriving: Arriving, wanted: Path, sha256: str) -> Path:
        """Where it lies now; the watcher may remove the folder at any moment while it is empty."""
        for _ in range(_ATTEMPTS):
            with self._placing, contextlib.suppress(FileNotFoundError):
                self._make(wanted.parent)
                return _named(arriving.path, wanted, sha256)
        raise StorageUnavailable(
            f"{wanted.parent} cannot be made, or is removed again and again; see who else does that"
        )

    def _make(self, folder: Path) -> None:
        for place in reversed(self._between(folder)):
            if place.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, "is a symbolic link, which is never followed", str(place))
            with contextlib.suppress(FileExistsError):  # `exist_ok` would look again, when it may be gone
                place.mkdir()

    def _sync(self, folder: Path) -> None:
        """See that all names on the way are on disk; a folder that is gone was emptied: what it held is filed."""
        for place in (*self._between(folder), self._inbox):
            with contextlib.suppress(FileNotFoundError):
                sync_folder(place)

    def _between(self, folder: Path) -> list[Path]:
        """The folder and those around it, up to the inbox, which is not made anew where it is gone."""
        return [place for place in (folder, *folder.parents) if self._inbox in place.parents]


def _named(path: Path, wanted: Path, sha256: str) -> Path:
    """Give it its name by a rename, which tells the watcher that it is whole; what is there is never overwritten."""
    target = next(name for name in names(wanted) if not os.path.lexists(name) or _holds(name, sha256))
    if not os.path.lexists(target):
        path.rename(target)
    return target


def _holds(path: Path, sha256: str) -> bool:
    """Whether an object is there already. Its name holds but the beginning of the digest, which a sender may match."""
    if path.is_symlink() or not path.is_file():
        return False
    return digest(path) == sha256
