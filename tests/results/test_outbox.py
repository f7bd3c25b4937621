"""What is written for whom, in the transaction of the result, and what removes it."""

import importlib
import sqlite3
import uuid
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from fracture_watch.errors import DatabaseUnavailable
from fracture_watch.outcomes import Duplicate, Failed, Rejected, Stalled
from fracture_watch.records import Facts, Kind, Status
from fracture_watch.results.database import Database
from fracture_watch.results.outbox import _STANDINGS, Outbox, Subscription, standings
from fracture_watch.results.removal import Wanted, remove_rows, rows_to_remove
from fracture_watch.results.store import Store
from fracture_watch.times import as_utc
from tests.databases import query
from tests.results.test_store import MODEL, OTHER, classified, record, source

LATE = "9998-01-01T00:00:00.000000Z"
BOTH = frozenset(Kind)
EVERYTHING = Subscription("webhook:all", BOTH, quiet_seconds=60.0)
POSITIVES = Subscription("webhook:positives", BOTH, frozenset({"fractured"}), 60.0)


@pytest.fixture
def store(database):
    return Store(database, MODEL, [EVERYTHING, POSITIVES])


@pytest.fixture
def outbox(database):
    return Outbox(database)


def waiting(database):
    sql = "SELECT destination, kind, file_id FROM outbox WHERE next_attempt_at IS NOT NULL ORDER BY id"
    return [(row["destination"].removeprefix("webhook:"), row["kind"], row["file_id"]) for row in query(database, sql)]


def drain(outbox, destination="webhook:all", at=LATE):
    """Deliver all that is due."""
    told = []
    while delivery := outbox.next_due(destination, at):
        outbox.delivered(delivery, "2026-01-01T00:00:00.000000Z")
        told.append(delivery)
    return told


def test_many_destinations_that_hang_leave_the_database_to_the_others(store, database, outbox):
    with ExitStack() as hanging:
        for number in range(20):
            assert hanging.enter_context(outbox.turn(f"webhook:{number}"))
        record(store, "a", classified("aa"))


def test_every_row_is_told_to_who_wants_any_and_predictions_to_who_filters(store, database):
    record(store, "a", classified("aa", 0.9))
    record(store, "b", classified("bb", 0.1))
    record(store, "c", Duplicate("aa", Facts()))
    record(store, "d", Rejected("out_of_scope", "a chest", "dd"))
    record(store, "e", Failed("corrupt", "broken", "ee"))
    results = [(who, file) for who, kind, file in waiting(database) if kind == "result"]
    assert results == [("all", 1), ("positives", 1), ("all", 2), ("all", 3), ("all", 4), ("all", 5)]
    studies = [(who, file) for who, kind, file in waiting(database) if kind == "study"]
    assert studies == [("all", 1), ("positives", 1), ("all", 2)]


def test_objects_are_sent_by_the_watcher_in_whose_folders_they_lie(database):
    """Others have the same destination, and no such file; what is told of results, anybody may tell."""
    subscriptions = [Subscription("dicom:pacs", frozenset({Kind.SR})), EVERYTHING]
    store = Store(database, MODEL, subscriptions, watcher="theirs")
    record(store, "a", replace(classified("aa"), objects=frozenset({Kind.SR})))
    ours, theirs = Outbox(database, "ours"), Outbox(database, "theirs")
    assert ours.next_due("dicom:pacs", LATE) is None
    assert ours.forget_orphans(["webhook:all"], LATE) == 0
    assert ours.next_due("webhook:all", LATE).kind is Kind.RESULT
    assert theirs.next_due("dicom:pacs", LATE).kind is Kind.SR
    assert theirs.forget_orphans(["webhook:all"], LATE) == 1


def test_without_subscribers_nothing_is_written(database):
    record(Store(database, MODEL), "a", classified("aa"))
    assert waiting(database) == []


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_result_that_is_not_committed_is_told_to_nobody(database, store, tmp_path):
    (tmp_path / "x.db").rename(tmp_path / "away.db")
    with pytest.raises(DatabaseUnavailable):
        record(store, "a", classified("aa"))
    (tmp_path / "away.db").rename(tmp_path / "x.db")
    assert (waiting(database), query(database, "SELECT * FROM results")) == ([], [])
    record(store, "a", classified("aa"))
    assert len(waiting(database)) == 4


def test_what_is_told_is_the_row_as_it_is_now(store, outbox, database):
    recorded = record(store, "a", classified("aa", patient_id="P1"))
    store.filed([(recorded, Path("/done/elsewhere"))])
    delivery = outbox.next_due("webhook:all", LATE)
    assert (delivery.kind, delivery.subject["filed_path"]) == (Kind.RESULT, "/done/elsewhere")
    assert "P1" not in str(query(database, "SELECT * FROM outbox"))


