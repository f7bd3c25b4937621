"""Moves that never overwrite, work across devices, and can be cut off anywhere and done again."""

import contextlib
import errno
import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fracture_watch.disk import sync_folder
from fracture_watch.intake.settling import stamp_of

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def names(wanted: Path) -> Iterator[Path]:
    """``a.dcm``, ``a-1.dcm``, ``a-2.dcm``, ..."""
    yield wanted
    number = 0
    while True:
        number += 1
        yield wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")


def moved(source: Path, target: Path) -> bool:
    """Move without ever overwriting; ``False`` if another file has that name."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if source.stat().st_dev != target.parent.stat().st_dev:
            return _copied(source, target)
        if not source.samefile(target):  # if it is: a move that was cut off between its two steps
            return False
    except OSError as error:
        if error.errno == errno.EXDEV:
            return _copied(source, target)
        if error.errno not in _NO_HARD_LINKS:
            raise
        try:  # reserve the name, then rename over the reservation
            target.open("xb").close()
        except FileExistsError:
            return False
        with _undone(target):
            source.replace(target)
        return True
    with _undone(target):
        if _is_still(source, target.lstat()):
            source.unlink()
    return True


def _is_still(source: Path, moved: os.stat_result) -> bool:
    """Whether what was moved still has its old name, and not a new file that its sender has put there meanwhile."""
    there = source.lstat()
    return there.st_dev == moved.st_dev and stamp_of(there) == stamp_of(moved)


@contextlib.contextmanager
def _undone(target: Path) -> Iterator[None]:
    """A move that fails at its second step leaves nothing at its target."""
    try:
        yield
    except OSError:
        target.unlink(missing_ok=True)
        raise


def _copied(source: Path, target: Path) -> bool:
    """Across devices: copy, fsync, give it its name, and only then remove the source."""
    copied = source.lstat()
    temporary = target.with_name(f".{target.name}.{copied.st_ino:x}.part")
    temporary.unlink(missing_ok=True)  # of a move that was cut off; by then it may be a second name of the target
    if not os.path.lexists(target):
        with _undone(temporary):
            with source.open("rb") as reader, temporary.open("xb") as writer:
                copied = os.fstat(reader.fileno())
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
            shutil.copystat(source, temporary)
            if not moved(temporary, target):  # somebody has taken the name meanwhile
                temporary.unlink()
                return False
    elif target.is_symlink() or not filecmp.cmp(source, target, shallow=False):
        return False  # if the bytes are the same: a move that was cut off before its last step
    sync_folder(target.parent)
    with _undone(target):
        if _is_still(source, copied):
            source.unlink()
    return True
