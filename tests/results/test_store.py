import json
import os
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from fracture_watch.outcomes import Classified, Duplicate, Failed, Rejected, Stalled
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, SourceFile
from fracture_watch.results.database import CHUNK
from fracture_watch.results.removal import Wanted, remove_rows, rows_to_remove, shared_places
from fracture_watch.results.store import Store
from fracture_watch.results.trail import What, note
from fracture_watch.times import now
from tests.databases import query

MODEL, OTHER = ModelFacts("m", "1", "model-a"), ModelFacts("m", "2", "model-b")


@pytest.fixture
def store(database):
    return Store(database, MODEL)


def source(name: str, inode: int = 1) -> SourceFile:
    return SourceFile(Path("/in") / name, 10, 20, inode, now())


def classified(sha256: str, probability: float = 0.9, model: ModelFacts = MODEL, **facts) -> Classified:
    label = Label.FRACTURED if probability >= 0.5 else Label.NOT_FRACTURED
    return Classified(sha256, Facts(**facts), Prediction(label, probability, 0.5, model), ("odd",), "/h.png")


def record(store: Store, name: str, outcome, inode: int = 1):
    [recorded] = store.record([(source(name, inode), outcome, Path("/done") / name)])
    return recorded


def test_a_prediction_becomes_a_row_that_says_everything(store, database):
    record(store, "a.dcm", classified("aa", 0.75, patient_id="P1", study_uid="1.2", modality="DX", rows=3))
    [row] = query(database, "SELECT * FROM results")
    wanted = {
        "source_path": "/in/a.dcm",
        "filed_path": "/done/a.dcm",
        "status": "classified",
        "code": None,
        "notes": '["odd"]',
        "sha256": "aa",
        "patient_id": "P1",
        "study_uid": "1.2",
        "modality": "DX",
        "rows": 3,
        "frame": 0,
        "prediction": "fractured",
        "probability": 0.75,
        "threshold": 0.5,
        "model_name": "m",
        "model_version": "1",
        "model_id": "model-a",
        "heatmap_path": "/h.png",
        "duplicate_of": None,
    }
    assert {name: row[name] for name in wanted} == wanted
    assert row["received_at"] <= row["completed_at"] <= now()


def test_failures_say_code_and_detail_and_have_no_model(store, database):
    record(store, "a", Failed("corrupt", "broken", "aa"))
    record(store, "b", Rejected("out_of_scope", "a chest", "bb", Facts(study_uid="9")))
    rows = query(database, "SELECT status, code, detail, model_id, prediction FROM results ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [
        ("failed", "corrupt", "broken", None, None),
        ("rejected", "out_of_scope", "a chest", None, None),
    ]


def test_the_same_content_again_is_a_duplicate_of_the_first(store, database):
    first = record(store, "a", classified("aa"))
    record(store, "b", Duplicate("aa", Facts()))
    [row] = query(database, "SELECT status, duplicate_of, prediction FROM results WHERE id > 1")
    assert tuple(row.values()) == ("duplicate", first.id, None)


def test_a_race_between_two_processes_ends_in_one_result(store, database):
    record(store, "a", classified("aa"))
    record(Store(database, MODEL), "b", classified("aa"))
    assert [r["status"] for r in query(database, "SELECT status FROM results ORDER BY id")] == [
        "classified",
        "duplicate",
    ]


def test_other_bytes_under_the_same_uid_are_classified_and_noted(store, database):
    record(store, "a", classified("aa", sop_instance_uid="1.2.3"))
    record(store, "b", classified("bb", sop_instance_uid="1.2.3"))
    record(store, "c", classified("cc", sop_instance_uid="1.2.4"))
    record(store, "d", Duplicate("bb", Facts(sop_instance_uid="1.2.3")))
    notes = [json.loads(row["notes"] or "[]") for row in query(database, "SELECT notes FROM results ORDER BY id")]
    assert notes == [["odd"], ["odd", "result 1 has the same SOP Instance UID and other bytes"], ["odd"], []]


