"""What is old, or one patient's, is removed: rows, the files that were filed here, and what was made of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from fracture_watch.delivery.shelf import Shelf
from fracture_watch.errors import StorageUnavailable
from fracture_watch.intake.slips import slip_path
from fracture_watch.results.database import Database
from fracture_watch.results.removal import Kept, Wanted, count_of_others, remove_rows, rows_to_remove, shared_places


@dataclass(frozen=True, slots=True)
class Places:
    """Folders whose files are ours to remove, and the inbox, where a file that stays must keep its row.

    ``stayed`` says where files of the inbox lie that are recorded by an alias alone; ``watcher`` names the inbox where
    several watchers have one database.
    """

    ours: tuple[Path, ...]
    artefacts: Path
    inbox: Path
    stayed: Mapping[Path, Path] = field(default_factory=dict)
    watcher: str | None = None

    def of(self, path: Path | None) -> Path | None:
        """Where a file lies whose place is recorded as ``path``."""
        return self.stayed.get(path, path) if path else None


def prune(database: Database, wanted: Wanted, places: Places, *, really: bool) -> Counter[str]:
    """Remove rows and files, or only count them.

    Files go first, so that after a crash a repeated call still finds what is left. Files that were scanned where they
    are stay, and only their rows go.

    Returns
    -------
    Counter
        ``rows``, ``files`` and ``bytes`` that are removed; ``in_inbox`` rows that stay because their file does;
        ``elsewhere`` files that stay; ``of_other_watchers`` rows that stay, since their files are on other machines.

    Raises
    ------
    StorageUnavailable
        If a file cannot be removed; its row stays, too.
    """
    counts: Counter[str] = Counter(of_other_watchers=count_of_others(database, wanted, places.watcher))
    for rows in rows_to_remove(database, wanted, places.watcher):
        shared = {places.of(path) for path in shared_places(database, rows, wanted, places.watcher)}
        located = [replace(row, filed_path=places.of(row.filed_path)) for row in rows]
        gone = [row for row in located if not _stays(row, places)]
        counts["in_inbox"] += len(rows) - len(gone)
        counts["rows"] += len(gone)
        counts["elsewhere"] += len({row.filed_path for row in gone if _lies_elsewhere(row, places)})
        # Several rows may stand for one file.
        for path in dict.fromkeys(path for row in gone for path in _files(row, places, shared)):
            with suppress(FileNotFoundError):  # somebody else has removed it meanwhile
                counts["bytes"] += path.lstat().st_size
                counts["files"] += 1
            if really:
                _remove(path)
        if really:
            remove_rows(database, gone)
    return counts


def _stays(row: Kept, places: Places) -> bool:
    """Without its row, a file that stays in the inbox would be received again."""
    path = row.filed_path
    return path is not None and path.is_relative_to(places.inbox) and not _below(path, places.ours) and path.exists()


def _lies_elsewhere(row: Kept, places: Places) -> bool:
    return row.filed_path is not None and not _below(row.filed_path, places.ours) and row.filed_path.exists()


def _files(row: Kept, places: Places, shared: set[Path | None]) -> list[Path]:
    """The row's file, its slip, its picture and its DICOM objects, as far as they are there and ours."""
    found = []
    if row.filed_path and row.filed_path not in shared and _below(row.filed_path, places.ours):
        found += [row.filed_path, slip_path(row.filed_path)]
    if row.heatmap_path and _below(row.heatmap_path, (places.artefacts,)):
        found.append(row.heatmap_path)
    if row.result:
        found += Shelf(places.artefacts).all_of(*row.result)
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageUnavailable(f"{path} cannot be removed: {error.strerror}; change its permissions") from error
