"""No documented question, and nothing that is done for every file, reads a whole table."""

import itertools
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from fracture_watch.outcomes import Classified, Duplicate, Failed, Stalled
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, SourceFile
from fracture_watch.results import queries
from fracture_watch.results.database import Database
from fracture_watch.results.queries import Filter, StudyFilter, page, results, studies, study
from fracture_watch.results.removal import Wanted, rows_to_remove
from fracture_watch.results.store import Store

MODEL = ModelFacts("m", "1", "model-a")
FILTERS = {
    "prediction": "fractured",
    "since": "2026-01-01",
    "until": "2026-02-01",
    "study": "1.2",
    "patient": "P1",
    "min_probability": 0.5,
    "status": "failed",
}
AS_TYPED = {  # the same in the SQL that a person writes
    "prediction": "prediction = 'fractured'",
    "since": "completed_at >= '2026-01-01'",
    "until": "completed_at < '2026-02-01'",
    "study": "study_uid = '1.2'",
    "patient": "patient_id = 'P1'",
    "min_probability": "probability >= 0.5",
    "status": "status = 'failed'",
}
COMBINATIONS = [names for number in (1, 2, 3) for names in itertools.combinations(FILTERS, number)]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return Database(f"sqlite:///{tmp_path_factory.mktemp('plans') / 'x.db'}")


class Asked:
    """Every statement that is sent to the database within the block, with its plan."""

    def __init__(self, database):
        self._path = database.url.database
        self._sent = []

    def __enter__(self):
        event.listen(Engine, "before_cursor_execute", self._keep)
        return self

    def __exit__(self, *_):
        event.remove(Engine, "before_cursor_execute", self._keep)

    def _keep(self, _connection, _cursor, statement, parameters, _context, many):
        if not statement.startswith(("BEGIN", "PRAGMA")):
            self._sent.append((statement, parameters[0] if many else parameters))

    def plans(self):
        with sqlite3.connect(self._path) as connection:
            for statement, parameters in self._sent:
                yield statement, plan(connection, statement, parameters)


def plan(connection, statement, parameters=()):
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]


def walks(steps):
    """The steps that read a table or an index from one end to the other."""
    return [step for step in steps if step.startswith("SCAN") and "CONSTANT ROW" not in step]


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_no_filter_reads_a_whole_table(database, names):
    wanted = Filter(**{name: FILTERS[name] for name in names}, limit=50)
    with Asked(database) as asked:
        list(results(database, wanted))
        page(database, wanted)
    for _, steps in asked.plans():
        assert walks(steps) == []
        assert any(step.startswith("SEARCH file") for step in steps)


# A minimal probability alone, as typed, walks an index from the newest row until there are enough.
@pytest.mark.parametrize("names", [c for c in COMBINATIONS if c != ("min_probability",)], ids="+".join)
def test_nor_does_a_person_who_types_it(database, names):
    typed = f"SELECT * FROM results WHERE {' AND '.join(AS_TYPED[name] for name in names)}"
    with sqlite3.connect(database.url.database) as connection:
        for ending in ("", "ORDER BY completed_at DESC, id DESC LIMIT 50"):
            assert walks(plan(connection, f"{typed} {ending}")) == []


@pytest.mark.parametrize("names", [c for c in COMBINATIONS if not {"study", "min_probability"} & set(c)], ids="+".join)
def test_pages_are_read_off_an_index_without_sorting(database, names):
    with Asked(database) as asked:
        page(database, Filter(**{name: FILTERS[name] for name in names}))
    assert [step for _, steps in asked.plans() for step in steps if "TEMP B-TREE" in step] == []


def test_the_newest_of_all_are_read_off_the_end_of_an_index(database):
    with Asked(database) as asked:
        page(database, Filter())
    [(_, steps)] = asked.plans()
    assert steps[0] == "SCAN file USING INDEX file_completed"
    assert not any("TEMP B-TREE" in step for step in steps)