def test_two_copies_in_one_batch_are_one_result_and_one_duplicate(store, database):
    store.record([(source(n), o, None) for n, o in (("a", classified("aa")), ("b", Duplicate("aa", Facts())))])
    assert query(database, "SELECT duplicate_of FROM results ORDER BY id") == [
        {"duplicate_of": None},
        {"duplicate_of": 1},
    ]


def test_the_database_itself_refuses_a_second_result(store, database):
    record(store, "a", classified("aa"))
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO file (received_at, completed_at, source_path, source_size, source_modified_ns, source_inode,"
            " filed, status, sha256, model_id) VALUES ('', '', '', 0, 0, 0, true, 'classified', 'aa', 'model-a')"
        )


def test_content_is_known_to_the_model_that_classified_it_only(store, database):
    record(store, "a", classified("aa"))
    record(store, "b", Failed("corrupt", "", "bb"))
    assert store.known({"aa", "bb", "cc"}) == {"aa"}
    assert Store(database, OTHER).known({"aa"}) == set()


def test_another_model_classifies_the_same_content_anew(store, database):
    record(store, "a", classified("aa"))
    record(Store(database, OTHER), "a", classified("aa", 0.1, OTHER))
    assert query(database, "SELECT model_id, status FROM results ORDER BY id") == [
        {"model_id": "model-a", "status": "classified"},
        {"model_id": "model-b", "status": "classified"},
    ]


def test_a_study_counts_its_files_and_is_fractured_if_any_is(store, database):
    study = {"study_uid": "1.2", "patient_id": "P", "study_date": "2026-01-02"}
    record(store, "a", classified("aa", 0.1, **study))
    record(store, "b", classified("bb", 0.8, **study))
    record(store, "c", Duplicate("bb", Facts(**study)))
    record(store, "d", Rejected("not_for_presentation", "", "dd", Facts(**study)))
    [row] = query(database, "SELECT * FROM studies")
    assert row.pop("last_result_at")
    assert row == study | {
        "files": 3,
        "classified": 2,
        "fractured": 1,
        "max_probability": 0.8,
        "prediction": "fractured",
    }


def test_a_study_shows_the_model_in_force(store, database):
    record(store, "a", classified("aa", 0.9, study_uid="1"))
    record(Store(database, OTHER), "a", classified("aa", 0.1, OTHER, study_uid="1"))
    [row] = query(database, "SELECT files, classified, prediction, max_probability FROM studies")
    assert tuple(row.values()) == (1, 1, "not fractured", 0.1)


def test_a_changed_model_counts_every_study_anew_with_its_first_result(database):
    record(Store(database, MODEL), "a", classified("aa", 0.9, study_uid="1.2"))
    record(Store(database, OTHER), "b", classified("bb", 0.1, OTHER, study_uid="3.4"))
    select = "SELECT prediction, classified, fractured, max_probability FROM studies WHERE study_uid = '1.2'"
    assert tuple(query(database, select)[0].values()) == (None, 0, 0, None)
    record(Store(database, MODEL), "c", classified("cc", 0.1, study_uid="3.4"))
    assert tuple(query(database, select)[0].values()) == ("fractured", 1, 1, 0.9)


def test_outdated_is_what_only_other_models_have_classified(database):
    old, new = Store(database, MODEL), Store(database, OTHER)
    for name in ("a", "b", "c"):
        record(old, name, classified(name * 2))
    record(old, "b2", Duplicate("bb", Facts()))
    record(old, "x", Failed("corrupt", "broken", "xx"))
    assert list(old.outdated()) == []
    assert list(new.outdated()) == [Path("/done/a"), Path("/done/c"), Path("/done/b2")]
    record(new, "a", classified("aa", model=OTHER))
    assert list(new.outdated()) == [Path("/done/c"), Path("/done/b2")]


def test_a_list_of_what_is_outdated_keeps_no_transaction_open(database):
    for number in range(CHUNK + 2):
        record(Store(database, MODEL), f"{number}", classified(f"{number:03}"))
    reclassified = Store(database, OTHER)
    found = reclassified.outdated()
    assert next(found) == Path("/done/0")
    with database.reading() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    record(reclassified, "1", classified("001", model=OTHER))
    assert len(list(found)) == CHUNK + 1


