"""PostgreSQL: one writer at a time by an advisory lock, connections that notice a dead server, complaints explained.

Writers take turns as they do on SQLite. So nothing that is read within a writing transaction is out of date when it is
committed: a content that another watcher has just classified is a duplicate, a study's counts are whole, and rows have
their numbers and times in the order in which they became visible. The unique index stays the last word.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from fracture_watch.errors import DatabaseUnavailable, InvalidSettings
from fracture_watch.results.backend import require_schema

log = logging.getLogger(__name__)
OLDEST = (13, 0)  # the oldest server that is accepted
_DRIVER = "postgresql+psycopg"
_MINE = 0x66776C6B  # the first number of our advisory locks, "fwlk": other programs may lock in the same database
_WRITING = 0
_WAIT = {  # milliseconds
    "lock_timeout": "30000",  # until a writer gives up; as long as SQLite's
    "idle_in_transaction_session_timeout": "60000",  # the server frees the lock of one that stopped in the middle
}
# Whoever switched it off for speed would lose results of files that are filed already.
_DURABLE = "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true)"
_BEGIN = text(
    f"SELECT {', '.join(f'set_config({name!r}, {value!r}, true)' for name, value in _WAIT.items())}, {_DURABLE}, "
    f"current_setting('transaction_read_only') = 'on' AS read_only, "
    f"coalesce(has_table_privilege(to_regclass('file'), 'INSERT'), true) AS may_write, "
    f"pg_advisory_xact_lock({_MINE}, {_WRITING})"
)
_TURN = text(f"SELECT pg_try_advisory_xact_lock({_MINE + 1}, hashtext(:name))")
_CONNECTING: Mapping[str, Any] = {
    "connect_timeout": 10,  # seconds
    "application_name": "fracture_watch",
    # A server that vanished without a word is noticed within a minute.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
_ADVICE = {  # what the server or its client library says -> what to do
    "connection option": "see what stands behind the ? in database.url",
    "connect_timeout": "see what stands behind the ? in database.url",
    "support SSL": "encrypt on the server (ssl = on), or see sslmode in database.url",
    "does not exist": "make it with createdb or createuser, or see its name in database.url",
    "password authentication failed": "see the user and the password in database.url",
    "no password supplied": "put the password into database.url, PGPASSWORD or ~/.pgpass",
    "resolve host": "see the host in database.url, and that its name is known here",
    "translate host": "see the host in database.url, and that its name is known here",
    "Connection refused": "see that the server runs, and listens on that host and port",
    "No such file or directory": "see that the server runs, and where its socket is",
    "timeout expired": "see that the host is reachable, and no firewall in between",
    "no pg_hba.conf entry": "let this user in from this machine in the server's pg_hba.conf",
    "too many clients": "raise max_connections of the server",
    "remaining connection slots": "raise max_connections of the server",
    "permission denied": "GRANT what is missing to the user of database.url (docs/postgresql.md)",
    "must be owner": "connect as the owner of the tables, who alone may migrate them",
    "lock timeout": "another program has it locked for long: end that (pg_stat_activity names it)",
    "No space left": "make room on the server's disk",
    "terminating connection": "work goes on by itself when the server is back",
    "closed the connection": "work goes on by itself when the server is back",
    "connection is lost": "work goes on by itself when the server is back",
    "starting up": "work goes on by itself when the server is back",
    "shutting down": "work goes on by itself when the server is back",
}
_KINDS = {"OperationalError", "InterfaceError", "InternalError"}  # of the driver: not about the statement
# insufficient_privilege, undefined_table, invalid_schema_name: somebody has changed the database, not the statement.
_STATES = {"42501", "42P01", "3F000"}


class PostgreSQLServer:
    """A database on a server, which several watchers may share.

    Parameters
    ----------
    url : URL

    Raises
    ------
    InvalidSettings
        If the driver is not installed.
    """

    reading: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}
    # After the lock every statement sees what was committed before it.
    writing: Mapping[str, Any] = {"isolation_level": "READ COMMITTED"}

    def __init__(self, url: URL) -> None:
        self.name = url.render_as_string()
        settings = {key: value for key, value in _CONNECTING.items() if key not in url.query}
        try:
            self.engine = create_engine(
                url.set(drivername=_DRIVER),
                connect_args=settings,
                hide_parameters=True,  # in messages: they hold names of patients
                pool_pre_ping=True,  # a firewall may have cut what was idle
                max_overflow=20,  # every thread of the web service has one at most
            )
        except ImportError as error:
            raise InvalidSettings(
                "database.url: PostgreSQL needs psycopg, which is not installed: `pip install 'psycopg[binary]'`, or "
                "in a checkout `.venv/bin/pip install -c constraints.txt -e '.[postgresql]'`"
            ) from error

    def require(self, connection: Connection) -> None:
        """A server that is new enough, and text that holds every name."""
        require_version(connection.dialect.server_version_info or ())
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise InvalidSettings(
                f"{self.name} has the encoding {encoding}, which does not hold every name; make one with "
                "`createdb --encoding UTF8 --template template0`"
            )

    def hold(self, revision: str) -> None:
        """Its server keeps it in its place."""

    def follow(self) -> None:
        """The connection itself tells whether it is there."""

    def begin(self, connection: Connection) -> None:
        """Wait for the lock that every writer takes; it goes with the transaction, and with the connection."""
        found = connection.execute(_BEGIN).one()
        if found.read_only:
            raise DatabaseUnavailable(
                f"the database {self.name} is read-only: it is a standby, or was set so; name the primary server"
            )
        if not found.may_write:
            raise DatabaseUnavailable(
                f"the database {self.name} cannot be written: its user has no right to; GRANT it (docs/postgresql.md)"
            )

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Another advisory lock; it goes with the transaction, and with the connection."""
        with self.engine.connect() as connection, connection.begin():
            yield bool(connection.scalar(_TURN, {"name": name}))

    def confirm(self) -> None:
        """The server says so if it cannot commit."""

    def back_up(self, revision: str) -> None:
        """Is the server's."""
        log.warning("the database is migrated from schema %s; its backup is the server's", revision)

    def look(self, schemas: Collection[str]) -> str:
        """What the server is, and what is in the database."""
        with self.engine.connect().execution_options(**self.reading) as connection:
            self.require(connection)
            kind = f"PostgreSQL {connection.scalar(text('SHOW server_version'))}"
            tables = set(inspect(connection).get_table_names())
            if not tables:
                return f"{kind}; empty, the tables are made at the first start"
            if not {"alembic_version", "file"} <= tables:
                raise DatabaseUnavailable(f"{self.name} is not a fracture_watch database; name another one")
            schema = connection.scalar(text("SELECT version_num FROM alembic_version"))
            require_schema(self.name, schema, schemas)
            count = connection.scalar(text("SELECT count(*) FROM file"))
            return f"{kind}, schema {schema}; {count:,} files recorded"

    def fault(self, error: DBAPIError) -> str | None:
        """Whether the server is at fault, or is not there."""
        cause = error.orig
        kinds = {kind.__name__ for kind in type(cause).__mro__}
        connecting = error.statement is None and "ProgrammingError" in kinds  # the URL asks for what there is not
        if not connecting and not kinds & _KINDS and getattr(cause, "sqlstate", None) not in _STATES:
            return None
        # Not the lines that quote the statement; of a connection that was not made, libpq has several.
        primary = getattr(getattr(cause, "diag", None), "message_primary", None)
        said = primary or " ".join(str(cause).split())
        return said + next((f"; {advice}" for words, advice in _ADVICE.items() if words in said), "")

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def require_version(found: tuple[int | str, ...]) -> None:
    """Raise ``InvalidSettings`` if a server of this version is too old."""
    if tuple(map(int, found)) < OLDEST:
        shown, oldest = ".".join(map(str, found)), OLDEST[0]
        raise InvalidSettings(f"database.url: the server is PostgreSQL {shown}; {oldest} or newer is needed")
