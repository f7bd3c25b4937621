"""What happened to files: events beside their results, and how to find both again."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, insert, or_, select, update

from fracture_watch.results.database import Database
from fracture_watch.results.rows import as_path, as_text
from fracture_watch.results.schema import EventRow, FileRow, ModelRow, OutboxRow, of_watcher
from fracture_watch.times import now

_DIGEST = re.compile(r"(sha256:)?[0-9a-fA-F]{64}")
_MOST_ROWS = 1000  # of one trace: a study with more is asked for by its results


class What(StrEnum):
    """What can happen to a file beside its result."""

    STALLED = "stalled"  # still growing after inbox.give_up_seconds
    POSTPONED = "postponed"  # could not be read; it is tried again
    PUT_BACK = "put back"  # `retry` moved it from quarantine to the inbox


@dataclass(frozen=True, slots=True)
class Trail:
    """Rows of ``file``, with their model's name and version, of ``event``, and of ``outbox``; each in their order."""

    files: Sequence[RowMapping]
    events: Sequence[RowMapping]
    deliveries: Sequence[RowMapping] = ()


def note(connection: Connection, source_path: str, what: What, detail: str, file_id: int | None = None) -> None:
    """Write an event."""
    values = {"at": now(), "file_id": file_id, "source_path": source_path, "what": str(what), "detail": detail}
    connection.execute(insert(EventRow).values(values))


def trail(database: Database, wanted: str, also: Collection[str] = ()) -> Trail:
    """Everything that is recorded of one thing.

    Parameters
    ----------
    wanted : str
        A row's id; a path, as it was found or as it is filed; a SHA-256; a SOP Instance, Series or Study Instance
        UID, or what stands for it where a picture has none; or an accession number. What is found by path or id brings
        the rows of the same content with it.
    also : collection of str
        What else may be recorded in its place: a hash, an alias.
    """
    with database.reading() as connection:
        asked = _asked(wanted, also)
        files = _files(connection, asked)
        digests = {row["sha256"] for row in files if row["sha256"]}
        if digests and (wanted.isdecimal() or "/" in wanted):
            files = _files(connection, or_(asked, FileRow.sha256.in_(digests)))
        paths = {row["source_path"] for row in files} | {_path(wanted), *also}
        return _told(connection, files, paths)


def trail_of(database: Database, file_id: int) -> Trail:
    """Everything that is recorded of one row and of those of the same content."""
    with database.reading() as connection:
        files = _files(connection, FileRow.id == file_id)
        digests = [row["sha256"] for row in files if row["sha256"]]
        files = _files(connection, or_(FileRow.id == file_id, FileRow.sha256.in_(digests)))
        return _told(connection, files, {row["source_path"] for row in files})


def _told(connection: Connection, files: Sequence[RowMapping], paths: Collection[str]) -> Trail:
    """Rows with what happened to them, and to what was at ``paths`` before it had a row."""
    events = connection.execute(
        select(EventRow.__table__)
        .where(
            or_(
                EventRow.file_id.in_([row["id"] for row in files]),
                and_(EventRow.file_id.is_(None), EventRow.source_path.in_(paths)),
            )
        )
        .order_by(EventRow.id)
    )
    return Trail(files, events.mappings().all(), _deliveries(connection, files))


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A failed or rejected file that was put in quarantine."""

    id: int
    source_path: Path
    filed_path: Path
    code: str


def quarantined(
    database: Database,
    folder: Path,
    ids: Collection[int] = (),
    code: str | None = None,
    watcher: str | None = None,
) -> list[Quarantined]:
    """What the database says lies in the quarantine ``folder``, the oldest first; some of it, or by default all.

    Of several watchers that have the database, what is another one's is left out.
    """
    below = FileRow.filed_path.startswith(as_text(folder) + os.sep, autoescape=True)
    conditions = [of_watcher(watcher), FileRow.filed, below]
    conditions += [FileRow.id.in_(list(ids))] if ids else []
    conditions += [FileRow.code == code] if code else []
    columns = FileRow.id, FileRow.source_path, FileRow.filed_path, FileRow.code
    with database.reading() as connection:
        rows = connection.execute(select(*columns).where(*conditions).order_by(FileRow.id)).all()
    return [Quarantined(i, as_path(source), as_path(str(filed)), str(code)) for i, source, filed, code in rows]


def note_put_back(database: Database, item: Quarantined, target: Path | None) -> None:
    """Its row says that it is not in quarantine any more; ``None``: somebody else took it away."""
    detail = f"moved to {as_text(target)}" if target else "it was not in quarantine any more"
    with database.writing() as connection:
        connection.execute(update(FileRow).where(FileRow.id == item.id).values(filed_path=None))
        note(connection, as_text(item.source_path), What.PUT_BACK, detail, item.id)


def _deliveries(connection: Connection, files: Sequence[RowMapping]) -> Sequence[RowMapping]:
    """Of the files, and of their studies."""
    ids, studies = [row["id"] for row in files], {row["study_key"] for row in files if row["study_key"]}
    wanted = or_(OutboxRow.file_id.in_(ids), OutboxRow.study_uid.in_(studies))
    return connection.execute(select(OutboxRow.__table__).where(wanted).order_by(OutboxRow.id)).mappings().all()


def _asked(wanted: str, also: Collection[str]) -> ColumnElement[bool]:
    paths = _path(wanted), *also
    told = {wanted, wanted.lower() if _DIGEST.fullmatch(wanted) else wanted, *also}
    uids = FileRow.sop_instance_uid, FileRow.series_uid, FileRow.study_uid, FileRow.study_key
    conditions: list[Any] = [name.in_(told) for name in (FileRow.sha256, *uids, FileRow.accession_number)]
    conditions += [FileRow.source_path.in_(paths), FileRow.filed_path.in_(paths)]
    if wanted.isdecimal() and len(wanted) < 18:
        conditions.append(FileRow.id == int(wanted))
    return or_(*conditions)


def _path(wanted: str) -> str:
    return as_text(Path(os.path.normpath(as_path(wanted).absolute())))


def _files(connection: Connection, condition: ColumnElement[bool]) -> Sequence[RowMapping]:
    rows = connection.execute(
        select(FileRow.__table__, ModelRow.name.label("model_name"), ModelRow.version.label("model_version"))
        .outerjoin(ModelRow, ModelRow.id == FileRow.model_id)
        .where(condition)
        .order_by(FileRow.id)
        .limit(_MOST_ROWS)
    )
    return rows.mappings().all()
