"""What the rooms ask of a disk: files that are whole or not there at all, and what tells one content from another."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all, and on the disk when this returns; what had the name before is replaced.

    Any number of processes may write the same file at once: each waits for the one before it.
    """
    # One name a file, so that what a crash left is used up by the next attempt.
    temporary = path.with_name(f".{path.name}.part")
    with _alone(temporary) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
    try:
        sync_folder(path.parent)
    except OSError as error:  # the file is there; of some folders, and on some shares, no more can be asked
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.ENOTSUP):
            raise


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _alone(path: Path) -> Iterator[IO[bytes]]:
    """An empty file that nobody else writes to."""
    while True:
        with path.open("ab") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(path, file):  # whoever held it has given it its name
                continue
            file.truncate(0)
            yield file
            return


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
