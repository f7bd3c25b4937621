"""Where files go after their outcome is committed. Moves never overwrite and work across devices."""

import contextlib
import errno
import filecmp
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fracture_watch.errors import StorageUnavailable
from fracture_watch.intake.settling import stamp_of
from fracture_watch.records import DISCLAIMER, Classified, Duplicate, Outcome, Recorded, SourceFile, now

log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


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

    def destination(self, source: SourceFile, outcome: Outcome) -> Path | None:
        """Where the file will go: a free name now, the source's own path to stay, ``None`` to be deleted."""
        processed = isinstance(outcome, Classified | Duplicate)
        if processed and self.processed == "keep":
            return source.path
        if processed and self.processed == "delete":
            return None
        root = self.processed_dir if processed else self.quarantine_dir
        return next(name for name in _names(_below(root, source.path.relative_to(self.inbox))) if _is_free(name))

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
        source, target = recorded.source.path, recorded.filed_path
        if target == source:
            return target
        try:
            if target is not None:
                target = self._move(recorded, target)
            elif _is_still_there(recorded.source):
                source.unlink()
        except OSError as error:
            if error.errno in _FULL:
                raise StorageUnavailable(f"{source} cannot be filed to {target}: {error.strerror}") from error
            self.probe()  # if that works, it is this file's own fault, and the others go on
            reason = error.strerror or error
            log.error("%s is recorded but cannot be moved, so it stays: %s; check its permissions", source, reason)  # noqa: TRY400
            return source
        return target

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
        relative = source.relative_to(self.inbox) if source.is_relative_to(self.inbox) else Path(source.name)
        target = _below(self.inbox, relative)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target = next(name for name in _names(target) if not os.path.lexists(name) and _moved(filed, name))
            slip_path(filed).unlink(missing_ok=True)
        except FileNotFoundError:
            raise
        except OSError as error:
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
            probe = folder / f".probe-{os.getpid()}.part"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with probe.open("wb") as file:
                    file.write(bytes(65536))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StorageUnavailable(f"{folder} cannot be written: {error.strerror}") from error
            finally:
                with contextlib.suppress(OSError):
                    probe.unlink()

    def require_room(self) -> None:
        """Raise ``StorageUnavailable`` before a disk is full, while there is still room to finish what is in hand."""
        for folder in (self.processed_dir, self.quarantine_dir, *self.others):
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

    def _move(self, recorded: Recorded, target: Path) -> Path | None:
        source = recorded.source.path
        processed = isinstance(recorded.outcome, Classified | Duplicate)
        if _is_still_there(recorded.source):  # else it was moved before a crash, or somebody took it away
            target.parent.mkdir(parents=True, exist_ok=True)
            target = next(
                name for name in _names(target) if not os.path.lexists(slip_path(name)) and _moved(source, name)
            )
        if not target.exists():
            return None
        if self.receipts or not processed:
            _write_json(slip_path(target), _slip(recorded))
        return target


def _is_still_there(source: SourceFile) -> bool:
    """Whether the path still holds the file that was processed, and not a later one of the same name."""
    try:
        facts = source.path.lstat()
    except FileNotFoundError:
        return False
    return stamp_of(facts) == (source.size, source.modified_ns, source.inode)


def _below(root: Path, relative: Path) -> Path:
    """``relative`` below ``root``, beside files that have the name of one of its folders."""
    for part in relative.parts[:-1]:
        root = next(name for name in _names(root / part) if name.is_dir() or not os.path.lexists(name))
    return root / _fitting(relative.name)


def _fitting(name: str) -> str:
    """The name, cut so that a number and a sidecar's ending still fit into the 255 bytes of a file name."""
    if len(os.fsencode(name)) <= 225:
        return name
    suffix = Path(name).suffix if len(os.fsencode(Path(name).suffix)) <= 20 else ""
    return os.fsdecode(os.fsencode(name.removesuffix(suffix))[:200]) + suffix


def _is_free(name: Path) -> bool:
    """Whether neither a file nor the sidecar that it may get would meet another one."""
    return not os.path.lexists(name) and not os.path.lexists(slip_path(name))


def slip_path(path: Path) -> Path:
    """Where a file's sidecar or receipt lies."""
    return path.with_name(path.name + ".json")


def _names(wanted: Path) -> Iterator[Path]:
    """``a.dcm``, ``a-1.dcm``, ``a-2.dcm``, ..."""
    yield wanted
    number = 0
    while True:
        number += 1
        yield wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")


def _moved(source: Path, target: Path) -> bool:
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
        source.unlink()
    return True


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
    # If the bytes are the same: a move that was cut off before its last step.
    if os.path.lexists(target) and (target.is_symlink() or not filecmp.cmp(source, target, shallow=False)):
        return False
    temporary = target.with_name(f".{target.name}.part")
    with _undone(temporary):
        with source.open("rb") as reader, temporary.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        shutil.copystat(source, temporary)
        temporary.replace(target)
    _fsync_folder(target.parent)
    with _undone(target):
        source.unlink()
    return True


def _slip(recorded: Recorded) -> dict[str, Any]:
    """What a sidecar or receipt says."""
    outcome = recorded.outcome
    slip: dict[str, Any] = {
        "result": recorded.id,
        "status": str(outcome.status),
        "code": getattr(outcome, "code", None),
        "detail": getattr(outcome, "detail", None),
        "sha256": outcome.sha256,
        "source_path": str(recorded.source.path),
        "attempts": recorded.attempts,
        "when": now(),
    }
    if isinstance(outcome, Classified):
        prediction = outcome.prediction
        slip |= {
            "prediction": str(prediction.label),
            "probability": prediction.probability,
            "threshold": prediction.threshold,
            "model": asdict(prediction.model),
            "disclaimer": DISCLAIMER,
        }
    return slip


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # A file name may hold bytes that are no UTF-8: they become JSON escapes.
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # or a power cut leaves an empty slip under the right name
    temporary.replace(path)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