def test_ids_are_made_of_what_they_name(store, outbox):
    record(store, "a", classified("aa"))
    one, again = outbox.next_due("webhook:all", LATE), outbox.next_due("webhook:all", LATE)
    other = outbox.next_due("webhook:positives", LATE)
    assert one.id == again.id != other.id
    assert uuid.UUID(one.id).version == 5


def test_a_study_is_told_of_once_it_was_quiet(store, outbox, database):
    record(store, "a", classified("aa", study_uid="1.2"))
    record(store, "b", classified("bb", study_uid="1.2"))
    [row] = query(database, "SELECT last_result_at FROM studies")
    last = datetime.fromisoformat(row["last_result_at"])
    just_before, then = (as_utc(last + timedelta(seconds=seconds)) for seconds in (59.9, 60))
    assert [d.kind for d in drain(outbox, at=just_before)] == ["result", "result"]
    [study] = drain(outbox, at=then)
    assert (study.kind, study.subject["study_uid"], study.subject["files"]) == ("study", "1.2", 2)
    assert drain(outbox) == []


def test_a_late_file_tells_of_the_study_again_and_a_duplicate_does_not(store, outbox):
    record(store, "a", classified("aa", study_uid="1.2"))
    [_, first] = drain(outbox)
    record(store, "copy", Duplicate("aa", Facts(study_uid="1.2")))
    assert [d.kind for d in drain(outbox)] == ["result"]
    record(store, "late", Failed("corrupt", "broken", "bb", Facts(study_uid="1.2")))
    [_, second] = drain(outbox)
    assert (second.kind, second.subject["files"]) == ("study", 2)
    assert second.id != first.id


def test_a_late_file_takes_the_place_of_what_was_not_taken_yet(store, outbox, database):
    record(store, "a", classified("aa", study_uid="1.2"))
    outbox.delivered(outbox.next_due("webhook:all", LATE), LATE)
    under_way = outbox.next_due("webhook:all", LATE)
    record(store, "b", classified("bb", study_uid="1.2"))
    outbox.delivered(under_way, LATE)  # its row is gone; that of the whole study is not touched
    assert [d.subject.get("files") for d in drain(outbox)] == [None, 2]


def test_who_wants_positives_hears_of_a_study_when_it_becomes_one(store, outbox):
    record(store, "a", classified("aa", 0.1, study_uid="1.2"))
    assert drain(outbox, "webhook:positives") == []
    record(store, "b", classified("bb", 0.9, study_uid="1.2"))
    assert [d.kind for d in drain(outbox, "webhook:positives")] == ["result", "study"]


def test_a_study_that_another_model_calls_sound_is_not_told_as_fractured(database, store, outbox):
    record(store, "a", classified("aa", 0.9, study_uid="1.2"))
    other = Store(database, OTHER, [EVERYTHING, POSITIVES])
    record(other, "a", classified("aa", 0.1, OTHER, study_uid="1.2"))
    assert [(d.kind, d.subject["prediction"]) for d in drain(outbox, "webhook:positives")] == [("result", "fractured")]


def test_failures_wait_and_what_is_given_up_does_not(store, outbox, url):
    record(store, "a", Failed("corrupt", "broken", "aa"))
    delivery = outbox.next_due("webhook:all", LATE)
    outbox.failed(delivery, "it answered 500", "2096-01-01T00:00:00.000000Z")
    assert outbox.next_due("webhook:all", "2095-01-01T00:00:00.000000Z") is None
    [standing] = outbox.standings()
    assert (standing.waiting, standing.failing, standing.last_error) == (1, 1, "it answered 500")
    again = outbox.next_due("webhook:all", LATE)
    assert (again.id, again.attempts) == (delivery.id, 1)
    outbox.failed(again, "it answered 502", None)
    [standing] = outbox.standings()
    assert (standing.waiting, standing.given_up, standing.last_error) == (0, 1, "it answered 502")
    assert outbox.next_due("webhook:all", LATE) is None
    assert standings(url) == outbox.standings()


def test_the_oldest_goes_first(store, outbox):
    store.record([(source(name), classified(name * 2), Path("/done") / name) for name in "cab"])
    assert [d.subject["source_path"] for d in drain(outbox) if d.kind == "result"] == ["/in/c", "/in/a", "/in/b"]


def test_what_waits_for_nobody_is_given_up_when_it_is_old(store, outbox):
    record(store, "a", Failed("corrupt", "broken", "aa"))
    assert outbox.forget_orphans(["webhook:all"], LATE) == 0
    assert outbox.forget_orphans(["webhook:new"], "2000") == 0
    assert outbox.forget_orphans(["webhook:new"], LATE) == 1
    [standing] = outbox.standings()
    assert (standing.given_up, standing.last_error) == (1, "it is not in the settings any more")


