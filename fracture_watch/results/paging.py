"""Pages of an answer: where one ends, and how the next goes on from there."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, literal, tuple_

from fracture_watch.records import Label
from fracture_watch.results import cursors

# The parts of the worklist, in their order. None: studies of which nothing was classified.
PARTS: tuple[str | None, ...] = (str(Label.FRACTURED), str(Label.NOT_FRACTURED), None)
_WITHIN = ("max_probability", "last_result_at", "study_uid")  # the order in each part, descending
URGENCY = ("prediction", *_WITHIN)  # what a study's place in the worklist is made of
_SHAPES = (str, float, str, str), (NoneType, NoneType, str, str)


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of an answer; ``next_cursor`` asks for the next one and is ``None`` at the end."""

    rows: list[dict[str, Any]]
    next_cursor: str | None


def cut(rows: list[dict[str, Any]], limit: int, question: str, names: Sequence[str]) -> Page:
    """A page of rows, of which one more was asked for than it takes, to know whether there is a next one.

    ``names`` are the columns that a row's place is made of.
    """
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], cursors.encode(question, [rows[limit - 1][name] for name in names]))


def past(
    columns: Sequence[ColumnElement[Any]], position: cursors.Position, *, forwards: bool = True
) -> ColumnElement[bool]:
    """What follows a row in descending order, or comes before it, among rows that are null where it is."""
    places = list(zip(columns, position, strict=True))
    known = [(name, literal(value, name.type)) for name, value in places if value is not None]
    compare = operator.lt if forwards else operator.gt
    following = compare(tuple_(*[name for name, _ in known]), tuple_(*[value for _, value in known]))
    return and_(*[name.is_(None) for name, value in places if value is None], following)


def urgency(question: str, after: str | None) -> cursors.Position | None:
    """The place in the worklist that a cursor names.

    Raises
    ------
    InvalidCursor
        If it is none that was given out for this question.
    """
    return None if after is None else cursors.decode(question, after, *_SHAPES)


def most_urgent(
    connection: Connection,
    statement: Select[Any],
    *,
    prediction: str | None,
    position: cursors.Position | None,
    limit: int,
    forwards: bool = True,
) -> list[dict[str, Any]]:
    """Studies from a place on, in the order of the worklist or against it.

    Parameters
    ----------
    connection : Connection
    statement : Select
        Which studies, with their columns, in no order.
    prediction : str or None
        Of one part alone.
    position : Position or None
        The place, as ``URGENCY`` says; the study that has it is left out.
    limit : int
        Most rows.
    forwards : bool
    """
    parts, start = PARTS if forwards else PARTS[::-1], position[0] if position else None
    if position is not None:
        parts = parts[parts.index(start) :] if start in PARTS else ()
    columns = statement.selected_columns
    places = [columns[name] for name in _WITHIN]
    rows: list[dict[str, Any]] = []
    for part in [part for part in parts if prediction in (None, part)]:
        these = statement.where(columns["prediction"] == part)
        if position is not None and part == start:
            these = these.where(past(places, position[1:], forwards=forwards))
        found = connection.execute(
            these.order_by(*[name.desc() if forwards else name for name in places]).limit(limit - len(rows))
        )
        rows += [dict(row) for row in found.mappings()]
        if len(rows) >= limit:
            break
    return rows
