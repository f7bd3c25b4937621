"""Outcomes -> rows. Outcome, study, model and who is to be told of it are written in one transaction."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, func, insert, not_, or_, select, update
from sqlalchemy.orm import aliased

from fracture_watch.errors import TRANSIENT, Internal
from fracture_watch.outcomes import Classified, Duplicate, Failed, Outcome, Recorded, Rejected, Stalled
from fracture_watch.records import DROPPED, Kind, ModelFacts, SourceFile, Status
from fracture_watch.results.database import CHUNK, Database, chunks
from fracture_watch.results.outbox import Subscription, announce
from fracture_watch.results.rows import (
    NOT_CLASSIFIED,
    as_path,
    as_text,
    place_text,
    recorded_of,
    row_of,
    source_row,
    source_text,
)
from fracture_watch.results.schema import FileRow, ModelRow, has_status, of_watcher
from fracture_watch.results.studies import count_studies, ensure_study
from fracture_watch.results.trail import What, note
from fracture_watch.results.types import insert_or_ignore
from fracture_watch.times import now

_AGAIN = TRANSIENT | {Internal.code}  # failures that are no file's own: the same bytes may do better next time
# Compiled once; an ORM insert with values is put together anew for every row, which takes longer than SQLite does.
_FILES = cast(Table, FileRow.__table__)
_INSERT = insert(_FILES).returning(FileRow.id)
_FILED = update(_FILES).where(_FILES.c.id == bindparam("number")).values(filed=True, filed_path=bindparam("place"))


class Store:
    """Writes results, and answers what has been recorded.

    Parameters
    ----------
    database : Database
    model : ModelFacts
        The model in force.
    subscriptions : sequence of Subscription
        Who is to be told of what is recorded.
    watcher : str, optional
        Whose inbox the files come to, where several watchers have the database.
    """

    def __init__(
        self,
        database: Database,
        model: ModelFacts,
        subscriptions: Sequence[Subscription] = (),
        watcher: str | None = None,
    ) -> None:
        self._database = database
        self._model = model
        self._subscriptions = subscriptions
        self._watcher = watcher

    def known(self, digests: Collection[str]) -> set[str]:
        """Which of these contents the model in force has classified."""
        with self._database.reading() as connection:
            return set(self._classified(connection, digests))

    def unchanged(self, sources: Sequence[SourceFile]) -> set[SourceFile]:
        """Which of these files, by path, size, mtime and inode, the model in force has dealt with where they are."""
        return self._in_place(sources, FileRow.model_id == self._model.id)

    def settled(self, sources: Sequence[SourceFile]) -> set[SourceFile]:
        """Like ``unchanged``, and those that were refused or failed for a reason that lies in the file."""
        refused = has_status(*NOT_CLASSIFIED) & FileRow.code.not_in(_AGAIN)
        return self._in_place(sources, or_(FileRow.model_id == self._model.id, refused))

    def _in_place(self, sources: Sequence[SourceFile], condition: ColumnElement[bool]) -> set[SourceFile]:
        found: set[SourceFile] = set()
        columns = FileRow.source_path, FileRow.source_size, FileRow.source_modified_ns, FileRow.source_inode
        by_key = {(source_text(s), s.size, s.modified_ns, s.inode): s for s in sources}
        with self._database.reading() as connection:
            for chunk in chunks([key[0] for key in by_key]):
                rows = connection.execute(
                    select(*columns).where(
                        FileRow.source_path.in_(chunk),
                        FileRow.filed_path == FileRow.source_path,
                        condition,
                        of_watcher(self._watcher),
                    )
                )
                found |= {by_key[key] for key in map(tuple, rows) if key in by_key}
        return found

    def outdated(self) -> Iterator[Path]:
        """Where each content lies that only other models have classified; the latest place of each, oldest first."""
        current = aliased(FileRow)
        done = select(current.id).where(current.sha256 == FileRow.sha256, current.model_id == self._model.id)
        done = done.where(func.coalesce(current.status, "") == str(Status.CLASSIFIED))
        latest = (
            select(func.max(FileRow.id))
            .where(FileRow.model_id.is_not(None), FileRow.filed_path.is_not(None), of_watcher(self._watcher))
            .where(not_(done.exists()))
            .group_by(FileRow.sha256)
        )
        with self._database.reading() as connection:
            ids = sorted(connection.scalars(latest))
        # Piece by piece: a transaction that stays open meanwhile would keep the database from tidying up.
        for start in range(0, len(ids), CHUNK):
            these = FileRow.id.in_(ids[start : start + CHUNK])
            with self._database.reading() as connection:
                paths = connection.scalars(select(FileRow.filed_path).where(these).order_by(FileRow.id)).all()
            yield from (as_path(str(path)) for path in paths)

    def record(self, entries: Sequence[tuple[SourceFile, Outcome, Path | None]]) -> list[Recorded]:
        """Commit outcomes with the place where each file will be filed.

        A content that was classified meanwhile, by this process or another, becomes a duplicate.

        Raises
        ------
        DatabaseUnavailable
            Nothing was committed.
        """
        with self._database.writing() as connection:
            changed = self._take_over(connection)
            originals = self._classified(connection, {o.sha256 for _, o, _ in entries if o.sha256})
            recorded: list[Recorded] = []
            studies: set[str] = set()
            instances = _known_instances(connection, [outcome for _, outcome, _ in entries])
            _forget_stalled(connection, [source_text(source) for source, _, _ in entries], self._watcher)
            for source, proposed, filed_path in entries:
                outcome = _with_conflict(connection, _settled(proposed, originals), instances)
                row = row_of(source, outcome, filed_path, originals, self._model) | {"watcher": self._watcher}
                if row["study_key"] and row["study_key"] not in studies:
                    studies.add(row["study_key"])
                    ensure_study(connection, row)
                file_id = connection.execute(_INSERT, row).scalar_one()
                if isinstance(outcome, Classified):
                    originals.setdefault(outcome.sha256, file_id)
                attempts = _attempts(connection, row) if isinstance(outcome, Failed | Rejected) else 1
                recorded.append(Recorded(file_id, source, outcome, filed_path, attempts))
            count_studies(connection, self._model.id, None if changed else studies)
            announce(connection, self._subscriptions, {item.id: _objects(item.outcome) for item in recorded})
        return recorded

    def record_stalled(self, source: SourceFile, stalled: Stalled) -> None:
        """Make a file that keeps growing visible; its row gives way to its outcome."""
        row = source_row(source) | {"filed": True, "status": str(stalled.status), "detail": stalled.detail}
        row["watcher"] = self._watcher
        with self._database.writing() as connection:
            _forget_stalled(connection, [row["source_path"]], self._watcher)
            connection.execute(insert(FileRow).values(row))
            note(connection, row["source_path"], What.STALLED, stalled.detail)

    def forget_stalled(self, sources: Sequence[SourceFile]) -> None:
        """Files that kept growing are not there any more: renamed, or taken away by their sender."""
        with self._database.writing() as connection:
            _forget_stalled(connection, [source_text(source) for source in sources], self._watcher)

    def note_postponed(self, source: SourceFile, detail: str) -> None:
        """Remember that a file could not be processed yet."""
        with self._database.writing() as connection:
            note(connection, source_text(source), What.POSTPONED, detail)

    def filed(self, places: Sequence[tuple[Recorded, Path | None]]) -> None:
        """Note that files are where they now are."""
        now_there = [{"number": item.id, "place": place_text(item.source, path)} for item, path in places]
        with self._database.writing() as connection:
            connection.execute(_FILED, now_there)

    def unfiled(self, inbox: Path) -> list[Recorded]:
        """What a crash or a fault left committed but not put in its place, oldest first."""
        below = FileRow.source_path.startswith(as_text(inbox) + os.sep, autoescape=True)
        with self._database.reading() as connection:
            rows = connection.execute(
                select(FileRow.__table__, ModelRow.name, ModelRow.version)
                .outerjoin(ModelRow, ModelRow.id == FileRow.model_id)
                .where(FileRow.filed.is_(False), FileRow.watcher == self._watcher)
                .where(or_(below, FileRow.source_path.not_like(os.sep + "%")))
                .order_by(FileRow.id)
            )
            return [recorded_of(row._mapping, _attempts(connection, row._mapping)) for row in rows.all()]

    def ping(self) -> None:
        """Raise ``DatabaseUnavailable`` if the database cannot be written."""
        with self._database.writing():
            pass

    def _classified(self, connection: Connection, digests: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for chunk in chunks(list(digests)):
            rows = connection.execute(
                select(FileRow.sha256, FileRow.id).where(
                    FileRow.sha256.in_(chunk),
                    FileRow.model_id == self._model.id,
                    has_status(Status.CLASSIFIED),
                )
            )
            found |= {sha256: file_id for sha256, file_id in rows if sha256}
        return found

    def _take_over(self, connection: Connection) -> bool:
        """Name the model in force; tells whether the latest result is another one's."""
        latest = select(FileRow.model_id).where(FileRow.model_id.is_not(None)).order_by(FileRow.id.desc()).limit(1)
        facts = asdict(self._model) | {"first_used_at": now()}
        connection.execute(insert_or_ignore(cast(Table, ModelRow.__table__), connection.dialect), facts)
        return connection.scalar(latest) not in (None, self._model.id)


