"""One daemon for one inbox and one database: a lock that the kernel gives up with the process that holds it."""

import fcntl
import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fracture_watch.errors import InvalidSettings
from fracture_watch.intake.moving import moved
from fracture_watch.times import now

log = logging.getLogger(__name__)


@contextmanager
def claimed(lock: Path, what: str) -> Iterator[None]:
    """Hold ``lock`` while the context lasts; its content says who holds it, or held it last.

    Parameters
    ----------
    lock : Path
        Made where it is missing, and left behind: what counts is whether it is locked.
    what : str
        What it stands for, in an error.

    Raises
    ------
    InvalidSettings
        If another process holds it, or it cannot be made.
    """
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise InvalidSettings(f"{what}: the lock {lock} cannot be made: {error.strerror}") from error
    try:
        _lock(handle, lock, what)
        content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now()}) + "\n"
        os.ftruncate(handle, 0)
        os.pwrite(handle, content.encode(), 0)
        yield
    finally:
        os.close(handle)


def name_of(place: Path, *, make: bool) -> str | None:
    """The name that an inbox has, among those of other machines too; it is kept in a file and goes with the folder.

    Parameters
    ----------
    place : Path
        The file.
    make : bool
        Give it a name, if it has none.

    Raises
    ------
    InvalidSettings
        If the file cannot be made or read.
    """
    try:
        if make and not place.exists():
            name = uuid.uuid4()
            part = place.with_name(f".{place.name}.{name}.part")
            try:
                with part.open("x", encoding="ascii") as file:
                    file.write(f"{name}\n")
                    file.flush()
                    os.fsync(file.fileno())  # or a power cut leaves an empty one under the right name
                moved(part, place)  # of two starts at once the first names it
            finally:
                part.unlink(missing_ok=True)
        return str(uuid.UUID(place.read_text(encoding="ascii").strip()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"{place}, the name of this inbox in the database, cannot be used ({error}); put it back from a backup. "
            "Under another name, earlier results of this inbox are taken for another watcher's"
        ) from error


def holder(lock: Path) -> str | None:
    """Who holds a lock now; ``None`` where nobody does."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(handle)
    except OSError:
        return None  # a file system without locks
    finally:
        os.close(handle)
    return None


def _lock(handle: int, lock: Path, what: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidSettings(
            f"{what} is in use by {_named(handle)}; stop that one first, or give this one folders and a database of "
            "its own"
        ) from error
    except OSError as error:
        log.warning("%s cannot be locked (%s): nothing keeps a second daemon away from it", lock, error.strerror)


def _named(handle: int) -> str:
    try:
        found = json.loads(os.pread(handle, 1000, 0))
        return f"process {found['pid']} on {found['host']}, started {found['since'][:19]}Z"
    except (ValueError, KeyError, TypeError):
        return "another process"
