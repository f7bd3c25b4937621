"""What differs between an SQLite file and a PostgreSQL server, as ``Database`` needs it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError


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

    def look(self) -> str:
        """Read as much of it as tells whether it is sound, and say what it is and holds; nothing is changed.

        Raises
        ------
        DatabaseUnavailable
            If it is damaged, out of reach or none of ours.
        """

    def fault(self, error: DBAPIError) -> str | None:
        """What the driver said and what to do, if the database itself is at fault and not the statement."""

    def close(self) -> None:
        """Give everything back."""
