"""Settings -> the database, the folders, and who may use them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fracture_watch.config import Settings
from fracture_watch.disk import digest
from fracture_watch.errors import InvalidSettings
from fracture_watch.intake.claim import claimed as claimed_by
from fracture_watch.intake.claim import name_of
from fracture_watch.intake.filing import Filing
from fracture_watch.intake.mounts import network_type
from fracture_watch.intake.tree import Tree, scan
from fracture_watch.privacy import Privacy
from fracture_watch.records import Facts
from fracture_watch.results.database import Database, is_empty

if TYPE_CHECKING:
    from fracture_watch.retention import Places


def open_database(settings: Settings) -> Database:
    """Open, and where needed create or migrate, the database.

    Raises
    ------
    InvalidSettings
        If it cannot lie where the settings say.
    """
    path = database_path(settings)
    require_known(path)
    name = name_file(settings)
    if path is None and name.exists() and is_empty(settings.database.url):
        raise InvalidSettings(
            f"database.url: {settings.database.shown} is empty, but {name} says that this inbox was recorded in one "
            "before. Restore it from a backup, or remove that file to begin with an empty one"
        )
    return Database(settings.database.url)


def require_known(path: Path | None) -> None:
    """See that an SQLite file that was in use is still there.

    Raises
    ------
    InvalidSettings
        If it is gone, or is an empty file, as tools make them that open what is not there.
    """
    lock = lock_of(path) if path else None
    if path and lock and lock.exists() and lock.stat().st_size and not (path.exists() and path.stat().st_size):
        raise InvalidSettings(
            f"database.url: {path} is {'empty' if path.exists() else 'gone'}, but {lock.name} says that results were "
            f"recorded in it. Put it back, from a backup if need be, or remove {lock} too to begin with an empty one"
        )


def database_path(settings: Settings) -> Path | None:
    """Where the SQLite file lies; ``None`` on a server.

    Raises
    ------
    InvalidSettings
        If that is on a network file system, where SQLite's locks do not hold, or in no folder.
    """
    path = settings.database.path
    if path is None:
        return None
    kind = network_type(path)
    if kind:
        raise InvalidSettings(
            f"database.url: {path} lies on a network file system ({kind}), where SQLite loses data; put it on a "
            "local disk"
        )
    if not path.parent.is_dir():
        raise InvalidSettings(f"database.url: the folder {path.parent} does not exist; create it first")
    return path


def lock_of(database: Path) -> Path:
    """Held by the daemon that writes to the database; it stays, so that a database that went missing is noticed."""
    return database.with_name(f"{database.name}.lock")


@contextmanager
def claimed(settings: Settings) -> Iterator[None]:
    """Keep other daemons away from the inbox, and from the database where that is a file.

    Raises
    ------
    InvalidSettings
        If one is there already.
    """
    make_folder("inbox.path", settings.inbox.path)
    database = settings.database.path
    with (
        claimed_by(inbox_lock(settings), f"inbox.path: {settings.inbox.path}"),
        claimed_by(lock_of(database), f"database.url: {database}") if database else nullcontext(),
    ):
        yield


def inbox_lock(settings: Settings) -> Path:
    """Held by the daemon that watches the inbox."""
    return settings.inbox.path / ".fracture_watch.lock"


def watcher_of(settings: Settings, *, make: bool = False) -> str | None:
    """Which of the watchers that share a server has this inbox; ``None`` where a file is the database's, or unknown.

    What is recorded names files by their path, and two machines may use the same paths. So each inbox has a name of
    its own, which goes with the folder; ``make``: give it one, if it has none.
    """
    if settings.database.path is not None:
        return None
    if make:
        make_folder("inbox.path", settings.inbox.path)
    return name_of(name_file(settings), make=make)


def name_file(settings: Settings) -> Path:
    """Where an inbox on a server's database has its name; it stays, so that a lost database is noticed."""
    return settings.inbox.path / ".fracture_watch.name"


def filing(settings: Settings) -> Filing:
    """Where files go."""
    chosen = settings.filing
    return Filing(
        settings.inbox.path,
        chosen.processed_dir,
        chosen.quarantine_dir,
        chosen.processed,
        chosen.receipts,
        chosen.min_free_mb << 20,
        (chosen.artefacts_dir, *([settings.database.path.parent] if settings.database.path else ())),
    )


def privacy(settings: Settings) -> Privacy:
    """What becomes of identifiers."""
    chosen, filing = settings.privacy, settings.filing
    salt = chosen.salt.get_secret_value().encode() if chosen.salt else b""
    return Privacy(chosen.identifiers, salt, (filing.processed_dir, filing.quarantine_dir))


def tree(settings: Settings, root: Path) -> Tree:
    """The files of a folder, each with the name under which it may be known."""
    chosen = settings.inbox
    named = None if settings.privacy.identifiers == "keep" else privacy(settings).source
    return Tree(root, chosen.recursive, chosen.ignore, named)


def aliases(settings: Settings, asked: str) -> tuple[str, ...]:
    """What else rows may hold, where they hold hashes, for a path, an accession number or what stands for a UID."""
    guard = privacy(settings)
    told = guard.facts(Facts(study_uid=asked, series_uid=asked, sop_instance_uid=asked))
    uids = {told.study_uid, told.series_uid, told.sop_instance_uid} - {None, asked}
    return (*guard.names(asked), *sorted(map(str, uids)))


def recorded_as(settings: Settings, wanted: str) -> tuple[str, ...]:
    """What else may be recorded in the place of a path, an accession number or a UID that somebody asks for."""
    path = Path(os.path.normpath(Path(wanted).absolute()))
    if settings.privacy.identifiers != "drop" or not path.is_file() or path.is_symlink():
        return aliases(settings, wanted)
    [source] = scan(tree(settings, path))
    try:
        return source.name, digest(path)  # its name is recorded nowhere, its content is
    except OSError:
        return (source.name,)


def places(settings: Settings, *, erase: bool) -> "Places":
    """What ``prune`` may remove: what was filed here; to erase a patient, also in quarantine or in the inbox."""
    from fracture_watch.retention import Places

    chosen, inbox = settings.filing, settings.inbox.path
    ours = (chosen.processed_dir, chosen.quarantine_dir, inbox) if erase else (chosen.processed_dir,)
    known = tree(settings, inbox)
    stayed: dict[Path, Path] = {}
    if known.named and chosen.processed == "keep" and inbox.is_dir():
        stayed = {Path(source.name): source.path for source in scan(known)}
    return Places(ours, chosen.artefacts_dir, inbox, stayed, watcher_of(settings))


def make_folder(key: str, path: Path) -> None:
    """Make the folder that a setting names.

    Raises
    ------
    InvalidSettings
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSettings(f"{key}: {path} cannot be created: {error.strerror}") from error