def filed(store, name, outcome):
    recorded = record(store, name, outcome)
    store.filed([(recorded, recorded.filed_path)])
    return recorded


def to_remove(database, before):
    return [row.id for rows in rows_to_remove(database, Wanted(before=before)) for row in rows]


def test_a_result_stays_while_a_repeat_that_is_not_as_old_has_its_prediction_from_it(store, database):
    filed(store, "a", classified("aa", study_uid="1.2"))
    filed(store, "b", Duplicate("aa", Facts(study_uid="1.2")))
    cut = now()
    assert to_remove(database, cut) == [1, 2]
    filed(store, "c", Duplicate("aa", Facts(study_uid="1.2")))
    assert to_remove(database, cut) == [2]
    assert to_remove(database, now()) == [1, 2, 3]


def test_a_file_goes_with_the_last_of_its_rows(store, database):
    """Also where it is only counted, and the rows before it are there still."""
    filed(store, "a", classified("aa"))
    filed(Store(database, OTHER), "a", classified("aa", model=OTHER))
    both = Wanted(before=now())
    [[first, last]] = rows_to_remove(database, both)
    assert shared_places(database, [first], both) == {Path("/done/a")}
    assert shared_places(database, [last], both) == shared_places(database, [first, last], both) == set()
    assert shared_places(database, [first], Wanted(before=last.completed_at)) == {Path("/done/a")}


def test_events_go_with_their_own_row_and_those_of_a_path_with_its_last(store, database):
    store.record_stalled(source("a"), Stalled("still growing"))
    first = filed(store, "a", classified("aa"))
    cut = now()
    second = filed(store, "a", classified("bb"))
    with database.writing() as connection:
        for item in (first, second):
            note(connection, "/in/a", What.PUT_BACK, f"of {item.id}", item.id)
    for before, left in ((cut, ["still growing", f"of {second.id}"]), (now(), [])):
        for rows in rows_to_remove(database, Wanted(before=before)):
            remove_rows(database, rows)
        assert [event["detail"] for event in query(database, "SELECT detail FROM event ORDER BY id")] == left


def test_a_study_of_which_only_a_repeat_is_left_shows_no_result(store, database):
    filed(store, "a", classified("aa", 0.9, study_uid="1.2"))
    filed(Store(database, MODEL, watcher="theirs"), "b", Duplicate("aa", Facts(study_uid="1.2")))
    for rows in rows_to_remove(database, Wanted(before=now())):
        remove_rows(database, rows)
    [study] = query(database, "SELECT files, classified, fractured, max_probability, prediction FROM studies")
    assert tuple(study.values()) == (0, 0, 0, None, None)


def test_a_picture_without_uids_is_a_study_of_its_own(store, database):
    record(store, "a.png", classified("aa"))
    assert query(database, "SELECT study_uid, files FROM studies") == [{"study_uid": "sha256:aa", "files": 1}]
    assert query(database, "SELECT study_uid FROM results") == [{"study_uid": None}]


def test_what_is_no_image_makes_no_study(store, database):
    record(store, "a.txt", Rejected("not_an_image", "", "aa"))
    assert query(database, "SELECT * FROM studies") == []


def test_a_stalled_row_gives_way_to_the_outcome(store, database):
    store.record_stalled(source("a"), Stalled("still growing"))
    assert query(database, "SELECT status, detail FROM results") == [{"status": "stalled", "detail": "still growing"}]
    record(store, "a", classified("aa"))
    assert query(database, "SELECT status FROM results") == [{"status": "classified"}]


def test_what_was_committed_but_not_moved_is_found_again(store):
    kept = record(store, "a", Failed("corrupt", "broken", "aa"))
    moved = record(store, "b", classified("bb"))
    store.filed([(moved, moved.filed_path)])
    [found] = store.unfiled(Path("/in"))
    assert (found.id, found.source, found.filed_path) == (kept.id, kept.source, kept.filed_path)
    assert (found.outcome.status, found.outcome.code, found.outcome.detail) == ("failed", "corrupt", "broken")
    assert store.unfiled(Path("/i")) == []


