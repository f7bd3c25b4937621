import re
from pathlib import Path

import pytest
from sqlalchemy import text

from fracture_watch.errors import InvalidCursor
from fracture_watch.outcomes import Classified, Failed
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, SourceFile
from fracture_watch.results.database import Database
from fracture_watch.results.queries import (
    COLUMNS,
    STUDY_COLUMNS,
    Filter,
    StudyFilter,
    one,
    page,
    results,
    studies,
    study,
)
from fracture_watch.results.store import Store

MODEL = ModelFacts("m", "1", "x")


@pytest.fixture
def database(url):
    database = Database(url)
    store = Store(database, MODEL)
    for number, probability in enumerate((0.2, 0.6, 0.9)):
        label = Label.FRACTURED if probability >= 0.5 else Label.NOT_FRACTURED
        facts = Facts(patient_id=f"P{number}", study_uid=f"1.{number}")
        outcome = Classified(str(number), facts, Prediction(label, probability, 0.5, MODEL))
        store.record([(SourceFile(Path(f"/in/{number}"), 0, 0, 0, "2026"), outcome, None)])
    store.record([(SourceFile(Path("/in/bad"), 0, 0, 0, "2026"), Failed("corrupt", "x"), None)])
    yield database
    database.close()


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), [4, 3, 2, 1]),
        (Filter(limit=2), [4, 3]),
        (Filter(prediction="fractured"), [3, 2]),
        (Filter(prediction="not fractured"), [1]),
        (Filter(min_probability=0.6), [3, 2]),
        (Filter(status="failed"), [4]),
        (Filter(study="1.1"), [2]),
        (Filter(study="sha256:1"), []),  # that content has a study UID
        (Filter(patient="P2"), [3]),
        (Filter(since="2999"), []),
        (Filter(until="2000"), []),
        (Filter(since="2000", until="2999", prediction="fractured", limit=1), [3]),
    ],
)
def test_filters(database, wanted, ids):
    assert [row["id"] for row in results(database, wanted)] == ids


def test_rows_have_the_views_columns_in_order(database):
    assert list(next(results(database, Filter()))) == COLUMNS


def walk(ask, limit):
    """Every row, page by page; each page but the last is full."""
    cursor = None
    while True:
        found = ask(cursor, limit)
        yield from found.rows
        cursor = found.next_cursor
        if cursor is None:
            return
        assert len(found.rows) == limit


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_are_the_results_in_pieces(database, limit):
    last = Classified("last", Facts(), Prediction(Label.FRACTURED, 1.0, 0.5, MODEL))
    Store(database, MODEL).record([(SourceFile(Path("/in/last"), 0, 0, 0, "2026"), last, None)])
    for wanted in (
        Filter(),
        Filter(limit=1),
        Filter(min_probability=0.5),
        Filter(patient="nobody"),
        Filter(min_probability=0.0),
    ):
        whole = list(results(database, Filter(min_probability=wanted.min_probability, patient=wanted.patient)))
        assert list(walk(lambda after, limit, wanted=wanted: page(database, wanted, after, limit), limit)) == whole


def test_rows_of_the_same_moment_are_told_apart_by_their_number(database):
    with database.writing() as connection:
        connection.execute(text("UPDATE file SET completed_at = '2026'"))
    assert [row["id"] for row in walk(lambda after, limit: page(database, Filter(), after, limit), 1)] == [4, 3, 2, 1]


def test_what_arrives_between_two_pages_moves_nothing(database):
    first = page(database, Filter(), None, 2)
    source = SourceFile(Path("/in/late"), 0, 0, 0, "2026")
    Store(database, MODEL).record([(source, Failed("corrupt", "x"), None)])
    assert [row["id"] for row in page(database, Filter(), first.next_cursor, 2).rows] == [2, 1]


