"""Column types that mean the same on SQLite and on PostgreSQL."""

from typing import Any

from sqlalchemy import BigInteger, Dialect, Insert, Integer, Table, Text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator, TypeEngine


class PortableText(TypeDecorator[str]):
    """Text that is compared and ordered by code point, whatever a server's locale, and that every database takes.

    PostgreSQL refuses NUL, and every driver lone surrogates. What holds one is stored or looked for in a spelling that
    nothing else has, so that a question with one finds nothing instead of failing.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """SQLite compares bytes by itself; PostgreSQL has to be told."""
        return dialect.type_descriptor(Text(collation="C") if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """A value on its way to the database."""
        if value is None:
            return None
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "backslashreplace").decode("utf-8")


TEXT = PortableText()
# SQLite numbers rows by itself in INTEGER alone, which there has 64 bits; PostgreSQL's has 32.
NUMBER = Integer().with_variant(BigInteger(), "postgresql")


def insert_or_ignore(table: Table, dialect: Dialect) -> Insert:
    """An insert that leaves a row alone that is there already, whoever wrote it."""
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