def test_a_name_that_is_no_utf_8_is_found_again_after_a_crash(store, tmp_path):
    moved = tmp_path / os.fsdecode(b"m\xfcller")
    moved.touch()
    store.record([(source(moved.name), Failed("corrupt", "broken", "aa"), moved)])
    [found] = store.unfiled(Path("/in"))
    assert found.filed_path == moved


def test_nobody_can_ask_for_the_removal_of_everything():
    with pytest.raises(ValueError, match="neither a time nor a patient"):
        Wanted(keep_positives=True)


def test_what_a_crash_left_is_found_with_its_prediction_and_its_attempts(store):
    record(store, "a", classified("aa", 0.75))
    record(store, "b", Failed("corrupt", "broken", "bb"))
    record(store, "c", Failed("corrupt", "broken", "bb"))
    good, _, again = store.unfiled(Path("/in"))
    assert good.outcome.prediction == Prediction(Label.FRACTURED, 0.75, 0.5, MODEL)
    assert again.attempts == 2


def test_a_row_for_a_stalled_file_is_there_once(store, database):
    for _ in range(2):
        store.record_stalled(source("a"), Stalled("still growing"))
    assert query(database, "SELECT status FROM results") == [{"status": "stalled"}]


def test_where_a_file_ended_up_is_corrected(store, database):
    recorded = record(store, "a", classified("aa"))
    store.filed([(recorded, Path("/done/a-1"))])
    assert query(database, "SELECT filed_path FROM results") == [{"filed_path": "/done/a-1"}]


def test_files_that_stay_are_remembered_until_they_or_the_model_change(store, database):
    store.record([(source("a"), classified("aa"), source("a").path)])
    record(store, "moved", classified("bb"))
    candidates = [source("a"), source("a", inode=2), source("moved"), source("new")]
    assert store.unchanged(candidates) == {source("a")}
    assert Store(database, OTHER).unchanged(candidates) == set()


def test_attempts_count_every_failure_of_the_content(store):
    assert [record(store, name, Failed("corrupt", "", "aa")).attempts for name in "abc"] == [1, 2, 3]


def test_hostile_text_is_data(store, database):
    evil = "Robert'); DROP TABLE file;--\0\ud800"
    record(store, "a", classified("aa", patient_id=evil))
    [row] = query(database, "SELECT patient_id FROM results")
    assert row["patient_id"] == "Robert'); DROP TABLE file;--\\ud800"


def test_paths_that_are_no_utf_8_are_recorded(store, database):
    path = Path("/in/caf\udce9.dcm")
    store.record([(SourceFile(path, 1, 1, 1, now()), classified("aa"), path)])
    assert query(database, "SELECT source_path FROM results") == [{"source_path": "/in/caf\\xe9.dcm"}]


def test_a_thousand_digests_are_one_question(store):
    record(store, "a", classified("aa"))
    assert store.known({f"{n:064}" for n in range(1200)} | {"aa"}) == {"aa"}


def test_notes_are_a_json_array(store, database):
    record(store, "a", classified("aa"))
    assert json.loads(query(database, "SELECT notes FROM results")[0]["notes"]) == ["odd"]


def test_a_growing_file_whose_path_is_not_recorded_has_one_row(store, database):
    growing = SourceFile(Path("/in/ANA"), 10, 20, 255, now(), alias="dropped:ff-a-14")
    other = SourceFile(Path("/in/BEA"), 10, 20, 4095, now(), alias="dropped:fff-a-14")
    for source in (growing, other):
        store.record_stalled(source, Stalled("still growing"))
    whole = SourceFile(Path("/in/ANA"), 99, 30, 255, now(), alias="dropped:ff-63-1e")
    store.record([(whole, classified("aa"), whole.path)])
    rows = query(database, "SELECT source_path, filed_path, status FROM results")
    assert {tuple(row.values()) for row in rows} == {
        ("dropped:fff-a-14", None, "stalled"),
        ("dropped:ff-63-1e", "dropped:ff-63-1e", "classified"),
    }
    assert store.unchanged([whole, growing]) == {whole}
