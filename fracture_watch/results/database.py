"""Opening the database: real transactions on SQLite and on PostgreSQL, migrations with a backup first."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import alembic.command
import alembic.config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft

from fracture_watch.errors import DatabaseUnavailable, InvalidSettings
from fracture_watch.results.backend import Backend
from fracture_watch.results.postgresql import PostgreSQLServer
from fracture_watch.results.sqlite import SQLiteFile

CHUNK = 500  # SQLite bounds the number of parameters of one statement
_MIGRATIONS = Path(__file__).with_name("migrations")


class Database:
    """An open, migrated database.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of an SQLite file or of a database on a PostgreSQL server.

    Raises
    ------
    DatabaseUnavailable
        If it cannot be opened.
    InvalidSettings
        If it is not ours, was written by a newer version, or is on a server that will not do.
    """

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self._backend = _backend(self.url)
        self._schema = self._migrate()
        self._backend.hold(self._schema)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one consistent state."""
        with self._afresh_after_faults():
            self._backend.follow()
            engine, options = self._backend.engine, self._backend.reading
            with engine.connect().execution_options(**options) as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, and commits at its end.

        Whatever is read in it was written by nobody else since.
        """
        with self._afresh_after_faults():
            self._backend.follow()
            engine, options = self._backend.engine, self._backend.writing
            with engine.connect().execution_options(**options) as connection, connection.begin():
                self._backend.begin(connection)
                yield connection
                self._backend.confirm()

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Whether it is this process's turn at something that only one may do at a time; it is until the end."""
        with self._afresh_after_faults():
            self._backend.follow()
            with self._backend.turn(name) as ours:
                yield ours

    def check(self) -> str:
        """Read it once, as far as that tells whether it is sound; says what it is and holds.

        Raises
        ------
        DatabaseUnavailable
            If it is damaged.
        """
        with self._afresh_after_faults():
            return self._backend.look({self._schema})

    def close(self) -> None:
        """Give the connections back."""
        self._backend.close()

    @contextmanager
    def _afresh_after_faults(self) -> Iterator[None]:
        """Whatever the cause, no connection from before is used again: it may remember pages that are others now."""
        try:
            with _named(self._backend):
                yield
        except DatabaseUnavailable:
            self._backend.engine.dispose()
            raise

    def _migrate(self) -> str:
        """Bring the tables up to date; gives back their revision."""
        config, name = _migrations(), self._backend.name
        head = ScriptDirectory.from_config(config).get_current_head() or ""
        with self.reading() as connection:
            self._backend.require(connection)
            revision = MigrationContext.configure(connection).get_current_revision()
            foreign = revision is None and bool(inspect(connection).get_table_names())
        if foreign:
            raise InvalidSettings(f"{name} is not a fracture_watch database; name another one")
        if revision == head:
            return head
        if revision is not None and revision not in _schemas():
            raise InvalidSettings(f"{name} has the newer schema {revision}; update fracture_watch")
        if revision is not None:
            self._backend.back_up(revision)
        with self.writing() as connection:  # whoever starts at the same time waits, and finds nothing to do
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
        return head


def _migrations() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _schemas() -> set[str]:
    """Every schema that this version knows."""
    return {script.revision for script in ScriptDirectory.from_config(_migrations()).walk_revisions()}


def look_at(url: str) -> str:
    """What a database is and holds; it is neither changed nor migrated.

    Raises
    ------
    DatabaseUnavailable
        If it is damaged, out of reach, none of ours, or of a newer version.
    """
    with looking(url) as backend:
        return backend.look(_schemas())


def is_empty(url: str) -> bool:
    """Whether nobody has made a table in it yet.

    Raises
    ------
    DatabaseUnavailable
        If it is out of reach.
    """
    with looking(url) as backend, backend.engine.connect() as connection:
        return not inspect(connection).get_table_names()


@contextmanager
def looking(url: str) -> Iterator[Backend]:
    """A database that is not migrated, for a look at it."""
    with closing(_backend(_parsed(url))) as backend, _named(backend):
        yield backend


def chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """``items`` in pieces that fit into one statement."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _parsed(url: str) -> URL:
    """What is behind ``sqlite:///`` is a path, in which a % stands for itself."""
    path = url.removeprefix("sqlite:///")
    return make_url(url) if path == url else URL.create("sqlite", database=path)


def _backend(url: URL) -> Backend:
    return SQLiteFile(url) if url.get_backend_name() == "sqlite" else PostgreSQLServer(url)


@contextmanager
def _named(backend: Backend) -> Iterator[None]:
    """Turn the driver's complaints about the database itself into ours."""
    try:
        yield
    except DBAPIError as error:
        fault = backend.fault(error)
        if fault is None:
            raise
        raise DatabaseUnavailable(f"the database {backend.name} cannot be used: {fault}") from error
    except NoConnectionLeft as error:
        raise DatabaseUnavailable(f"the database {backend.name} is asked too much at once; try again") from error