@pytest.fixture
def worklist(database):
    """Studies of every kind, among them some with equal probabilities."""
    with database.writing() as connection:
        for number, (prediction, probability) in enumerate(
            [("fractured", 0.9), ("fractured", 0.95), ("not fractured", 0.45), ("not fractured", 0.99)] * 2
            + [(None, None)] * 3
        ):
            values = {"uid": f"9.{number}", "what": prediction, "p": probability, "at": f"2020-01-0{number // 3 + 1}"}
            connection.execute(
                text(
                    "INSERT INTO study (study_uid, files, classified, fractured, prediction, max_probability, "
                    "last_result_at) VALUES (:uid, 1, 1, 1, :what, :p, :at)"
                ),
                values,
            )
    return database


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 14, 20])
def test_the_worklist_has_the_most_urgent_studies_first(worklist, limit):
    rows = list(walk(lambda after, limit: studies(worklist, StudyFilter(), after, limit), limit))
    rank = {"fractured": 2, "not fractured": 1, None: 0}
    wanted = sorted(
        rows,
        key=lambda r: (rank[r["prediction"]], r["max_probability"] or 0, r["last_result_at"], r["study_uid"]),
        reverse=True,
    )
    assert rows == wanted
    assert len(rows) == len({row["study_uid"] for row in rows}) == 14
    assert list(rows[0]) == STUDY_COLUMNS


@pytest.mark.parametrize(
    ("wanted", "uids"),
    [
        (StudyFilter(prediction="fractured"), ["9.5", "9.1", "1.2", "9.4", "9.0", "1.1"]),
        (StudyFilter(prediction="not fractured", until="2021"), ["9.7", "9.3", "9.6", "9.2"]),
        (StudyFilter(since="2021"), ["1.2", "1.1", "1.0"]),
        (StudyFilter(patient="P1"), ["1.1"]),
        (StudyFilter(min_probability=0.95), ["9.5", "9.1", "9.7", "9.3"]),
        (StudyFilter(until="2020-01-01T12", prediction="fractured"), ["9.1", "9.0"]),
        (StudyFilter(since="2999"), []),
    ],
)
def test_the_worklist_is_filtered(worklist, wanted, uids):
    assert [row["study_uid"] for row in studies(worklist, wanted).rows] == uids
    assert [row["study_uid"] for row in walk(lambda a, n: studies(worklist, wanted, a, n), 2)] == uids


@pytest.mark.parametrize("cursor", ["", "x", "====", "é", "A" * 5000, "AAAAAAAAW10", "AAAAAAAAeyJhIjoxfQ", "\ud800"])
@pytest.mark.parametrize("ask", [lambda d, c: page(d, Filter(), c), lambda d, c: studies(d, StudyFilter(), c)])
def test_a_cursor_that_was_made_up_is_refused(database, ask, cursor):
    with pytest.raises(InvalidCursor, match="next_cursor"):
        ask(database, cursor)


def test_a_cursor_is_good_for_its_own_question_only_and_fits_into_a_url(database):
    cursor = page(database, Filter(), None, 1).next_cursor
    assert re.fullmatch(r"[\w-]+", cursor, re.ASCII)
    changed = cursor[:-1] + ("A" if cursor[-1] != "A" else "E")
    for other, wanted in ((cursor, Filter(status="failed")), (changed, Filter())):
        with pytest.raises(InvalidCursor):
            page(database, wanted, other, 1)
    with pytest.raises(InvalidCursor):
        studies(database, StudyFilter(), cursor)


def test_one_result_is_found_by_its_number(database):
    assert one(database, 3)["patient_id"] == "P2"
    assert [one(database, number) for number in (99, -1, 2**70)] == [None] * 3


def test_a_study_comes_with_the_results_of_its_files(database):
    store = Store(database, MODEL)
    picture = Classified("aa", Facts(), Prediction(Label.FRACTURED, 0.7, 0.5, MODEL))
    for name in ("a", "again"):
        store.record([(SourceFile(Path(f"/in/{name}"), 0, 0, 0, "2026"), picture, None)])
    found = study(database, "sha256:aa")
    assert (found["files"], found["max_probability"]) == (1, 0.7)
    assert [(row["id"], row["status"]) for row in found["results"]] == [(6, "duplicate"), (5, "classified")]
    assert list(results(database, Filter(study="sha256:aa"))) == found["results"]
    assert study(database, "1.2")["results"] == [one(database, 3)]
    assert study(database, "1.999") is None
