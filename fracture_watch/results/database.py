"""Opening the database: pragmas, real transactions, migrations with a backup first."""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
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
        if self._engine.dialect.name == "sqlite":
            _use_real_transactions(self._engine)
        self._migrate()
        self._identity = self._file_identity()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one consistent state."""
        with _named(self.url.render_as_string()), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, and commits at its end."""
        with (
            _named(self.url.render_as_string()),
            self._engine.connect().execution_options(fracture_watch_writes=True) as connection,
            connection.begin(),
        ):
            yield connection
            # SQLite goes on writing into a deleted file; what it says is committed would be gone with the process.
            if self._identity is not None and self._file_identity() != self._identity:
                raise DatabaseUnavailable(
                    f"the database {self.url.database} was removed or replaced while in use; put it back, or stop and "
                    "start again for a new one"
                )

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    _identity: tuple[int, int] | None = None  # of the SQLite file, once it is migrated

    def _file_identity(self) -> tuple[int, int] | None:
        if self._engine.dialect.name != "sqlite" or not self.url.database:
            return None
        try:
            facts = Path(self.url.database).stat()
        except OSError:
            return 0, 0
        return facts.st_dev, facts.st_ino

    def _migrate(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        scripts = ScriptDirectory.from_config(config)
        with self.reading() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            foreign = revision is None and bool(inspect(connection).get_table_names())
        if foreign:
            raise InvalidSettings(f"{self.url.render_as_string()} is not a fracture_watch database; name another one")
        if revision == scripts.get_current_head():
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


def look_at(path: Path) -> str:
    """What an SQLite file holds, without changing it.

    Raises
    ------
    DatabaseUnavailable
        If it is damaged or none of ours.
    """
    with _named(str(path)), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise DatabaseUnavailable(f"the database {path} is damaged ({verdict}); restore a backup of it")
        ((count,),) = connection.execute("SELECT count(*) FROM file")
    return f"sound, {count:,} files recorded"


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
            raise DatabaseUnavailable(f"the database {url} cannot be used: {cause}") from error
        raise