def _settled(outcome: Outcome, originals: dict[str, int]) -> Outcome:
    """What was classified by somebody else since this process asked is a duplicate now."""
    if isinstance(outcome, Classified) and outcome.sha256 in originals:
        return Duplicate(outcome.sha256, outcome.facts, outcome.notes)
    return outcome


def _known_instances(connection: Connection, outcomes: Sequence[Outcome]) -> set[str | None]:
    """Which SOP Instance UIDs of a batch are known: one question for all, since hardly any is."""
    uids = {outcome.facts.sop_instance_uid for outcome in outcomes} - {None}
    known: set[str | None] = set()
    for chunk in chunks([uid for uid in uids if uid]):
        these = select(FileRow.sop_instance_uid).where(FileRow.sop_instance_uid.in_(chunk))
        known |= set(connection.scalars(these.where(has_status(Status.CLASSIFIED)).distinct()))
    return known


def _with_conflict(connection: Connection, outcome: Outcome, instances: set[str | None]) -> Outcome:
    """PS3.3 C.12.1: a SOP Instance UID names one object; other bytes under the same one are noted, not refused.

    ``instances`` are those that may be known; this one is from here on.
    """
    uid = outcome.facts.sop_instance_uid
    if not isinstance(outcome, Classified) or not uid:
        return outcome
    if uid not in instances:
        instances.add(uid)
        return outcome
    other = connection.scalar(
        select(FileRow.id)
        .where(
            FileRow.sop_instance_uid == uid,
            FileRow.sha256 != outcome.sha256,
            has_status(Status.CLASSIFIED),
        )
        .limit(1)
    )
    if other is None:
        return outcome
    return replace(outcome, notes=(*outcome.notes, f"result {other} has the same SOP Instance UID and other bytes"))


def _objects(outcome: Outcome) -> frozenset[Kind]:
    return outcome.objects if isinstance(outcome, Classified) else frozenset()


def _forget_stalled(connection: Connection, paths: Collection[str], watcher: str | None) -> None:
    """Rows of files that were still growing give way to what came of them."""
    stalled = FileRow.watcher == watcher, has_status(Status.STALLED)
    for chunk in chunks([path for path in paths if not path.startswith(DROPPED)]):
        connection.execute(delete(FileRow).where(FileRow.source_path.in_(chunk), *stalled))
    for path in paths:
        if path.startswith(DROPPED):  # such an alias begins with the inode and changes with the rest while it grows
            begin = path.partition("-")[0]
            grown = FileRow.source_path > f"{begin}-", FileRow.source_path < f"{begin}."
            connection.execute(delete(FileRow).where(*grown, *stalled))


def _attempts(connection: Connection, row: Any) -> int:
    same = FileRow.sha256 == row["sha256"] if row["sha256"] else FileRow.source_path == row["source_path"]
    return connection.scalar(select(func.count()).where(same, has_status(*NOT_CLASSIFIED))) or 1