def test_to_erase_a_patient_erases_what_waits_and_what_was_delivered(kind, database, store, outbox, tmp_path):
    erased = record(store, "a", classified("aa", patient_id="P1", study_uid="1.2.840.99.7"))
    kept = record(store, "b", classified("bb", patient_id="P2", study_uid="3.4"))
    store.filed([(item, item.filed_path) for item in (erased, kept)])
    drain(outbox, "webhook:positives")
    for rows in rows_to_remove(database, Wanted(patient=("P1",))):
        remove_rows(database, rows)
    left = query(database, "SELECT destination, kind, file_id, study_uid FROM outbox ORDER BY id")
    assert {row["file_id"] for row in left} == {kept.id}
    assert len(left) == 4
    database.close()
    if kind != "sqlite":
        return  # what a server's files hold is its administrator's
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"1.2.840.99.7" not in b"".join(path.read_bytes() for path in tmp_path.glob("x.db*"))


def test_an_old_study_stays_told_when_its_first_files_are_pruned(database, store, outbox):
    first = record(store, "a", classified("aa", study_uid="1.2"))
    drain(outbox)
    last = record(store, "b", classified("bb", study_uid="1.2"))
    store.filed([(item, item.filed_path) for item in (first, last)])
    [rows] = rows_to_remove(database, Wanted(before=query(database, "SELECT max(completed_at) t FROM file")[0]["t"]))
    remove_rows(database, rows)
    assert [(d.kind, d.subject.get("files")) for d in drain(outbox)] == [("result", None), ("study", 1)]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_is_asked_every_second_looks_at_nothing_that_was_delivered(store, outbox, database):
    record(store, "a", classified("aa"))
    drain(outbox)
    asked = (
        "SELECT * FROM outbox WHERE destination = 'x' AND next_attempt_at IS NOT NULL "
        "AND (next_attempt_at <= '2' OR created_at > '2') ORDER BY next_attempt_at, id LIMIT 1"
    )
    with database.reading() as connection:
        plan = " ".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}"))
        counting = " ".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {_STANDINGS}"))
    assert "USING INDEX outbox_waiting" in plan
    assert "TEMP B-TREE" not in plan
    assert "USING INDEX outbox_waiting" in counting
    assert "outbox_given_up" in counting


def test_a_database_from_before_gets_the_table_and_keeps_its_rows(tmp_path):
    before = importlib.import_module("fracture_watch.results.migrations.versions.0004_outbox").down_revision
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    record(Store(database, MODEL), "a", classified("aa"))
    database.close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.executescript("DROP TABLE outbox; DROP TABLE verdict; ALTER TABLE file DROP COLUMN watcher")
        connection.executescript("DROP INDEX file_modality; DROP INDEX file_body_part; DROP INDEX file_problem")
        connection.execute("UPDATE alembic_version SET version_num = ?", (before,))
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    assert len(list(tmp_path.glob("*.bak"))) == 1
    record(Store(database, MODEL, [EVERYTHING]), "b", classified("bb"))
    assert waiting(database) == [("all", "result", 2), ("all", "study", 2)]
    assert len(query(database, "SELECT id FROM results")) == 2


def test_a_clock_that_goes_a_little_behind_makes_no_study_complete_too_early(store, outbox):
    record(store, "a", classified("aa", study_uid="1.2"))
    behind = as_utc(datetime.now(UTC) - timedelta(seconds=30))
    assert drain(outbox, at=behind) == []


def test_a_clock_that_is_set_back_keeps_nothing_from_being_told(store, outbox):
    record(store, "a", Failed("corrupt", "broken", "aa"))
    assert outbox.next_due("webhook:all", "2020-01-01T00:00:00.000000Z").kind is Kind.RESULT


def test_a_database_from_before_has_nothing_that_waits(tmp_path):
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("CREATE TABLE file (id)")
    assert standings(f"sqlite:///{tmp_path / 'old.db'}") == []


def test_stalled_files_are_told_when_they_are_through(store, database):
    store.record_stalled(source("a"), Stalled("still growing"))
    assert waiting(database) == []
    record(store, "a", classified("aa"))
    [row] = query(database, "SELECT status FROM results")
    assert row["status"] == Status.CLASSIFIED
    assert len(waiting(database)) == 4


def test_who_removes_rows_leaves_the_events_of_another_watcher_with_the_same_path(database):
    for watcher in ("ours", "theirs"):
        store = Store(database, MODEL, watcher=watcher)
        store.note_postponed(source("a"), "cannot be read")
        record(store, "a", Failed("corrupt", "broken", watcher))
    patient = Wanted(before=LATE)
    with database.writing() as connection:
        connection.execute(text("UPDATE file SET status = 'classified', filed = true"))
    for watcher, left in (("ours", 2), ("theirs", 0)):
        [rows] = rows_to_remove(database, patient, watcher)
        remove_rows(database, rows)
        assert len(query(database, "SELECT * FROM event WHERE source_path LIKE '%a'")) == left