@pytest.mark.parametrize("names", [(), *(n for n in COMBINATIONS if not {"study", "status"} & set(n))], ids="+".join)
def test_the_worklist_is_read_off_an_index(database, names):
    with Asked(database) as asked:
        studies(database, StudyFilter(**{name: FILTERS[name] for name in names}))
    for _, steps in asked.plans():
        assert walks(steps) == []
        assert "patient" in names or not any("TEMP B-TREE" in step for step in steps)


def test_one_study_and_the_next_pages_are_looked_up(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    record(Store(database, MODEL))
    first, urgent = page(database, Filter(status="classified"), limit=1), studies(database, StudyFilter(), limit=1)
    with Asked(database) as asked:
        assert study(database, "1.1")
        assert queries.one(database, 1)
        assert page(database, Filter(status="classified"), first.next_cursor, 1).rows
        assert studies(database, StudyFilter(), urgent.next_cursor, 1).rows
    taken = list(asked.plans())
    assert [walks(steps) for _, steps in taken] == [[]] * len(taken)
    assert "completed_at<?" in taken[3][1][0]


def record(store):
    for number in range(3):
        facts = Facts(patient_id="P", study_uid=f"1.{number}", sop_instance_uid=f"2.{number}")
        outcome = Classified(f"{number:064}", facts, Prediction(Label.FRACTURED, 0.5 + number / 10, 0.5, MODEL))
        again, failed = Duplicate(outcome.sha256, facts), Failed("corrupt", "x", "f" * 64, facts)
        source = SourceFile(Path(f"/in/{number}"), 0, 0, 0, "2026")
        done = store.record([(source, each, None) for each in (outcome, again, failed)])
        store.filed([(each, source.path) for each in done])


def without_statistics(database, which="1"):
    with sqlite3.connect(database.url.database) as connection:
        connection.execute(f"DELETE FROM sqlite_stat1 WHERE {which}")
    database.close()
    return Database(str(database.url))


def without_those_of_status(database):
    """As after its index was made anew, which takes its statistics away."""
    return without_statistics(database, "idx = 'file_status'")


@pytest.mark.parametrize("opened", [lambda database: database, without_statistics, without_those_of_status])
def test_what_is_done_for_every_file_looks_rows_up_by_what_is_its_own(tmp_path, opened):
    """Never by status or prediction, which a million rows share; also where somebody removed the statistics."""
    database = opened(Database(f"sqlite:///{tmp_path / 'x.db'}"))
    store = Store(database, MODEL)
    with Asked(database) as asked:
        record(store)
        store.record_stalled(SourceFile(Path("/in/x"), 0, 0, 0, "2026"), Stalled("still growing"))
        store.known({f"{number:064}" for number in range(100)})
        store.unchanged([SourceFile(Path("/in/x"), 0, 0, 0, "2026")])
    shared = ("file_status", "file_prediction", "file_probability", "file_completed", "study_worklist")
    for statement, steps in asked.plans():
        if "ORDER BY file.id DESC" not in statement:  # the latest model: the first rows from the end have one
            assert [step for step in steps if step.startswith("SCAN file") or any(n in step for n in shared)] == []


@pytest.mark.parametrize("opened", [lambda database: database, without_statistics])
@pytest.mark.parametrize("wanted", [Wanted(before="2026"), Wanted(patient=("P",)), Wanted("2026", ("P",))])
def test_what_is_pruned_is_read_off_an_index_piece_by_piece(tmp_path, opened, wanted):
    database = opened(Database(f"sqlite:///{tmp_path / 'x.db'}"))
    with Asked(database) as asked:
        list(rows_to_remove(database, wanted))
    [(_, steps)] = asked.plans()
    assert steps[0].startswith("SEARCH file USING INDEX file_" + ("patient" if wanted.patient else "completed"))
    newer_copy = ["CORRELATED SCALAR SUBQUERY 1", "SEARCH file_1 USING INDEX file_duplicate_of (duplicate_of=?)"]
    assert steps[1:] == (newer_copy if wanted.before else [])
