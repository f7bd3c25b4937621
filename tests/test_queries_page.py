"""docs/queries.md is held to the code: every question runs and answers, in SQLite and in what else opens the file."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from collections import Counter
from datetime import datetime
from importlib.util import find_spec

import pytest

from benchmarks import million
from benchmarks.archive import NEW, OLD, build
from fracture_watch.results.database import Database
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "queries.md").read_text(encoding="utf-8")
QUESTIONS = dict(million.questions(PAGE))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("queries") / "fracture_watch.db"
    database = Database(f"sqlite:///{path}")
    build(database, 2000)
    database.close()
    return path


@pytest.fixture(scope="module")
def ask(path):
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    yield lambda sql, *parameters: [dict(row) for row in connection.execute(sql, parameters)]
    connection.close()


@pytest.fixture(scope="module")
def rows(ask):
    return ask("SELECT * FROM results")


@pytest.fixture(scope="module")
def autumn(rows):
    return [row for row in rows if row["completed_at"] >= "2026-09-01"]


def of(rows, **wanted):
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_there_are_a_dozen_questions_and_every_block_of_sql_is_one():
    assert len(QUESTIONS) >= 12
    assert len(QUESTIONS) == PAGE.count("```sql")


@pytest.mark.parametrize("title", [title for title in QUESTIONS if "patient" not in title])
def test_every_question_is_answered(ask, title):
    assert ask(QUESTIONS[title])


def test_positives_per_day(ask, autumn):
    found = ask(QUESTIONS["Positives per day"])
    assert sum(row["classified"] for row in found) == len(of(autumn, status="classified"))
    assert sum(row["positives"] for row in found) == len(of(autumn, prediction="fractured"))
    assert [row["day"] for row in found] == sorted({row["day"] for row in found}, reverse=True)


def test_rates_per_device(ask, autumn):
    for row in ask(QUESTIONS["Rate of positives per device"]):
        maker = None if row["manufacturer"] == "(not said)" else row["manufacturer"]
        same = [
            r for r in of(autumn, status="classified", manufacturer=maker) if r["source_path"].startswith(row["folder"])
        ]
        assert row["folder"].endswith("/")
        assert row["classified"] == len(same)
        assert row["rate"] == round(len(of(same, prediction="fractured")) / len(same), 3)


def test_turnaround(ask, rows):
    title = "Turnaround: median and 95th percentile, by month"
    for row in ask(QUESTIONS[title]):
        month = [r for r in of(rows, status="classified") if r["completed_at"].startswith(row["month"])]
        taken = sorted(moment(r["completed_at"]) - moment(r["received_at"]) for r in month)
        assert row["files"] == len(taken)
        assert row["p50"] == pytest.approx(taken[len(taken) // 2], abs=0.2)
        assert taken[0] <= row["p50"] <= row["p95"] <= taken[-1]


def moment(text):
    return datetime.fromisoformat(text).timestamp()


def test_failures_and_duplicates_are_all_counted(ask, rows, autumn):
    failed = ask(QUESTIONS["What failed or was rejected, and why"])
    assert {row["code"]: row["files"] for row in failed} == Counter(row["code"] for row in autumn if row["code"])
    repeated = [row for row in of(rows, status="duplicate") if row["completed_at"] >= "2026-07-01"]
    assert sum(row["duplicates"] for row in ask(QUESTIONS["Duplicates per week"])) == len(repeated)


def test_what_waits_for_another_model_is_what_reclassify_would_take(ask, rows):
    def contents(model):
        return {row["sha256"] for row in of(rows, status="classified", model_id=model.id)}

    [row] = ask(QUESTIONS["What only an older model has classified"])
    assert (row["model_version"], row["waiting"]) == (OLD.version, len(contents(OLD) - contents(NEW)))


def test_the_hours_are_of_all_files_and_the_notes_of_all_notes(ask, autumn):
    assert sum(row["files"] for row in ask(QUESTIONS["Files per hour of the day"])) == len(autumn)
    notes = Counter(note for row in autumn for note in json.loads(row["notes"] or "[]"))
    assert {row["note"]: row["files"] for row in ask(QUESTIONS["What was unusual"])} == notes


def test_near_means_near_and_disagreement_means_both(ask):
    assert all(abs(r["probability"] - r["threshold"]) < 0.0206 for r in ask(QUESTIONS["Near the threshold"]))
    for row in ask(QUESTIONS["Disagreement within a study"]):
        said = {r["prediction"] for r in ask("SELECT * FROM results WHERE study_uid = ?", row["study_uid"])}
        assert said >= {"fractured", "not fractured"}


def test_a_patients_results_are_all_of_them(ask, rows):
    patient = next(row["patient_id"] for row in rows if row["patient_id"])
    sql = QUESTIONS["Everything of one patient, newest first"].replace("P000123", patient)
    assert len(ask(sql)) == len(of(rows, patient_id=patient))


def test_the_tables_of_times_have_every_question_and_every_filter():
    measured = re.findall(r"^\| (.+?) \| [\d.,]+ \| ", PAGE, re.MULTILINE)
    assert measured == [*million.FILTERS, *million.WORKLISTS, *QUESTIONS]


def example(language, needle):
    [found] = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if needle in text]
    return found


@pytest.mark.skipif(find_spec("duckdb") is None, reason="the analysis extra is not installed")
def test_duckdb_opens_the_file(path, ask, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    exec(compile(example("python", "duckdb"), "docs/queries.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(label in printed for label in ("fractured", "not fractured"))
    assert str(len(ask("SELECT 1 FROM results WHERE prediction = 'fractured'"))) in printed


@pytest.mark.skipif(find_spec("datasette") is None, reason="the analysis extra is not installed")
def test_datasette_opens_the_file(path, rows):
    line = next(line for line in example("console", "--get").splitlines() if "--get" in line)
    command = [sys.executable, "-m", *shlex.split(line)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["id"] for row in found["rows"]] == [row["id"] for row in of(rows, prediction="fractured")][
        : len(found["rows"])
    ]
    assert found["filtered_table_rows_count"] == len(of(rows, prediction="fractured"))
