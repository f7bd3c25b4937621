"""What is to be told to others: rows beside the results they are about, until they are delivered or given up."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, inspect, or_, select, text, update

from fracture_watch.outcomes import Delivery
from fracture_watch.records import OBJECTS, Kind, Status
from fracture_watch.results.database import Database, looking
from fracture_watch.results.queries import RESULTS, STUDIES
from fracture_watch.results.schema import FileRow, OutboxRow, StudyRow, of_watcher
from fracture_watch.times import as_utc

_IDS = uuid.UUID("5f0c7f0e-6f0b-5f52-9d1c-3f8f1f0a6b7d")  # the namespace of delivery ids
_CLOCKS_DIFFER = timedelta(minutes=10)
_WAITING = OutboxRow.next_attempt_at.is_not(None)
# One piece an index; of each, a row that has an error worth showing.
_STANDINGS = """
SELECT s.destination, s.waiting, s.failing, s.given_up, s.oldest, outbox.last_error
FROM (
  SELECT destination, count(*) AS waiting, count(*) FILTER (WHERE attempts > 0) AS failing, 0 AS given_up,
         min(created_at) AS oldest, min(CASE WHEN attempts > 0 THEN id END) AS example
  FROM outbox WHERE next_attempt_at IS NOT NULL GROUP BY destination
  UNION ALL
  SELECT destination, 0, 0, count(*), min(created_at), max(id)
  FROM outbox WHERE next_attempt_at IS NULL AND delivered_at IS NULL GROUP BY destination
) AS s LEFT JOIN outbox ON outbox.id = s.example
ORDER BY s.destination, s.waiting
"""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A destination, what it is told of, and which predictions; without any, whatever came of a file."""

    destination: str
    kinds: frozenset[Kind]
    predictions: frozenset[str] = frozenset()
    quiet_seconds: float = 0.0  # a study is told of when it got no new file for so long

    def wants(self, kind: Kind, prediction: str | None) -> bool:
        """Whether it is told of this."""
        return kind in self.kinds and (not self.predictions or prediction in self.predictions)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a destination was not told: ``failing`` of the ``waiting`` were tried in vain, the oldest is of ``since``.

    One with ``given_up`` is of those alone.
    """

    destination: str
    waiting: int
    failing: int
    given_up: int
    since: str
    last_error: str | None


def announce(
    connection: Connection, subscriptions: Sequence[Subscription], built: Mapping[int, Collection[Kind]]
) -> None:
    """Write what subscribers are to be told of new rows and of their studies, in the transaction of those rows.

    ``built`` says of which rows there are which objects.
    """
    if not subscriptions or not built:
        return
    columns = FileRow.id, FileRow.completed_at, FileRow.status, FileRow.prediction, FileRow.study_key
    files = connection.execute(select(*columns).where(FileRow.id.in_(list(built))).order_by(FileRow.id)).all()
    # Duplicates bring a study nothing new; of the others the latest begins its quiet time anew.
    grown = {file.study_key: file for file in files if file.study_key and file.status != str(Status.DUPLICATE)}
    rows = [
        _row(subscription, kind, file)
        for file in files
        for kind in (Kind.RESULT, *sorted(built[file.id], reverse=True))  # the report before the picture
        for subscription in subscriptions
        if subscription.wants(kind, file.prediction)
    ]
    rows += _of_studies(connection, subscriptions, grown)
    if rows:
        connection.execute(insert(OutboxRow), rows)


def _of_studies(
    connection: Connection, subscriptions: Sequence[Subscription], latest: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows for studies that have a new file; what was not delivered before it is out of date, and goes."""
    theirs = OutboxRow.study_uid.in_(list(latest)), OutboxRow.destination.in_([s.destination for s in subscriptions])
    connection.execute(delete(OutboxRow).where(*theirs, OutboxRow.kind == str(Kind.STUDY), _WAITING))
    studies = select(StudyRow.study_uid, StudyRow.prediction).where(StudyRow.study_uid.in_(list(latest)))
    for study_uid, prediction in connection.execute(studies).all():
        for subscription in subscriptions:
            if subscription.wants(Kind.STUDY, prediction):
                yield _row(subscription, Kind.STUDY, latest[study_uid])


