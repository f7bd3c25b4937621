"""What differs between an SQLite file and a PostgreSQL server, as ``Database`` needs it."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from fracture_watch.errors import DatabaseUnavailable


class Backend(Protocol):
    """One kind of database.

    ``name`` is how errors name it, without a password; the options are for the connections of a reading or writing
    transaction.
    """

    name: str
    engine: Engine
    reading: Mapping[str, Any]
    writing: Mapping[str, Any]

    def require(self, connection: Connection) -> None:
        """Raise ``InvalidSettings`` if this database is none that will do."""

    def hold(self, revision: str) -> None:
        """It is open, with this schema."""

    def follow(self) -> None:
        """Before every transaction: raise ``DatabaseUnavailable`` if it is not there any more."""

    def begin(self, connection: Connection) -> None:
        """A writing transaction has begun: from here on nobody else writes until its end."""

    def turn(self, name: str) -> AbstractContextManager[bool]:
        """Whether nobody else is at ``name``; others are kept from it until the end."""

    def confirm(self) -> None:
        """Before a writing transaction is committed: raise ``DatabaseUnavailable`` if that would come to nothing."""

    def back_up(self, revision: str) -> None:
        """Before it is migrated from this schema."""

    def look(self, schemas: Collection[str]) -> str:
        """Read as much of it as tells whether it is sound, and say what it is and holds; nothing is changed.

        Raises
        ------
        DatabaseUnavailable
            If it is damaged, out of reach, none of ours, or has another schema than these.
        """

    def fault(self, error: DBAPIError) -> str | None:
        """What the driver said and what to do, if the database itself is at fault and not the statement."""

    def close(self) -> None:
        """Give everything back."""


def require_schema(name: object, found: str, schemas: Collection[str]) -> None:
    """Raise ``DatabaseUnavailable`` if a database has another schema than these."""
    if found not in schemas:
        raise DatabaseUnavailable(f"the database {name} has the schema {found}, of another version of fracture_watch")
