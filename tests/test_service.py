"""Batches that overlap: what is begun before what is recorded, and what a stop or a fault leaves."""

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from fracture_watch.errors import DatabaseUnavailable
from fracture_watch.outcomes import Failed, Outcome
from fracture_watch.records import Facts, ModelFacts, SourceFile
from fracture_watch.results.database import Database
from fracture_watch.results.store import Store
from fracture_watch.service import Service, in_place
from fracture_watch.times import now
from tests.results.test_store import classified

MODEL = ModelFacts("small", "1", "0123456789abcdef")
CORRUPT = Failed("corrupt", "no picture", None, Facts())


class Scripted:
    """An engine that has answers for as many batches as the test says, and leaves the others waiting."""

    ahead = 2

    def __init__(self, answers: float = float("inf"), fault: Exception | None = None) -> None:
        self.answers = answers
        self.fault = fault
        self.begun: list[Future] = []

    def submit(self, batch: Sequence[SourceFile], measure) -> Future:
        future: Future = Future()
        if len(self.begun) < self.answers:
            future.set_result([CORRUPT] * len(batch))
        elif self.fault:
            future.set_exception(self.fault)
        self.begun.append(future)
        return future


@pytest.fixture
def store(tmp_path):
    with closing(Database(f"sqlite:///{tmp_path}/results.db")) as database:
        yield Store(database, MODEL)


def batch(folder: Path, *names: str) -> tuple[SourceFile, ...]:
    """Files that are there and hold what the stamp says."""
    sources = []
    for name in names:
        path = folder / name
        path.write_bytes(name.encode())
        facts = path.stat()
        sources.append(SourceFile(path, facts.st_size, facts.st_mtime_ns, facts.st_ino, now()))
    return tuple(sources)


def names(done) -> list[str]:
    return [item.source.path.name for item in done.recorded]


def test_the_next_batches_are_under_way_while_one_is_recorded(tmp_path, store):
    engine = Scripted()
    batches = (batch(tmp_path, f"{number}") for number in range(6))
    begun = []
    for number, done in enumerate(Service(engine, store).process(batches, in_place)):
        assert names(done) == [str(number)]
        begun.append(len(engine.begun))
    assert begun == [min(number + 1 + Scripted.ahead, 6) for number in range(6)]


def test_an_empty_batch_says_that_nobody_should_wait_for_more(tmp_path, store):
    asked = []

    def batches():
        for number in range(3):
            yield batch(tmp_path, f"{number}")
            asked.append(number)
            yield ()

    found = [(names(done), list(asked)) for done in Service(Scripted(), store).process(batches(), in_place)]
    assert found == [(["0"], [0]), (["1"], [0, 1]), (["2"], [0, 1, 2])]


def test_what_is_begun_and_not_taken_is_abandoned(tmp_path, store):
    engine = Scripted(answers=1)
    running = Service(engine, store).process((batch(tmp_path, f"{n}") for n in range(3)), in_place)
    assert names(next(running)) == ["0"]
    running.close()
    assert [future.cancelled() for future in engine.begun] == [False, True, True]


def test_a_fault_leaves_what_was_recorded_and_nothing_else(tmp_path, store):
    sources = batch(tmp_path, "0", "1", "2")
    engine = Scripted(answers=1, fault=DatabaseUnavailable("gone"))
    running = Service(engine, store).process(([source] for source in sources), in_place)
    assert names(next(running)) == ["0"]
    with pytest.raises(DatabaseUnavailable):
        next(running)
    with sqlite3.connect(tmp_path / "results.db") as connection:
        assert connection.execute("SELECT source_path FROM results").fetchall() == [(str(tmp_path / "0"),)]


class Answering:
    """An engine with an outcome for each file, in order."""

    ahead = 0

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)

    def submit(self, batch: Sequence[SourceFile], measure) -> Future:
        future: Future = Future()
        future.set_result([self.outcomes.pop(0) for _ in batch])
        return future


def test_an_outcome_that_no_row_can_hold_costs_its_own_file_alone(tmp_path, store, caplog):
    beyond = Failed("too_large", "too many rows", "bb", Facts(patient_id="NAME^OF", rows=10**300))
    engine = Answering(classified("aa"), beyond, classified("cc"))
    [done] = Service(engine, store).process([batch(tmp_path, "1", "2", "3")], in_place)
    assert names(done) == ["1", "2", "3"]
    with sqlite3.connect(tmp_path / "results.db") as connection:
        rows = connection.execute("SELECT status, code, sha256 FROM results ORDER BY id").fetchall()
    assert rows == [("classified", None, "aa"), ("failed", "internal", "bb"), ("classified", None, "cc")]
    assert "its outcome cannot be recorded" in caplog.text
    assert "NAME^OF" not in caplog.text


def test_files_of_one_content_have_places_of_their_own_also_where_their_outcome_cannot_be_recorded(tmp_path, store):
    beyond = Failed("too_large", "too many rows", "bb", Facts(rows=10**300))
    places = tmp_path / "quarantine" / "bb.dcm", tmp_path / "processed" / "aa.dcm"
    engine = Answering(beyond, beyond, classified("aa"), classified("aa"))

    def named(_source, outcome):
        return places[outcome.sha256 == "aa"]

    [done] = Service(engine, store).process([batch(tmp_path, "1", "2", "3", "4")], named)
    assert len({item.filed_path for item in done.recorded}) == 4


def test_a_file_that_comes_up_twice_in_a_batch_and_stays_is_where_it_is(tmp_path, store):
    [source] = batch(tmp_path, "1")
    [done] = Service(Answering(classified("aa"), classified("aa")), store).process([[source, source]], in_place)
    assert [item.filed_path for item in done.recorded] == [source.path] * 2


def test_a_repeat_has_no_objects_built_and_leaves_those_of_the_original_alone(tmp_path, store):
    built = []

    def build(entries):
        built.extend(outcome.sha256 for _, outcome, _ in entries)
        return list(entries)

    # The repeats are said to be new, as by an engine that does not ask the database.
    engine = Answering(*map(classified, ("aa", "bb", "aa", "aa", "cc")))
    batches = batch(tmp_path, "1", "2", "3"), batch(tmp_path, "4", "5")
    done = list(Service(engine, store, build=build).process(batches, in_place))
    assert built == ["aa", "bb", "cc"]
    assert [type(item.outcome).__name__ for part in done for item in part.recorded] == [
        "Classified", "Classified", "Duplicate", "Duplicate", "Classified",
    ]  # fmt: skip