def _row(subscription: Subscription, kind: Kind, file: Any) -> dict[str, Any]:
    of_study = kind is Kind.STUDY
    due = datetime.fromisoformat(file.completed_at) + timedelta(seconds=subscription.quiet_seconds if of_study else 0)
    # The number of a row that was removed may be given again; with its time it is unique.
    name = f"{subscription.destination} {kind} {file.id} {file.completed_at}"
    return {
        "delivery_id": str(uuid.uuid5(_IDS, name)),
        "kind": str(kind),
        "destination": subscription.destination,
        "file_id": file.id,
        "study_uid": file.study_key if of_study else None,
        "created_at": file.completed_at,
        "attempts": 0,
        "next_attempt_at": as_utc(due),
    }


class Outbox:
    """What waits, for those who deliver it.

    Parameters
    ----------
    database : Database
    watcher : str, optional
        Whose files are at hand, where several watchers have the database: objects are sent from where they lie.
    """

    def __init__(self, database: Database, watcher: str | None = None) -> None:
        self._database = database
        at_hand = select(FileRow.id).where(FileRow.id == OutboxRow.file_id, of_watcher(watcher)).exists()
        self._ours = or_(OutboxRow.kind.not_in([str(kind) for kind in OBJECTS]), at_hand)

    def turn(self, destination: str) -> AbstractContextManager[bool]:
        """Whether it is this process's turn to deliver there; nobody else does until the end."""
        return self._database.turn(f"outbox {destination}")

    def next_due(self, destination: str, at: str) -> Delivery | None:
        """What has been due for longest, what was tried before last; with what it is about as it is recorded now."""
        # What is of much later than now was recorded before somebody set the clock back; a little, clocks differ.
        later = as_utc(datetime.fromisoformat(at) + _CLOCKS_DIFFER)
        due = or_(OutboxRow.next_attempt_at <= at, OutboxRow.created_at > later)
        with self._database.reading() as connection:
            these = select(OutboxRow.__table__).where(OutboxRow.destination == destination, _WAITING, due, self._ours)
            these = these.order_by(OutboxRow.next_attempt_at, OutboxRow.id).limit(1)
            row = connection.execute(these.where(OutboxRow.attempts == 0)).first() or connection.execute(these).first()
            if row is None:
                return None
            kind = Kind(row.kind)
            view, key = (STUDIES, row.study_uid) if kind is Kind.STUDY else (RESULTS, row.file_id)
            name = view.c.study_uid if kind is Kind.STUDY else view.c.id
            subject = connection.execute(select(view).where(name == key)).mappings().one()
            return Delivery(row.delivery_id, kind, destination, row.attempts, row.created_at, dict(subject))

    def delivered(self, delivery: Delivery, at: str) -> None:
        """The destination has it."""
        self._note(delivery, delivered_at=at, next_attempt_at=None, last_error=None)

    def failed(self, delivery: Delivery, error: str, next_attempt_at: str | None) -> None:
        """An attempt was in vain; without a next one it is given up."""
        self._note(delivery, last_error=error, next_attempt_at=next_attempt_at)

    def _note(self, delivery: Delivery, **values: str | None) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(OutboxRow)
                .where(OutboxRow.delivery_id == delivery.id)
                .values(attempts=delivery.attempts + 1, **values)
            )

    def forget_orphans(self, destinations: Collection[str], before: str) -> int:
        """Give up what is older and for none of these destinations; tells how many."""
        unknown = OutboxRow.destination.not_in([*destinations])
        orphans = _WAITING, unknown, OutboxRow.created_at < before, self._ours
        values = {"next_attempt_at": None, "last_error": "it is not in the settings any more"}
        with self._database.reading() as connection:
            if connection.scalar(select(OutboxRow.id).where(*orphans).limit(1)) is None:
                return 0
        with self._database.writing() as connection:
            return connection.execute(update(OutboxRow).where(*orphans).values(values)).rowcount

    def standings(self) -> list[Standing]:
        """How it stands with each destination that was not told everything."""
        with self._database.reading() as connection:
            return [Standing(*row) for row in connection.execute(text(_STANDINGS))]


def standings(url: str) -> list[Standing]:
    """The same, of a database that is neither changed nor migrated."""
    with looking(url) as backend, backend.engine.connect() as connection:
        if not inspect(connection).has_table("outbox"):
            return []  # of a version before; nothing waits in it
        return [Standing(*row) for row in connection.execute(text(_STANDINGS))]
