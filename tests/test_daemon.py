"""The daemon with its real folder, database, filing and decoding workers; only the model is small."""

import hashlib
import os
import shutil
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.errors import DatabaseUnavailable, Unreadable
from fracture_watch.pipeline import Pipeline
from fracture_watch.results.store import Store
from tests.conftest import png, write_config


@pytest.fixture(scope="module")
def runtime(tmp_path_factory, weights):
    """One model and worker pool for all tests here."""
    settings = load_settings(write_config(tmp_path_factory.mktemp("runtime"), weights), {})
    with assembly.runtime(settings) as running:
        yield running


@contextmanager
def working(daemon):
    stop = threading.Event()
    thread = threading.Thread(target=daemon.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def built(folder, weights, runtime, linger_seconds=0.0, **sections):
    settings = load_settings(write_config(folder, weights, **sections), {})
    database = assembly.open_database(settings)
    daemon = assembly.daemon(settings, runtime, database)
    daemon._pace = replace(daemon._pace, pause=0.2, linger=linger_seconds)
    return daemon


def rows(folder, sql="SELECT status, code, filed_path FROM results ORDER BY id"):
    with sqlite3.connect(folder / "fracture_watch.db") as connection:
        return connection.execute(sql).fetchall()


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def drop(folder, name, content):
    path = folder / "inbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_are_classified_recorded_and_filed(tmp_path, weights, runtime):
    daemon = built(tmp_path, weights, runtime)
    drop(tmp_path, "before/a.png", png(1))
    with working(daemon):
        drop(tmp_path, "b.png", png(2))
        drop(tmp_path, "copy.png", png(2))
        drop(tmp_path, "note.txt", b"no picture")
        assert until(lambda: len(rows(tmp_path)) == 4 and not files(tmp_path / "inbox"))
        assert until(lambda: not (tmp_path / "inbox" / "before").exists())
    assert sorted(row[0] for row in rows(tmp_path)) == ["classified", "classified", "duplicate", "rejected"]
    assert files(tmp_path / "processed") == ["b.png", "before/a.png", "copy.png"]
    assert files(tmp_path / "quarantine") == ["note.txt", "note.txt.json"]
    assert not (tmp_path / "inbox" / "before").exists()
    assert len(list((tmp_path / "artefacts").rglob("*.png"))) == 2


@pytest.mark.parametrize("across", [False, True], ids=["same device", "another device"])
def test_files_of_one_content_that_are_named_for_it_are_all_filed(tmp_path, weights, runtime, elsewhere, across):
    filing = {"processed_dir": str((elsewhere if across else tmp_path) / "processed")}
    daemon = built(tmp_path, weights, runtime, filing=filing, privacy={"identifiers": "drop"})
    for name in ("a.png", "b.png", "c.png"):
        drop(tmp_path, name, png(1))
    with working(daemon):
        assert until(lambda: len(rows(tmp_path)) == 3 and not files(tmp_path / "inbox"))
    assert len(files(Path(filing["processed_dir"]))) == 3
    assert len({row[2] for row in rows(tmp_path)}) == 3


def test_a_file_is_moved_only_after_its_result_is_committed(tmp_path, weights, runtime):
    daemon = built(tmp_path, weights, runtime)
    seen = []

    class Watched:
        """The real filing, looking into the database at the moment of each move."""

        def __init__(self, filing):
            self._filing = filing

        def __getattr__(self, name):
            return getattr(self._filing, name)

        def file(self, recorded):
            with sqlite3.connect(tmp_path / "fracture_watch.db") as other:
                seen.append(other.execute("SELECT count(*) FROM results WHERE id = ?", (recorded.id,)).fetchone()[0])
            return self._filing.file(recorded)

    daemon._filing = Watched(daemon._filing)
    drop(tmp_path, "a.png", png(1))
    with working(daemon):
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
    assert seen == [1]


class Crashed(Exception):
    pass


class Dying:
    """The real filing, in a process that dies at the first move."""

    def __init__(self, filing):
        self._filing = filing

    def __getattr__(self, name):
        return getattr(self._filing, name)

    def file(self, recorded):
        raise Crashed


class Unreliable:
    """The real store, whose commits fail while ``broken``."""

    def __init__(self, store):
        self._store = store
        self.broken = True

    def __getattr__(self, name):
        return getattr(self._store, name)

    def record(self, entries):
        if self.broken:
            raise DatabaseUnavailable("the database is away")
        return self._store.record(entries)


def test_without_a_commit_nothing_moves_and_work_resumes_by_itself(tmp_path, weights, runtime):
    daemon = built(tmp_path, weights, runtime)
    daemon._service._store = store = Unreliable(daemon._store)
    drop(tmp_path, "a.png", png(1))
    with working(daemon):
        assert until(lambda: daemon.status.paused)
        assert daemon.status.paused == "database_unavailable: the database is away"
        assert files(tmp_path / "inbox") == ["a.png"]
        assert rows(tmp_path) == []
        store.broken = False
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
        assert until(lambda: daemon.status.paused is None)
    assert [row[0] for row in rows(tmp_path)] == ["classified"]


def test_a_move_that_a_crash_prevented_is_finished_at_start_without_a_second_row(tmp_path, weights, runtime):
    first = built(tmp_path, weights, runtime)
    drop(tmp_path, "a.png", png(1))
    drop(tmp_path, "bad.txt", b"text")

    first._filing = Dying(first._filing)
    with pytest.raises(Crashed):
        first.run(threading.Event())
    assert files(tmp_path / "inbox") == ["a.png", "bad.txt"]
    assert len(rows(tmp_path)) == 2
    with working(built(tmp_path, weights, runtime)):
        assert until(lambda: not files(tmp_path / "inbox"))
        time.sleep(1.5)  # a rescan later there is still one row each
    assert sorted(row[0] for row in rows(tmp_path)) == ["classified", "rejected"]
    assert files(tmp_path / "processed") == ["a.png"]
    assert files(tmp_path / "quarantine") == ["bad.txt", "bad.txt.json"]


def test_a_name_that_is_taken_gets_a_suffix_and_the_row_says_so(tmp_path, weights, runtime):
    (tmp_path / "processed").mkdir()
    (tmp_path / "processed" / "a.png").write_text("older")
    drop(tmp_path, "a.png", png(1))
    with working(built(tmp_path, weights, runtime)):
        assert until(lambda: not files(tmp_path / "inbox"))
    assert (tmp_path / "processed" / "a.png").read_text() == "older"
    assert rows(tmp_path)[0][2] == str(tmp_path / "processed" / "a-1.png")


def test_kept_files_make_one_row_across_rescans_and_restarts(tmp_path, weights, runtime):
    drop(tmp_path, "a.png", png(1))
    for _ in range(2):
        with working(built(tmp_path, weights, runtime, filing={"processed": "keep"})):
            assert until(lambda: rows(tmp_path))
            time.sleep(1.8)
    assert [row[0] for row in rows(tmp_path)] == ["classified"]
    assert files(tmp_path / "inbox") == ["a.png"]


def test_deleting_is_done_only_when_asked_and_after_the_commit(tmp_path, weights, runtime):
    drop(tmp_path, "a.png", png(1))
    with working(built(tmp_path, weights, runtime, filing={"processed": "delete"})):
        assert until(lambda: not files(tmp_path / "inbox"))
    assert rows(tmp_path) == [("classified", None, None)]


def test_a_file_put_back_from_quarantine_is_tried_again(tmp_path, weights, runtime):
    drop(tmp_path, "a.txt", b"text")
    with working(built(tmp_path, weights, runtime)):
        assert until(lambda: files(tmp_path / "quarantine") == ["a.txt", "a.txt.json"])
        assert until(lambda: rows(tmp_path, "SELECT filed FROM file") == [(1,)])
        (tmp_path / "quarantine" / "a.txt").rename(tmp_path / "inbox" / "a.txt")
        assert until(lambda: len(rows(tmp_path)) == 2 and not files(tmp_path / "inbox"))
    # The sidecar that was left there is somebody's file now: it is not overwritten.
    assert files(tmp_path / "quarantine") == ["a-1.txt", "a-1.txt.json", "a.txt.json"]
    assert '"attempts": 2' in (tmp_path / "quarantine" / "a-1.txt.json").read_text()


class PutsBack:
    """A filing beside which somebody puts the first file back in the moment it is in quarantine."""

    def __init__(self, filing):
        self._filing = filing
        self._done = False

    def __getattr__(self, name):
        return getattr(self._filing, name)

    def file(self, recorded):
        target = self._filing.file(recorded)
        if not self._done:
            target.rename(recorded.source.path)
        self._done = True
        return target


def test_a_file_put_back_in_the_moment_it_was_filed_is_tried_again(tmp_path, weights, runtime):
    drop(tmp_path, "a.txt", b"text")
    daemon = built(tmp_path, weights, runtime)
    daemon._filing = PutsBack(daemon._filing)
    with working(daemon):
        assert until(lambda: len(rows(tmp_path)) == 2 and not files(tmp_path / "inbox"))


def test_a_file_that_keeps_growing_is_stalled_and_then_classified(tmp_path, weights, runtime):
    content = png(1, 300, 300)
    daemon = built(tmp_path, weights, runtime, inbox={"give_up_seconds": 1.0})
    with working(daemon):
        path = drop(tmp_path, "slow.png", content[:100])
        with path.open("ab") as writer:
            for position in range(100, len(content), len(content) // 10):
                writer.write(content[position : position + len(content) // 10])
                writer.flush()
                if until(lambda: rows(tmp_path) == [("stalled", None, None)], 0.2):
                    break
            else:
                pytest.fail(f"never stalled: {rows(tmp_path)}")
            writer.write(content[path.stat().st_size :])
        assert until(lambda: files(tmp_path / "processed") == ["slow.png"])
    assert [row[0] for row in rows(tmp_path)] == ["classified"]


def test_a_stalled_file_is_visible_also_where_the_database_was_away_just_then(tmp_path, weights, runtime, monkeypatch):
    told = []
    recorded = Store.record_stalled

    def away_at_first(store, source, stalled):
        told.append(source)
        if len(told) == 1:
            raise DatabaseUnavailable("locked")
        recorded(store, source, stalled)

    monkeypatch.setattr(Store, "record_stalled", away_at_first)
    daemon = built(tmp_path, weights, runtime, inbox={"give_up_seconds": 0.5})
    with working(daemon), drop(tmp_path, "slow.png", b"").open("ab") as writer:

        def grows():
            writer.write(b"x")
            writer.flush()
            return rows(tmp_path) == [("stalled", None, None)]

        assert until(grows)
        (tmp_path / "inbox/slow.png").unlink()  # its sender gives up
        assert until(lambda: rows(tmp_path) == [])


def test_an_inbox_that_goes_away_pauses_and_resumes(tmp_path, weights, runtime):
    daemon = built(tmp_path, weights, runtime)
    with working(daemon):
        (tmp_path / "inbox").rename(tmp_path / "gone")
        assert until(lambda: (daemon.status.paused or "").startswith("storage_unavailable"))
        (tmp_path / "gone").rename(tmp_path / "inbox")
        drop(tmp_path, "a.png", png(1))
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])


def test_an_emptied_folder_stays_a_while_for_what_its_sender_has_yet(tmp_path, weights, runtime):
    drop(tmp_path, "study/a.png", png(1))
    with working(built(tmp_path, weights, runtime, linger_seconds=60.0)):
        assert until(lambda: files(tmp_path / "processed") == ["study/a.png"])
        time.sleep(0.5)
        (tmp_path / "inbox" / "study" / "b.png").write_bytes(png(2))
        assert until(lambda: files(tmp_path / "processed") == ["study/a.png", "study/b.png"])


def test_a_database_that_is_removed_pauses_intake_instead_of_swallowing_results(tmp_path, weights, runtime):
    daemon = built(tmp_path, weights, runtime)
    with working(daemon):
        for path in tmp_path.glob("fracture_watch.db*"):
            path.unlink()
        drop(tmp_path, "a.png", png(1))
        assert until(lambda: "was removed" in (daemon.status.paused or ""))
        assert files(tmp_path / "inbox") == ["a.png"]
        assert not (tmp_path / "processed").exists() or files(tmp_path / "processed") == []


def test_a_date_beyond_what_a_database_holds_costs_nothing(tmp_path, weights, runtime):
    path = drop(tmp_path, "a.png", png(1))
    os.utime(path, ns=(2**63 + 10, 2**63 + 10))
    with working(built(tmp_path, weights, runtime)):
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
    assert [row[0] for row in rows(tmp_path)] == ["classified"]


def test_a_file_that_cannot_be_moved_holds_nobody_up(tmp_path, weights, runtime):
    stuck = drop(tmp_path, f"{'d' * 200}/{'e' * 200}/a.png", png(1))
    blocker = tmp_path / "processed" / ("d" * 200)
    daemon = built(tmp_path, weights, runtime)

    class OneStuck:
        """The real filing, over a file that the system lets nobody move."""

        def __init__(self, filing):
            self._filing = filing

        def __getattr__(self, name):
            return getattr(self._filing, name)

        def file(self, recorded):
            return recorded.source.path if recorded.source.path == stuck else self._filing.file(recorded)

    daemon._filing = OneStuck(daemon._filing)
    with working(daemon):
        assert until(lambda: rows(tmp_path))
        drop(tmp_path, "b.png", png(2))
        assert until(lambda: files(tmp_path / "processed") == ["b.png"])
        time.sleep(1.5)
        assert daemon.status.paused is None
    assert [row[0] for row in rows(tmp_path)] == ["classified", "classified"]
    assert rows(tmp_path)[0][2] == str(stuck)
    assert not blocker.exists()


def test_a_name_that_is_no_utf_8_is_found_again_after_a_crash(tmp_path, weights, runtime):
    first = built(tmp_path, weights, runtime)
    (tmp_path / "inbox").mkdir(exist_ok=True)
    (tmp_path / "inbox" / os.fsdecode(b"caf\xe9.png")).write_bytes(png(1))
    first._filing = Dying(first._filing)
    with pytest.raises(Crashed):
        first.run(threading.Event())
    with working(built(tmp_path, weights, runtime)):
        assert until(lambda: not files(tmp_path / "inbox"))
        time.sleep(1.2)
    assert [row[0] for row in rows(tmp_path)] == ["classified"]


def test_a_file_that_is_opened_long_before_it_is_written_is_waited_for(tmp_path, weights, runtime):
    with working(built(tmp_path, weights, runtime, inbox={"give_up_seconds": 30.0})):
        path = drop(tmp_path, "a.png", b"")
        with path.open("wb") as writer:
            time.sleep(1.2)  # four times the settling time
            writer.write(png(1)[:6])
            writer.flush()
            time.sleep(1.2)
            writer.write(png(1)[6:])
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
    assert [row[0] for row in rows(tmp_path)] == ["classified"]


class Held:
    """The real decoder, over a file that somebody else holds for so many attempts."""

    def __init__(self, decoder, path, attempts):
        self._decoder = decoder
        self._path = path
        self._left = attempts

    def submit(self, source):
        if source.path == self._path and self._left:
            self._left -= 1
            return self
        return self._decoder.submit(source)

    def result(self):
        raise Unreadable("a.png cannot be read: Permission denied")


def holding(runtime, path, attempts):
    pipeline = runtime.pipeline
    held = Pipeline(Held(pipeline._decoder, path, attempts), runtime.classifier)
    return replace(runtime, pipeline=held)


def test_a_file_that_cannot_be_read_is_tried_again_until_it_can(tmp_path, weights, runtime):
    path = drop(tmp_path, "a.png", png(1))
    daemon = built(tmp_path, weights, holding(runtime, path, 2))
    daemon._pace = replace(daemon._pace, patience=(0.2, 0.2, 60.0))
    drop(tmp_path, "b.png", png(2))
    with working(daemon):
        assert until(lambda: files(tmp_path / "processed") == ["a.png", "b.png"])
    assert [row[0] for row in rows(tmp_path)] == ["classified", "classified"]
    told = [detail for (detail,) in rows(tmp_path, "SELECT detail FROM event WHERE what = 'postponed' ORDER BY id")]
    assert [detail.rpartition("; ")[2] for detail in told] == [
        "attempt 1, tried again in 0.2 s",
        "attempt 2, tried again in 0.2 s",
    ]


def test_a_file_that_can_never_be_read_fails_after_the_last_attempt(tmp_path, weights, runtime):
    path = drop(tmp_path, "a.png", png(1))
    daemon = built(tmp_path, weights, holding(runtime, path, 99), filing={"processed": "keep"})
    daemon._pace = replace(daemon._pace, patience=(0.2, 0.2))
    drop(tmp_path, "b.png", png(2))
    with working(daemon):
        assert until(lambda: files(tmp_path / "quarantine") == ["a.png", "a.png.json"])
    assert sorted(row[:2] for row in rows(tmp_path)) == [("classified", None), ("failed", "unreadable")]
    assert rows(tmp_path, "SELECT count(*) FROM event WHERE what = 'postponed'") == [(2,)]


def test_intake_pauses_before_a_disk_is_full_and_resumes(tmp_path, weights, runtime):
    free = shutil.disk_usage(tmp_path).free
    daemon = built(tmp_path, weights, runtime, filing={"min_free_mb": (free >> 20) + 10_000})
    drop(tmp_path, "a.png", png(1))
    with working(daemon):
        assert until(lambda: "less than filing.min_free_mb" in (daemon.status.paused or ""))
        assert rows(tmp_path) == []
        daemon._filing = replace(daemon._filing, min_free_bytes=0)
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
        assert daemon.status.paused is None


def test_every_file_is_counted_and_logged_with_the_time_of_its_stages(tmp_path, weights, runtime, caplog):
    caplog.set_level("INFO", "fracture_watch")
    daemon = built(tmp_path, weights, runtime)
    drop(tmp_path, "a.png", png(1))
    with working(daemon):
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
    [facts] = [record.facts for record in caplog.records if hasattr(record, "facts")]
    assert (facts["file"], facts["result"], facts["status"], facts["code"]) == (None, 1, "classified", None)
    assert set(facts["milliseconds"]) == {"decode", "classify", "draw", "record", "file"}
    assert sum(facts["milliseconds"].values()) > 0  # of a picture that is decoded by then, the wait for it is none
    text = runtime.metrics.text().decode()
    assert 'fracture_watch_files_total{code="",status="classified"}' in text
    assert 'fracture_watch_stage_seconds_count{stage="record"}' in text


def test_a_file_that_is_replaced_while_it_is_decoded_is_work_again(tmp_path, weights, runtime):
    path = drop(tmp_path, "a.png", png(1))
    before = runtime.pipeline._decoder

    class Replaced:
        """The real decoder; when it is through with the first bytes, others lie there."""

        def __init__(self):
            self.left = 1

        def submit(self, source):
            self._decoding = before.submit(source)
            return self

        def result(self):
            prepared = self._decoding.result()
            if self.left:
                self.left -= 1
                (tmp_path / "new").write_bytes(png(2))
                (tmp_path / "new").rename(path)
            return prepared

    replaced = Pipeline(Replaced(), runtime.classifier)
    with working(built(tmp_path, weights, replace(runtime, pipeline=replaced))):
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
    digests = [hashlib.sha256(png(number)).hexdigest() for number in (1, 2)]
    recorded = rows(tmp_path, "SELECT sha256, filed_path FROM results ORDER BY id")
    assert recorded == [(digests[0], None), (digests[1], str(tmp_path / "processed/a.png"))]
    assert (tmp_path / "processed/a.png").read_bytes() == png(2)
