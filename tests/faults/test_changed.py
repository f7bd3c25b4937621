"""Files that change after they were handed out: the result is of the bytes that were decoded, and nothing is lost."""

import hashlib
import os
from dataclasses import replace

import pytest

from fracture_watch.pipeline import Pipeline
from tests.conftest import png
from tests.faults.conftest import House
from tests.test_daemon import drop, files, until


class Meddler:
    """The real decoder; once, before or after it reads a file, somebody else is at that file."""

    def __init__(self, decoder, meddle, when):
        self._decoder, self._meddle, self._when = decoder, meddle, when

    def _act(self, when):
        if when == self._when:
            self._when = None
            self._meddle()

    def submit(self, source):
        self._act("before")
        decoding = self._decoder.submit(source)
        meddler = self

        class Decoding:
            def result(self):
                try:
                    return decoding.result()
                finally:
                    meddler._act("after")

        return Decoding()


@pytest.fixture
def meddled(tmp_path, weights, runtime):
    def _meddled(meddle, when, **sections):
        decoder = Meddler(runtime.pipeline._decoder, meddle, when)
        pipeline = Pipeline(decoder, runtime.classifier)
        return House(tmp_path, weights, replace(runtime, pipeline=pipeline), **sections)

    return _meddled


def results(daemon):
    return daemon.rows("SELECT status, sha256, filed_path FROM results ORDER BY id")


def digest(number):
    return hashlib.sha256(png(number)).hexdigest()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_whose_time_is_set_after_it_was_closed_is_one_result(tmp_path, meddled, when):
    """As unzip, rsync --inplace and many senders do: write, close, then set the original's time."""
    path = drop(tmp_path, "1.png", png(1))
    daemon = meddled(lambda: os.utime(path, (1e9, 1e9)), when)
    with daemon.working():
        daemon.all_done(1)
    assert (tmp_path / "processed/1.png").stat().st_mtime == 1e9


def test_a_file_that_is_written_anew_when_it_is_read_does_not_fail(tmp_path, meddled):
    """What the decoder met was half of the new content."""
    path = drop(tmp_path, "1.png", png(1))
    daemon = meddled(lambda: path.write_bytes(png(2)[:1000]), "before")
    with daemon.working():
        assert until(lambda: path.read_bytes() == png(2)[:1000])
        assert not until(lambda: daemon.rows("SELECT id FROM results"), 1.0)
        path.write_bytes(png(2))
        assert until(lambda: files(tmp_path / "processed") == ["1.png"])
    assert results(daemon) == [("classified", digest(2), str(tmp_path / "processed/1.png"))]
    assert files(tmp_path / "quarantine") == []


@pytest.mark.parametrize("processed", ["move", "delete"])
@pytest.mark.parametrize("size", ["same", "other"])
def test_a_file_that_is_replaced_after_it_was_read_is_another_one(tmp_path, meddled, processed, size):
    path = drop(tmp_path, "1.png", png(1))
    new = png(2) if size == "other" else png(2) + bytes(max(0, len(png(1)) - len(png(2))))
    old = png(1) + bytes(max(0, len(png(2)) - len(png(1)))) if size == "same" else png(1)
    path.write_bytes(old)
    daemon = meddled(lambda: path.write_bytes(new), "after", filing={"processed": processed})
    with daemon.working():
        assert until(lambda: len(results(daemon)) == 2 and not files(tmp_path / "inbox"))
    filed = [None, str(tmp_path / "processed/1.png") if processed == "move" else None]
    digests = [hashlib.sha256(content).hexdigest() for content in (old, new)]
    assert results(daemon) == [("classified", digests[0], filed[0]), ("classified", digests[1], filed[1])]
    if processed == "move":
        assert (tmp_path / "processed/1.png").read_bytes() == new


def test_a_file_that_grows_after_it_was_read_is_another_one(tmp_path, meddled):
    path = drop(tmp_path, "1.png", png(1))

    def grow():
        with path.open("ab") as file:
            file.write(b"appended")

    daemon = meddled(grow, "after")
    with daemon.working():
        assert until(lambda: files(tmp_path / "processed") == ["1.png"])
    whole = hashlib.sha256(png(1) + b"appended").hexdigest()
    assert results(daemon) == [
        ("classified", digest(1), None),
        ("classified", whole, str(tmp_path / "processed/1.png")),
    ]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_is_taken_away_after_it_was_handed_out(tmp_path, meddled, when):
    path = drop(tmp_path, "1.png", png(1))
    daemon = meddled(path.unlink, when)
    with daemon.working():
        assert until(lambda: not path.exists())
        drop(tmp_path, "2.png", png(2))
        assert until(lambda: files(tmp_path / "processed") == ["2.png"])
    expected = [("classified", digest(2), str(tmp_path / "processed/2.png"))]
    assert results(daemon) == ([("classified", digest(1), None)] if when == "after" else []) + expected


def test_a_sound_file_that_is_replaced_by_no_image_and_back(tmp_path, meddled):
    path = drop(tmp_path, "1.png", png(1))
    daemon = meddled(lambda: path.write_bytes(bytes(len(png(1)))), "before")
    with daemon.working():
        assert until(lambda: path.read_bytes() == bytes(len(png(1))))
        assert not until(lambda: daemon.rows("SELECT id FROM results"), 0.2)
        path.write_bytes(png(1))
        daemon.all_done(1)
