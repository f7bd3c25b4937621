import os
from pathlib import Path

import pytest

from fracture_watch.intake.completeness import Completeness
from fracture_watch.intake.settling import Settled, Settling

COMPLETE, INCOMPLETE, UNKNOWN = Completeness.COMPLETE, Completeness.INCOMPLETE, Completeness.UNKNOWN


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


class Bench:
    """Files that are complete when they end with ``!``, say nothing with ``?``, and settle in 2 of 10 seconds."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.checks: list[Path] = []
        self.settling = Settling(2.0, 10.0, self.check, self.clock)
        self.path = folder / "a.dcm"

    def check(self, path: Path) -> Completeness:
        self.checks.append(path)
        return {"!": COMPLETE, "?": UNKNOWN}.get(path.read_text()[-1:], INCOMPLETE)

    def write(self, content: str, closed: bool = False) -> None:
        """Write and sight: every writing has its own mtime, however coarse the clock of the file system is."""
        self.path.write_text(content)
        self.clock.wait(0.001)
        self.touch(int(self.clock.seconds * 1e9))
        self.settling.sight(self.path, self.path.lstat(), closed)

    def touch(self, modified_ns: int) -> None:
        os.utime(self.path, ns=(modified_ns, modified_ns))

    def ready_after(self, seconds: float) -> list[Path]:
        return [source.path for source in self.settled_after(seconds).ready]

    def settled_after(self, seconds: float) -> Settled:
        self.clock.wait(seconds)
        return self.settling.settle(100)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def test_a_complete_file_is_ready_once_it_is_quiet(bench):
    bench.write("whole!")
    assert bench.ready_after(1.9) == []
    assert bench.ready_after(0.1) == [bench.path]


def test_a_closed_and_complete_file_is_ready_at_once(bench):
    bench.write("whole!", closed=True)
    assert bench.ready_after(0) == [bench.path]


def test_a_closed_but_incomplete_file_waits(bench):
    bench.write("half", closed=True)
    assert bench.ready_after(9.9) == []


def test_a_closed_file_that_says_nothing_of_its_end_waits_until_it_is_quiet(bench):
    bench.write("tiff?", closed=True)
    assert bench.ready_after(1.9) == []
    assert bench.ready_after(0.1) == [bench.path]


def test_a_quiet_but_incomplete_file_waits_for_its_rest(bench):
    bench.write("half")
    assert bench.ready_after(5) == []
    bench.write("half and half!")
    assert bench.ready_after(1.9) == []
    assert bench.ready_after(0.1) == [bench.path]


def test_a_quiet_but_incomplete_file_is_handed_out_in_the_end(bench):
    bench.write("half")
    assert bench.ready_after(9.9) == []
    assert bench.ready_after(0.1) == [bench.path]


def test_a_growing_file_counts_as_stalled_once_and_is_still_watched(bench):
    for second in range(9):
        bench.write("x" * second)
        bench.settled_after(1)
    bench.write("more")
    settled = bench.settled_after(1)
    assert (settled.ready, [source.path for source in settled.stalled]) == ((), [bench.path])
    bench.write("more and more")
    assert bench.settled_after(1) == Settled()
    bench.write("whole!")
    assert bench.ready_after(2) == [bench.path]


@pytest.mark.parametrize("change", ["size", "mtime", "inode"])
def test_any_change_begins_the_quiet_period_anew(bench, change):
    bench.write("whole!")
    assert bench.ready_after(1.5) == []
    facts = bench.path.lstat()
    if change == "size":
        bench.path.write_text("longer whole!")
    if change == "inode":
        other = bench.path.with_name("other")
        other.write_text("whole!")
        other.replace(bench.path)
    bench.touch(facts.st_mtime_ns + (1 if change == "mtime" else 0))
    assert bench.ready_after(1.5) == []
    assert bench.ready_after(2) == [bench.path]


def test_a_writer_that_opens_the_file_again_takes_back_that_it_was_closed(bench):
    bench.write("half", closed=True)
    assert bench.ready_after(0) == []
    bench.write("whole!")
    assert bench.ready_after(1) == []
    assert bench.ready_after(1) == [bench.path]


def test_age_is_never_counted_from_the_modification_time(bench):
    bench.write("whole!")
    bench.touch(0)  # 1970, as a copy that keeps times has it
    bench.settling.settle(1)
    assert bench.ready_after(1.9) == []


def test_completeness_is_asked_once_for_the_same_bytes(bench):
    bench.write("half")
    for _ in range(5):
        bench.ready_after(2)
    assert len(bench.checks) == 1


def test_a_file_that_is_not_quiet_is_not_opened(bench):
    bench.write("whole!")
    bench.ready_after(1)
    assert bench.checks == []


def test_a_file_that_went_away_is_forgotten(bench):
    bench.write("whole!")
    bench.path.unlink()
    assert bench.ready_after(5) == []
    assert len(bench.settling) == 0


def test_a_file_is_handed_out_once(bench):
    bench.write("whole!")
    assert bench.ready_after(2) == [bench.path]
    assert bench.ready_after(2) == []


def test_a_ready_file_is_described_as_it_stands(bench):
    bench.write("whole!")
    facts = bench.path.lstat()
    source = bench.settled_after(2).ready[0]
    assert (source.size, source.modified_ns, source.inode) == (6, facts.st_mtime_ns, facts.st_ino)


def test_no_more_files_are_handed_out_than_asked_for(bench, tmp_path):
    for name in "abc":
        path = tmp_path / name
        path.write_text("whole!")
        bench.settling.sight(path, path.lstat())
    bench.clock.wait(2)
    assert [source.path.name for source in bench.settling.settle(2).ready] == ["a", "b"]
    assert [source.path.name for source in bench.settling.settle(2).ready] == ["c"]


def test_a_file_that_cannot_be_checked_is_handed_out_once_quiet(tmp_path):
    def forbidden(path: Path) -> Completeness:
        raise PermissionError(13, "Permission denied")

    clock = Clock()
    settling = Settling(2.0, 10.0, forbidden, clock)
    path = tmp_path / "a"
    path.write_text("x")
    settling.sight(path, path.lstat(), closed=True)
    assert settling.settle(1).ready == ()
    clock.wait(2)
    assert [source.path for source in settling.settle(1).ready] == [path]


def test_waiting_files_can_be_counted_and_named(bench):
    bench.write("half")
    assert (len(bench.settling), list(bench.settling)) == (1, [bench.path])


@pytest.mark.parametrize("other", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")], ids=["pipe", "link"])
def test_what_takes_a_waiting_files_name_and_is_no_file_is_left_alone(bench, other):
    bench.write("half")
    bench.path.unlink()
    other(bench.path)
    assert bench.settled_after(60.0) == Settled((), ())
    assert list(bench.settling) == []
