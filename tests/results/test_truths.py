"""Truths from a file of labels: found by what they name, recorded once, counted like a reader's word."""

import io
import itertools
from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks.archive import build
from fracture_watch.errors import WrongUse
from fracture_watch.labels import SHA256, UID, read_truths
from fracture_watch.results import verdicts
from fracture_watch.results.truths import import_truths
from fracture_watch.results.verdicts import Verdict
from tests.web.test_app import client

INBOX = Path("/srv/inbox")


@pytest.fixture
def database(database):
    build(database, 300)
    return database


@pytest.fixture
def rows(database):
    columns = "id, sop_instance_uid, sha256, source_path, prediction"
    with database.reading() as connection:
        asked = f"SELECT {columns} FROM results WHERE status = 'classified' AND sop_instance_uid <> '' ORDER BY id"
        latest = {row["sop_instance_uid"]: dict(row) for row in connection.execute(text(asked)).mappings()}
    return list(latest.values())[:8]


def imported(database, lines, keys=(UID, SHA256, "path")):
    truths = read_truths(io.StringIO("\n".join(lines) + "\n"), "truth.csv", keys)
    return import_truths(database, truths, "truth.csv", lambda path: [str(INBOX / path)])


def test_every_way_to_name_an_image_finds_it(database, rows):
    for key, column in ((UID, "sop_instance_uid"), (SHA256, "sha256"), ("path", "source_path")):
        done = imported(database, [f"{key},label", *(f"{row[column]},fractured" for row in rows), "nowhere,0"])
        assert done.lines == len(rows) + 1
        assert [truth.line for truth in done.missing] == [len(rows) + 2]
        assert (done.recorded, done.known) == ((len(rows), 0) if key == UID else (0, len(rows)))
    for row in rows:
        [given] = verdicts.history(database, row["id"])
        agrees = row["prediction"] == "fractured"
        assert (given.verdict, given.source) == (Verdict.AGREE if agrees else Verdict.DISAGREE, "truth.csv")
    found = verdicts.readings(database)
    assert {reading.fractured for reading in found} == {True}
    assert len(found) >= len(rows)


def test_figures_of_the_model_in_force_are_its_own(tmp_path, database, rows):
    """Not those of the model before, nor of the same weights at another threshold."""
    with database.reading() as connection:
        ids = dict(connection.execute(text("SELECT id, model_id FROM results WHERE status = 'classified'")).all())
    for row in rows:
        verdicts.give(database, row["id"], Verdict.AGREE)
    asked = client(tmp_path, None, database=database)  # a model that has classified nothing
    page = asked.get("/accuracy").get_data(as_text=True)
    assert "Model in force" in page.partition("By model version")[0]
    assert " %</span>" not in page.partition("By model version")[0]
    assert " %</span>" in page.partition("By model version")[2]
    assert {r.model_id for r in verdicts.readings(database)} <= set(ids.values())


def test_more_lines_than_there_may_be_are_refused_without_being_read():
    def lines():
        yield from ("path,label\n", "a,0\n", "b,1\n", "c,0\n")
        pytest.fail("it went on")

    assert len(read_truths(itertools.islice(lines(), 3), "truth.csv", most=2)) == 2
    with pytest.raises(WrongUse, match=r"truth\.csv: has over 2 lines"):
        read_truths(lines(), "truth.csv", most=2)


def test_the_latest_word_counts_whoever_says_it(database, rows):
    row = rows[0]
    verdicts.give(database, row["id"], Verdict.AGREE)
    other = "not fractured" if row["prediction"] == "fractured" else "fractured"
    assert imported(database, ["sop_instance_uid,label", f"{row['sop_instance_uid']},{other}"]).recorded == 1
    assert verdicts.latest(database, [row["id"]]) == {row["id"]: Verdict.DISAGREE}
    verdicts.give(database, row["id"], Verdict.AGREE)
    assert verdicts.latest(database, [row["id"]]) == {row["id"]: Verdict.AGREE}
    assert [given.source for given in verdicts.history(database, row["id"])] == [None, "truth.csv", None]


def test_each_line_is_named_by_the_first_column_that_says_something(database, rows):
    """As /verdicts.csv has pictures without UIDs among DICOM files."""
    lines = [f"{rows[0]['source_path']},,0", f"{rows[1]['source_path']},{rows[1]['sop_instance_uid']},0"]
    lines += [f",{rows[2]['sop_instance_uid']},1"]
    assert imported(database, ["path,sop_instance_uid,label", *lines]).recorded == 3
    with pytest.raises(WrongUse, match="line 3: needs a sop_instance_uid, and a label"):
        imported(database, ["path,sop_instance_uid,label", lines[0], ",,0"])


def test_what_readers_told_is_taken_back_as_truths(tmp_path, database, rows):
    with database.writing() as connection:
        evil = {"id": rows[0]["id"], "path": "/srv/filed/a;=1+1.jpg"}
        connection.execute(text("UPDATE file SET filed_path = :path, sop_instance_uid = NULL WHERE id = :id"), evil)
    for row in rows:
        verdicts.give(database, row["id"], Verdict.DISAGREE)
    asked = client(tmp_path, None, database=database)
    told = asked.get("/verdicts.csv").get_data()
    assert b"/srv/filed/a;'=1+1.jpg" in told
    page = asked.post("/accuracy", data={"labels": (io.BytesIO(told), "verdicts.csv")})
    assert page.status_code == 200
    assert {len(verdicts.history(database, row["id"])) for row in rows} == {1}  # each was said before
    assert evil["path"] in [truth.name for truth in read_truths(io.StringIO(told.decode()), "verdicts.csv")]


def test_a_path_is_one_in_the_inbox_or_a_whole_one(database, rows):
    with database.writing() as connection:
        connection.execute(text("UPDATE file SET source_path = '/srv/inbox/a/b.dcm' WHERE id = :id"), rows[1])
        connection.execute(text("UPDATE file SET filed_path = '/srv/filed/c.dcm' WHERE id = :id"), rows[2])
    assert imported(database, ["path,label", "a/b.dcm,0", "/srv/filed/c.dcm,1"]).recorded == 2


def test_a_duplicate_stands_for_the_content_that_has_the_prediction(database, rows):
    copy = {"id": rows[3]["id"], "sha": rows[2]["sha256"]}
    with database.writing() as connection:
        change = "status = 'duplicate', source_path = '/srv/inbox/copy.dcm', sha256 = :sha, prediction = NULL"
        connection.execute(text(f"UPDATE file SET {change} WHERE id = :id"), copy)
    assert imported(database, ["path,label", "copy.dcm,0"]).recorded == 1
    assert len(verdicts.history(database, rows[2]["id"])) == 1


def test_a_path_of_another_watcher_is_not_meant(database, rows):
    with database.writing() as connection:
        connection.execute(text("UPDATE file SET watcher = 'other' WHERE id = :id"), rows[1])
    assert len(imported(database, ["path,label", f"{rows[1]['source_path']},0"]).missing) == 1


def test_a_file_with_one_wrong_line_records_nothing(database, rows):
    with pytest.raises(WrongUse, match="line 3"):
        imported(database, ["sha256,label", f"{rows[0]['sha256']},0", f"{rows[1]['sha256']},perhaps"])
    assert verdicts.labels(database) == []
