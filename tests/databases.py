"""An SQLite file or a PostgreSQL database of its own for every test, with the tables in it."""

import contextlib
import os
import uuid

import pytest
from sqlalchemy import create_engine, inspect, make_url, text

from benchmarks.cluster import Cluster, binary
from fracture_watch.results.database import Database

PASSWORD = "s3cret-of-the-server"  # of the cluster that is started here; tests look for it where it must not be
_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")


def refuse(reason: str) -> None:
    """Skip, or with CI=true fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def cluster():
    """A server that a test may stop, and that forgets everything when the machine does."""
    return Cluster(PASSWORD, _QUICK)


class Server:
    """Where databases are made: the server of ``PGURL``, or one that is started for the session."""

    def __init__(self, url):
        self.url = url.rstrip("/")
        self._admin = create_engine(self.driven("postgres"), isolation_level="AUTOCOMMIT")
        self._made = []
        self._reused = self.empty()
        Database(self.of(self._reused)).close()

    def of(self, name):
        return f"{self.url}/{name}"

    def driven(self, name):
        return make_url(self.of(name)).set(drivername="postgresql+psycopg")

    def empty(self, *options):
        name = f"fw_{uuid.uuid4().hex[:12]}"
        self.run(f"CREATE DATABASE {name} {' '.join(options)}")
        self._made.append(name)
        return name

    def emptied(self):
        """The URL of a database with all tables, and nothing in them: a new one for each test takes far longer."""
        engine = create_engine(self.driven(self._reused), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            tables = ", ".join(name for name in inspect(connection).get_table_names() if name != "alembic_version")
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        engine.dispose()
        return self.of(self._reused)

    def run(self, sql):
        with self._admin.connect() as connection:
            return connection.execute(text(sql))

    def close(self):
        self._admin.dispose()

    def remove_all(self):
        """From a server that stays; each takes a checkpoint, which lasts longer than the tests."""
        for name in reversed(self._made):
            self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def needs_postgresql():
    pytest.importorskip("psycopg") if os.environ.get("CI") != "true" else None
    if not os.environ.get("PGURL") and not (binary("initdb") and binary("pg_ctl")):
        refuse("PostgreSQL is not installed (as root on Debian, `make test` installs it), and PGURL names no server")


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server."""
    needs_postgresql()
    with contextlib.ExitStack() as stack:
        url = os.environ.get("PGURL")
        if not url:
            started = cluster()
            stack.callback(started.remove)
            url = started.url
        server = Server(url)
        stack.callback(server.close)
        if os.environ.get("PGURL"):
            stack.callback(server.remove_all)
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def kind(request):
    """Each of the two databases."""
    return request.param


@pytest.fixture
def url(kind, request, tmp_path):
    """A database of its own for a test, with nothing in it."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'x.db'}"
    return request.getfixturevalue("postgresql").emptied()


@pytest.fixture
def database(url):
    """The same, open."""
    database = Database(url)
    yield database
    database.close()


def query(database, sql):
    """Rows of SQL as dictionaries."""
    with database.reading() as connection:
        return [dict(row) for row in connection.execute(text(sql)).mappings()]
