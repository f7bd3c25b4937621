"""SQLite: pragmas and real transactions, a file that may be replaced while in use, a copy before a migration."""

import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError

from fracture_watch.errors import DatabaseUnavailable
from fracture_watch.results.backend import require_schema

log = logging.getLogger(__name__)
_BUSY_MILLISECONDS = 30_000
_NOWHERE = (0, 0)
_REVISION = "SELECT version_num FROM alembic_version"
_ADVICE = {  # what SQLite says -> what to do
    "locked": "another program has it locked, such as an SQLite browser with unsaved changes: end that",
    "malformed": "it is damaged: stop, keep a copy of it, and restore a backup",
    "not a database": "it is damaged or something else: keep a copy of it, and restore a backup",
    "full": "make room on its disk",
    "readonly": "make it and its folder writable for this user",
    "read-only": "make it and its folder writable for this user",
    "unable to open": "see that it and its folder are there and open to this user",
    "disk I/O error": "see that its disk is sound, mounted and has room",
}


class SQLiteFile:
    """A database in a file of this machine.

    Parameters
    ----------
    url : URL
        Without a file it is in memory.
    """

    reading: Mapping[str, Any] = {}
    writing: Mapping[str, Any] = {"fracture_watch_writes": True}

    def __init__(self, url: URL) -> None:
        self.engine = create_engine(url, hide_parameters=True)  # in messages: they hold names of patients
        self.name = url.database or url.render_as_string()
        self._path = Path(url.database) if url.database else None
        self._identity: tuple[int, int] | None = None  # of the file, once it is migrated
        self._revision = ""
        self._following = threading.Lock()
        self._held = ExitStack()
        _use_real_transactions(self.engine)
        event.listen(self.engine, "do_connect", self._without_creating)

    def require(self, connection: Connection) -> None:
        """Every SQLite will do that Python brings along."""

    def hold(self, revision: str) -> None:
        """Remember which file it is, and keep its inode from being given to another one, should it be removed."""
        self._revision = revision
        self._identity = self._file_identity()
        self._held.close()
        if self._identity not in (None, _NOWHERE) and sys.platform == "linux":
            # O_PATH: closing any other handle on the file would drop SQLite's locks.
            handle = os.open(self.name, os.O_PATH | os.O_CLOEXEC)
            self._held.callback(os.close, handle)

    def follow(self) -> None:
        """Go on with the file that was put in the place of the one in use, if it is a database of this schema."""
        with self._following:
            found = self._file_identity()
            if self._path is None or self._identity in (None, found):
                return
            self.engine.dispose()
            if found == _NOWHERE:
                raise DatabaseUnavailable(self._missed(_why_out_of_reach(self._path)))
            other = Path(f"{self._path}-wal")
            if other.exists() and other.stat().st_size:  # opened with it, SQLite would mix the two
                raise DatabaseUnavailable(
                    f"the database {self._path} was replaced while in use, and {other.name} beside it is of the one "
                    f"before; put it back: work goes on by itself. If what is there is a backup, remove {other.name} "
                    f"and {self._path.name}-shm"
                )
            try:
                summary = look_at(self._path, {self._revision})
            except DatabaseUnavailable as error:
                raise DatabaseUnavailable(self._missed(f"was replaced while in use ({error})")) from error
            log.warning("the database %s was replaced; going on with what is there now: %s", self._path, summary)
            self.hold(self._revision)

    def begin(self, connection: Connection) -> None:
        """``BEGIN IMMEDIATE`` has the lock already."""

    def turn(self, name: str) -> AbstractContextManager[bool]:
        """The one daemon that a file has is alone at everything."""
        return nullcontext(True)

    def confirm(self) -> None:
        """SQLite goes on writing into a deleted file; what it says is committed would be gone with the process."""
        if self._identity is not None and self._file_identity() != self._identity:
            raise DatabaseUnavailable(self._missed("was removed or replaced while in use"))

    def back_up(self, revision: str) -> None:
        """A consistent copy beside it."""
        if self._path is None:
            return
        copy = Path(f"{self._path}.schema-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S}.bak")
        with (
            _named(copy),
            closing(sqlite3.connect(self._path)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        log.warning("the database is migrated from schema %s; a copy of the old one is %s", revision, copy)

    def look(self, schemas: Collection[str]) -> str:
        """Read all of it once."""
        return look_at(self._path, schemas) if self._path else "in memory"

    def fault(self, error: DBAPIError) -> str | None:
        """Whether SQLite complains of the file."""
        return _complaint(error.orig) if isinstance(error, DatabaseError) else None

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        self._held.close()

    def _missed(self, what: str) -> str:
        return (
            f"the database {self.name} {what}; put it back, or a backup in its place: work goes on by itself. "
            f"To begin an empty one, stop, remove it and {self.name}.lock, and start again"
        )

    def _without_creating(self, _dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        """Once it is open, SQLite's habit of making an empty file in place of a missing one would hide the loss.

        It would make a database of an empty file, too, which may be one that a backup is being copied into.
        """
        if self._identity is not None and self._path:
            if self._path.exists() and not self._path.stat().st_size:
                raise DatabaseUnavailable(self._missed("is empty"))
            arguments[0] = f"{self._path.absolute().as_uri()}?mode=rw"
            options["uri"] = True

    def _file_identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            facts = self._path.stat()
        except OSError:
            return _NOWHERE
        return facts.st_dev, facts.st_ino


def look_at(path: Path, schemas: Collection[str]) -> str:
    """What an SQLite file holds, without changing it.

    Raises
    ------
    DatabaseUnavailable
        If it is damaged, none of ours, or has another schema than these.
    """
    with _named(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise DatabaseUnavailable(f"the database {path} is damaged ({verdict}); keep a copy, and restore a backup")
        ((count,),) = connection.execute("SELECT count(*) FROM file")
        schema = ", ".join(row[0] for row in connection.execute(_REVISION))
    require_schema(path, schema, schemas)
    return f"SQLite {sqlite3.sqlite_version}, schema {schema}; sound, {count:,} files recorded"


def _why_out_of_reach(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return "was removed while in use"
    except OSError as error:
        return f"is out of reach ({error.strerror})"
    return "was away for a moment"


def _use_real_transactions(engine: Engine) -> None:
    """WAL, full fsync, foreign keys; transactions begin when we say so, writers with the lock."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own implicit BEGIN comes too late
        for pragma in (
            f"busy_timeout = {_BUSY_MILLISECONDS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",  # what is erased is overwritten, not only forgotten
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("fracture_watch_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _complaint(cause: BaseException | None) -> str | None:
    """What SQLite says of the file, and what to do; ``None`` where the statement is at fault."""
    if type(cause).__name__ not in ("OperationalError", "DatabaseError", "InterfaceError"):
        return None
    advice = next((f"; {advice}" for said, advice in _ADVICE.items() if said in str(cause)), "")
    return f"{cause}{advice}"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        complaint = _complaint(error)
        if complaint is None:
            raise
        raise DatabaseUnavailable(f"the database {path} cannot be used: {complaint}") from error
