"""Opening the database: pragmas, real transactions, migrations with a backup first."""

import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, DBAPIError

from fracture_watch.errors import DatabaseUnavailable, InvalidSettings

log = logging.getLogger(__name__)
_BUSY_MILLISECONDS = 30_000
CHUNK = 500  # SQLite bounds the number of parameters of one statement
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
_MIGRATIONS = Path(__file__).with_name("migrations")


class Database:
    """An open, migrated database.

    Parameters
    ----------
    url : str
        SQLAlchemy URL.

    Raises
    ------
    DatabaseUnavailable
        If it cannot be opened.
    InvalidSettings
        If it is not ours, or was written by a newer version.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self._engine = create_engine(self.url)
        self._head = ""
        self._following = threading.Lock()
        self._held = ExitStack()
        if self._engine.dialect.name == "sqlite":
            _use_real_transactions(self._engine)
            event.listen(self._engine, "do_connect", self._without_creating)
        self._migrate()
        self._hold()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one consistent state."""
        with self._afresh_after_faults():
            self._follow()
            with self._engine.connect() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, and commits at its end."""
        with self._afresh_after_faults():
            self._follow()
            options = {"fracture_watch_writes": True}
            with self._engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection
                # SQLite goes on writing into a deleted file; what it says is committed would be gone with the process.
                if self._identity is not None and self._file_identity() != self._identity:
                    raise DatabaseUnavailable(self._missed("was removed or replaced while in use"))

    def check(self) -> None:
        """Read all of it once.

        Raises
        ------
        DatabaseUnavailable
            If it is damaged.
        """
        if self._engine.dialect.name == "sqlite" and self.url.database:
            look_at(Path(self.url.database))

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()
        self._held.close()

    @contextmanager
    def _afresh_after_faults(self) -> Iterator[None]:
        """Whatever the cause, no connection from before is used again: it may remember pages that are others now."""
        try:
            with _named(self.url.database or self.url.render_as_string()):
                yield
        except DatabaseUnavailable:
            self._engine.dispose()
            raise

    def _follow(self) -> None:
        """Go on with the file that was put in the place of the one in use, if it is a database of this schema."""
        with self._following:
            found = self._file_identity()
            if self._identity in (None, found):
                return
            self._engine.dispose()
            path = Path(str(self.url.database))
            if found == _NOWHERE:
                raise DatabaseUnavailable(self._missed(_why_out_of_reach(path)))
            other = Path(f"{path}-wal")
            if other.exists() and other.stat().st_size:  # opened with it, SQLite would mix the two
                raise DatabaseUnavailable(
                    f"the database {path} was replaced while in use, and {other.name} beside it is of the one before; "
                    f"put it back: work goes on by itself. If what is there is a backup, remove {other.name} and "
                    f"{path.name}-shm"
                )
            try:
                summary = look_at(path, self._head)
            except DatabaseUnavailable as error:
                raise DatabaseUnavailable(self._missed(f"was replaced while in use ({error})")) from error
            log.warning("the database %s was replaced; going on with what is there now: %s", path, summary)
            self._hold()

    def _hold(self) -> None:
        """Remember which file it is, and keep its inode from being given to another one, should it be removed."""
        self._identity = self._file_identity()
        self._held.close()
        if self._identity not in (None, _NOWHERE) and sys.platform == "linux":
            # O_PATH: closing any other handle on the file would drop SQLite's locks.
            handle = os.open(str(self.url.database), os.O_PATH | os.O_CLOEXEC)
            self._held.callback(os.close, handle)

    def _missed(self, what: str) -> str:
        return (
            f"the database {self.url.database} {what}; put it back, or a backup in its place: work goes on by itself. "
            f"To begin an empty one, stop, remove it and {self.url.database}.lock, and start again"
        )

    def _without_creating(self, _dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        """Once it is open, SQLite's habit of making an empty file in place of a missing one would hide the loss."""
        if self._identity is not None and self.url.database:
            arguments[0] = f"{Path(self.url.database).absolute().as_uri()}?mode=rw"
            options["uri"] = True

    _identity: tuple[int, int] | None = None  # of the SQLite file, once it is migrated

    def _file_identity(self) -> tuple[int, int] | None:
        if self._engine.dialect.name != "sqlite" or not self.url.database:
            return None
        try:
            facts = Path(self.url.database).stat()
        except OSError:
            return _NOWHERE
        return facts.st_dev, facts.st_ino

    def _migrate(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        scripts = ScriptDirectory.from_config(config)
        self._head = scripts.get_current_head() or ""
        with self.reading() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            foreign = revision is None and bool(inspect(connection).get_table_names())
        if foreign:
            raise InvalidSettings(f"{self.url.render_as_string()} is not a fracture_watch database; name another one")
        if revision == self._head:
            return
        if revision is not None and revision not in {script.revision for script in scripts.walk_revisions()}:
            raise InvalidSettings(
                f"{self.url.render_as_string()} has the newer schema {revision}; update fracture_watch"
            )
        if revision is not None:
            self._back_up(revision)
        with self.writing() as connection:
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def _back_up(self, revision: str) -> None:
        if self._engine.dialect.name != "sqlite" or not self.url.database:
            log.warning("the database is migrated from schema %s; its backup is the server's", revision)
            return
        copy = Path(f"{self.url.database}.schema-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S}.bak")
        with (
            _named(str(copy)),
            closing(sqlite3.connect(self.url.database)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        log.warning("the database is migrated from schema %s; a copy of the old one is %s", revision, copy)


def look_at(path: Path, revision: str | None = None) -> str:
    """What an SQLite file holds, without changing it; ``revision``: the schema that it must have.

    Raises
    ------
    DatabaseUnavailable
        If it is damaged or none of ours.
    """
    with _named(str(path)), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise DatabaseUnavailable(f"the database {path} is damaged ({verdict}); keep a copy, and restore a backup")
        if revision is not None and connection.execute(_REVISION).fetchall() != [(revision,)]:
            raise DatabaseUnavailable(f"the database {path} has not the schema {revision}")
        ((count,),) = connection.execute("SELECT count(*) FROM file")
    return f"sound, {count:,} files recorded"


def _why_out_of_reach(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return "was removed while in use"
    except OSError as error:
        return f"is out of reach ({error.strerror})"
    return "was away for a moment"


def chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """``items`` in pieces that fit into one statement."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _use_real_transactions(engine: Engine) -> None:
    """SQLite: WAL, full fsync, foreign keys; transactions begin when we say so, writers with the lock."""

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


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Turn the driver's complaints about the database itself into ours."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        faults = ("OperationalError", "DatabaseError", "InterfaceError")
        if isinstance(error, DatabaseError | sqlite3.Error) and type(cause).__name__ in faults:
            advice = next((f"; {advice}" for said, advice in _ADVICE.items() if said in str(cause)), "")
            raise DatabaseUnavailable(f"the database {url} cannot be used: {cause}{advice}") from error
        raise
