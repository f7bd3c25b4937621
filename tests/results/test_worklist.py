"""The worklist's order, its filters, and what readers say, on a drawn archive."""

import pytest

from benchmarks.archive import NEW, build
from fracture_watch.errors import InvalidCursor, WrongUse
from fracture_watch.records import Label, Status
from fracture_watch.results import verdicts, worklist
from fracture_watch.results.database import Database
from fracture_watch.results.queries import StudyFilter, studies
from fracture_watch.results.verdicts import Verdict
from fracture_watch.results.worklist import Wanted
from fracture_watch.web.accuracy import Share
from tests.results.test_plans import Asked


@pytest.fixture(scope="module")
def database(kind, request, tmp_path_factory):
    if kind == "sqlite":
        database = Database(f"sqlite:///{tmp_path_factory.mktemp('worklist') / 'x.db'}")
    else:
        database = Database((server := request.getfixturevalue("postgresql")).of(server.empty()))
    build(database, 2000)
    yield database
    database.close()


@pytest.fixture(scope="module")
def every(database):
    return worklist.page(database, Wanted(), limit=10_000).rows


def keys(rows):
    return [row["study_uid"] for row in rows]


def test_the_order_is_that_of_the_api_and_pages_are_pieces_of_it(database, every):
    assert keys(every) == keys(studies(database, StudyFilter(), limit=10_000).rows)
    pieces, cursor = [], None
    while cursor or not pieces:
        page = worklist.page(database, Wanted(), cursor, limit=61)
        pieces, cursor = pieces + keys(page.rows), page.next_cursor
    assert pieces == keys(every)
    with pytest.raises(InvalidCursor):
        worklist.page(database, Wanted(modality="CR"), worklist.page(database, Wanted(), limit=1).next_cursor)


def test_the_neighbours_are_those_of_the_list(database, every):
    names = [None, *keys(every), None]
    for place in (0, 1, len(every) // 2, len(every) - 1):
        assert worklist.beside(database, Wanted(), every[place]) == (names[place], names[place + 2])


def test_the_filters_are_what_they_say(database, every):
    faces = worklist.faces(database, keys(every)[:400], NEW.id)
    part = faces[keys(every)[0]]["body_part"]
    found = worklist.page(database, Wanted(body_part=part), limit=10_000).rows
    assert 0 < len(found) < len(every)
    assert part in worklist.choices(database, "body_part")
    assert {faces[key]["body_part"] for key in keys(found) if key in faces} == {part}
    first = every[0]
    for text in (
        first["patient_id"],
        first["patient_id"].lower(),
        first["study_uid"],
        faces[first["study_uid"]]["accession_number"],
    ):
        assert first["study_uid"] in keys(worklist.page(database, Wanted(text=text)).rows)
    assert worklist.page(database, Wanted(text="nobody")).rows == []


def test_a_text_that_many_begin_with_finds_them_all(database, every, monkeypatch):
    starts = every[0]["patient_id"][:1], every[0]["study_uid"][:4], every[-1]["patient_id"]
    found = [keys(worklist.page(database, Wanted(text=text), limit=10_000).rows) for text in starts]
    monkeypatch.setattr(worklist, "_RARE", 3)
    assert [keys(worklist.page(database, Wanted(text=text), limit=10_000).rows) for text in starts] == found
    assert len(found[0]) > 500
    assert 0 < len(found[2]) < 100


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "wanted", [Wanted(), Wanted(text="P1"), Wanted(body_part="HAND"), Wanted(modality="CR", since="2026-11-01")]
)
def test_no_question_reads_a_whole_table(database, wanted):
    with Asked(database) as asked:
        worklist.page(database, wanted)
        worklist.choices(database, "body_part")
        for status in worklist.PROBLEMS:
            worklist.problems(database, status)
    steps = [step for _, plan in asked.plans() for step in plan]
    assert steps
    assert [step for step in steps if step in ("SCAN file", "SCAN study")] == []


def test_verdicts_are_appended_and_the_latest_is_the_truth(database, every):
    face = worklist.faces(database, keys(every)[:1], NEW.id)[every[0]["study_uid"]]
    for verdict in (Verdict.AGREE, Verdict.DISAGREE):
        verdicts.give(database, face["id"], verdict)
    assert [given.verdict for given in verdicts.history(database, face["id"])] == [Verdict.AGREE, Verdict.DISAGREE]
    [label] = verdicts.labels(database)
    assert (face["prediction"], label["label"]) == (Label.FRACTURED, Label.NOT_FRACTURED)
    assert {reading.fractured for reading in verdicts.readings(database)} == {False}
    verdicts.give(database, face["id"], Verdict.UNSURE)
    assert verdicts.labels(database) == verdicts.readings(database) == []
    problem = worklist.problems(database, Status.FAILED).rows[0]
    with pytest.raises(WrongUse):
        verdicts.give(database, problem["id"], Verdict.AGREE)


def test_wilsons_interval():
    low, high = Share(8, 10).interval  # as in Wilson's own formula, worked out by hand
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert Share(0, 0).interval == (0, 1)
    assert Share(10, 10).interval[1] == pytest.approx(1)
