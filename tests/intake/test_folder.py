import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fracture_watch.errors import StorageUnavailable
from fracture_watch.intake.completeness import Completeness
from fracture_watch.intake.folder import Folder
from fracture_watch.intake.settling import Settled, Settling
from fracture_watch.intake.tree import Tree, scan

events = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel events as Linux has them")
NEVER = 3600.0


def check(path: Path) -> Completeness:
    """The files of these tests are complete when they end with ``!``."""
    return Completeness.COMPLETE if path.read_bytes().endswith(b"!") else Completeness.INCOMPLETE


@pytest.fixture
def inbox(tmp_path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def make(
    tree: Tree, *, settle: float = NEVER, rescan: float = NEVER, polling: str | None = None, batch: int = 10
) -> Folder:
    """By default only what the kernel says makes a file ready: neither time nor rescans do."""
    return Folder(tree, Settling(settle, NEVER, check), rescan, polling, batch)


class Watch:
    """A watch under way, whose ticks are collected."""

    def __init__(self, ticks: Iterator[Settled]) -> None:
        self._ticks = ticks
        self.ready: list[Path] = []

    def tick(self) -> list[Path]:
        found = [source.path for source in next(self._ticks).ready]
        self.ready += found
        return found

    def until(self, done: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"ready by now: {self.ready}"
            self.tick()

    def until_ready(self, *paths: Path) -> None:
        self.until(lambda: set(paths) <= set(self.ready))

    def during(self, seconds: float) -> list[Path]:
        """What becomes ready in that time."""
        begun, end = len(self.ready), time.monotonic() + seconds
        while time.monotonic() < end:
            self.tick()
        return self.ready[begun:]


@contextmanager
def watching(folder: Folder) -> Iterator[Watch]:
    stop = threading.Event()
    ticks = folder.watch(stop)
    watch = Watch(ticks)
    watch.tick()  # from here on, events are seen
    try:
        yield watch
    finally:
        stop.set()
        ticks.close()


# --- Which files count


def names(tree: Tree) -> set[str]:
    return {str(path.relative_to(tree.root)) for path, _ in tree.walk()}


def test_files_in_folders_count(inbox):
    (inbox / "patient/study").mkdir(parents=True)
    for name in ("a.dcm", "patient/b", "patient/study/c.png"):
        (inbox / name).touch()
    assert names(Tree(inbox)) == {"a.dcm", "patient/b", "patient/study/c.png"}


def test_folders_do_not_count_where_that_is_said(inbox):
    (inbox / "patient").mkdir()
    (inbox / "patient/b").touch()
    (inbox / "a.dcm").touch()
    tree = Tree(inbox, recursive=False)
    assert names(tree) == {"a.dcm"}
    assert [tree.counts(inbox / "a.dcm"), tree.counts(inbox / "patient/b")] == [True, False]


@pytest.mark.parametrize(
    "name", [".hidden", "a.dcm.part", "a.tmp", "a.crdownload", "@eaDir/a.dcm", ".git/a", "Thumbs.db"]
)
def test_unfinished_and_foreign_names_are_ignored(inbox, name):
    (inbox / name).parent.mkdir(exist_ok=True)
    (inbox / name).touch()
    tree = Tree(inbox, ignore=("Thumbs.db",))
    assert names(tree) == set()
    assert not tree.counts(inbox / name)


def test_symlinks_are_never_followed(inbox, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (inbox / "file").symlink_to(outside / "secret")
    (inbox / "folder").symlink_to(outside)
    (inbox / "loop").symlink_to(inbox)
    assert names(Tree(inbox)) == set()


def test_fifos_and_sockets_are_no_files(inbox):
    os.mkfifo(inbox / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(inbox / "socket"))
        assert names(Tree(inbox)) == set()


def test_a_missing_root_is_unavailable_storage(tmp_path):
    with pytest.raises(StorageUnavailable) as caught:
        list(Tree(tmp_path / "gone").walk())
    assert caught.value.detail.startswith(
        f"the folder {tmp_path / 'gone'} cannot be listed: No such file or directory; see that it is there"
    )


def test_a_folder_that_goes_away_during_the_walk_is_passed_over(inbox):
    (inbox / "a").touch()
    (inbox / "folder").mkdir()
    walk = Tree(inbox).walk()
    first = next(walk)[0]
    shutil.rmtree(inbox / "folder")
    assert [first, *(path for path, _ in walk)] == [inbox / "a"]


def test_scan_describes_every_file_as_it_stands(inbox):
    (inbox / "a").write_bytes(b"1234")
    facts = (inbox / "a").stat()
    (source,) = scan(Tree(inbox))
    assert (source.path, source.size) == (inbox / "a", 4)
    assert (source.modified_ns, source.inode) == (facts.st_mtime_ns, facts.st_ino)


def test_scan_of_a_file_is_that_file(inbox):
    (inbox / ".a").touch()
    assert [source.path for source in scan(Tree(inbox / ".a"))] == [inbox / ".a"]


# --- Watching


@events
def test_a_file_that_its_writer_closed_is_ready_at_once(inbox):
    with watching(make(Tree(inbox))) as watch:
        (inbox / "a").write_bytes(b"whole!")
        watch.until_ready(inbox / "a")


@events
def test_a_file_that_was_renamed_within_the_inbox_is_ready_at_once(inbox):
    with watching(make(Tree(inbox))) as watch:
        (inbox / "a.part").write_bytes(b"whole!")
        assert watch.during(0.5) == []
        (inbox / "a.part").rename(inbox / "a")
        watch.until_ready(inbox / "a")


@events
def test_a_file_that_was_renamed_into_the_inbox_is_ready_at_once(inbox, tmp_path):
    (tmp_path / "a").write_bytes(b"whole!")
    with watching(make(Tree(inbox))) as watch:
        (tmp_path / "a").rename(inbox / "a")
        watch.until_ready(inbox / "a")


@events
def test_a_slow_copy_is_ready_when_it_is_whole_and_not_before(inbox):
    with watching(make(Tree(inbox))) as watch:
        with (inbox / "a").open("wb", buffering=0) as file:
            for _ in range(4):
                file.write(b"more")
                assert watch.during(0.15) == []
            file.write(b"!")
        watch.until_ready(inbox / "a")


@events
def test_a_folder_that_is_moved_in_whole_is_walked(inbox, tmp_path):
    (tmp_path / "study/series").mkdir(parents=True)
    paths = [Path("study/a"), Path("study/series/b")]
    for path in paths:
        (tmp_path / path).write_bytes(b"whole!")
    with watching(make(Tree(inbox), settle=0.3)) as watch:
        (tmp_path / "study").rename(inbox / "study")
        watch.until_ready(*(inbox / path for path in paths))


@events
def test_a_folder_that_is_made_and_filled_is_seen(inbox):
    with watching(make(Tree(inbox), settle=0.3)) as watch:
        (inbox / "new/deep").mkdir(parents=True)
        (inbox / "new/deep/a").write_bytes(b"whole!")
        watch.until_ready(inbox / "new/deep/a")


def test_files_that_were_there_before_are_found_and_must_settle(inbox):
    (inbox / "a").write_bytes(b"whole!")
    with watching(make(Tree(inbox), settle=0.5)) as watch:
        assert watch.ready == []
        watch.until_ready(inbox / "a")


def test_every_file_is_handed_out_in_batches(inbox):
    paths = {inbox / f"{number}" for number in range(25)}
    for path in paths:
        path.write_bytes(b"whole!")
    with watching(make(Tree(inbox), settle=0, batch=10)) as watch:
        sizes = [len(watch.ready), *(len(watch.tick()) for _ in range(3))]
    assert (sizes, set(watch.ready)) == ([10, 10, 5, 0], paths)


def test_a_rescan_finds_what_no_event_told(inbox):
    folder = make(Tree(inbox), settle=0.3, rescan=0.5, polling="it is a test")
    with watching(folder) as watch:
        (inbox / "a").write_bytes(b"whole!")
        watch.until_ready(inbox / "a")
    assert folder.mode == "polling: it is a test"


def test_without_events_or_rescan_nothing_is_found(inbox):
    with watching(make(Tree(inbox), settle=0, polling="it is a test")) as watch:
        (inbox / "a").write_bytes(b"whole!")
        assert watch.during(0.5) == []


@events
def test_ignored_names_symlinks_and_fifos_are_left_alone(inbox, tmp_path):
    (tmp_path / "target").write_bytes(b"whole!")
    with watching(make(Tree(inbox), settle=0, rescan=0.2)) as watch:
        os.mkfifo(inbox / "fifo")  # opening it would wait for a writer for ever
        (inbox / "link").symlink_to(tmp_path / "target")
        (inbox / ".hidden").write_bytes(b"whole!")
        (inbox / "a.tmp").write_bytes(b"whole!")
        assert watch.during(0.8) == []


@events
def test_an_event_about_a_fifo_is_passed_over(inbox):
    os.mkfifo(inbox / "fifo")
    with watching(make(Tree(inbox), settle=0)) as watch:
        writer = subprocess.Popen(["sh", "-c", f"printf whole! > '{inbox}/fifo'"])
        with (inbox / "fifo").open("rb") as reader:
            assert reader.read() == b"whole!"
        writer.wait()
        assert watch.during(0.5) == []


@events
def test_events_below_an_inbox_that_is_not_recursive_are_passed_over(inbox):
    (inbox / "folder").mkdir()
    with watching(make(Tree(inbox, recursive=False), settle=0)) as watch:
        (inbox / "folder/a").write_bytes(b"whole!")
        (inbox / "b").write_bytes(b"whole!")
        watch.until_ready(inbox / "b")
        assert watch.ready == [inbox / "b"]


@events
def test_that_a_file_is_read_is_no_news(inbox):
    with watching(make(Tree(inbox), settle=0)) as watch:
        (inbox / "a").write_bytes(b"whole!")
        watch.until_ready(inbox / "a")
        watch.during(0.5)
        assert (inbox / "a").read_bytes() == b"whole!"
        assert watch.during(0.5) == []


@events
def test_a_file_that_was_moved_out_is_forgotten(inbox, tmp_path):
    folder = make(Tree(inbox))
    with watching(folder) as watch:
        (inbox / "a").write_bytes(b"half")
        watch.until(lambda: folder.waiting == 1)
        (inbox / "a").rename(tmp_path / "a")
        watch.until(lambda: folder.waiting == 0)


def test_a_kept_file_is_passed_over_until_it_changes(inbox):
    (inbox / "a").write_bytes(b"whole!")
    folder = make(Tree(inbox), settle=0, rescan=0.1)
    folder.keep(next(scan(Tree(inbox))))
    with watching(folder) as watch:
        assert watch.during(0.6) == []
        (inbox / "a").write_bytes(b"other!!")
        watch.until_ready(inbox / "a")


def test_watching_ends_when_it_is_told_to(inbox):
    stop = threading.Event()
    ticks = make(Tree(inbox)).watch(stop)
    next(ticks)
    stop.set()
    assert list(ticks) == []


def test_watching_a_missing_inbox_is_unavailable_storage_and_can_be_tried_again(inbox):
    folder = make(Tree(inbox / "later"), settle=0)
    with pytest.raises(StorageUnavailable):
        next(folder.watch(threading.Event()))
    (inbox / "later").mkdir()
    (inbox / "later/a").write_bytes(b"whole!")
    with watching(folder) as watch:
        watch.until_ready(inbox / "later/a")


def test_more_hints_than_are_held_lead_to_a_look_at_the_listing(inbox):
    (inbox / "a").write_bytes(b"whole!")
    folder = make(Tree(inbox), settle=0, polling="it is a test")
    with watching(folder) as watch:
        watch.until_ready(inbox / "a")
        for _ in range(20_000):
            folder._hints.put(inbox / "gone", closed=False)
        (inbox / "b").write_bytes(b"whole!")
        watch.until_ready(inbox / "b")


@pytest.mark.parametrize("failing", ["inbox", "inbox/there"])
def test_a_share_that_fails_in_the_middle_of_a_listing(inbox, monkeypatch, caplog, failing):
    (inbox / "there").mkdir()
    (inbox / "a").write_bytes(b"whole!")
    scandir = os.scandir

    @contextmanager
    def stale(folder):
        def entries():
            if Path(folder) == inbox.parent / failing:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            with scandir(folder) as found:
                yield from found

        yield entries()

    monkeypatch.setattr(os, "scandir", stale)
    if failing == "inbox":
        with pytest.raises(StorageUnavailable, match="cannot be listed: Stale"):
            list(Tree(inbox).walk())
    else:
        assert [path for path, _ in Tree(inbox).walk()] == [inbox / "a"]
        assert "cannot be listed: Stale" in caplog.text


@contextmanager
def kernel_setting(name: str, value: int) -> Iterator[None]:
    """Change a limit of the kernel's for a while; only root may."""
    path = Path("/proc/sys/fs/inotify", name)
    old = path.read_text()
    try:
        path.write_text(str(value))
    except OSError as error:
        pytest.skip(f"{path} cannot be changed: {error.strerror}; this test wants root")
    try:
        yield
    finally:
        path.write_text(old)


@events
def test_events_that_the_kernel_dropped_are_made_up_for_by_the_listing(inbox, caplog):
    numbers = range(3000)
    with kernel_setting("max_queued_events", 16), watching(make(Tree(inbox), settle=0.3, batch=100)) as watch:
        flood = f"for n in $(seq {len(numbers)}); do printf whole! > '{inbox}/'$n; done"
        subprocess.run(["sh", "-c", flood], check=True)
        watch.until(lambda: len(watch.ready) >= len(numbers), 30)
    assert "queue overflowed" in caplog.text
    assert sorted(watch.ready) == sorted(inbox / f"{n + 1}" for n in numbers)


@events
def test_without_watches_for_a_folder_the_inbox_is_polled_and_says_so(inbox, caplog):
    (inbox / "there").mkdir()
    used = sum(line.startswith("inotify") for fdinfo in Path("/proc/self/fdinfo").iterdir() for line in _lines(fdinfo))
    # One watch is left for the inbox, none for its folder: the next listing is what finds the file.
    with kernel_setting("max_user_watches", used + 1):
        folder = make(Tree(inbox), settle=0.3)
        with watching(folder) as watch:
            assert "No space left" not in folder.mode
            assert folder.mode.startswith("polling: ")
            assert "max_user_watches" in folder.mode
            assert str(inbox) not in folder.mode  # which /readyz says to everybody
            (inbox / "there/a").write_bytes(b"whole!")
            watch.until_ready(inbox / "there/a")
    assert "polled instead" in caplog.text


@events
def test_without_any_watch_the_inbox_is_polled_and_says_so(inbox):
    with kernel_setting("max_user_instances", 0):
        folder = make(Tree(inbox), settle=0.3)
        with watching(folder) as watch:
            assert folder.mode.startswith("polling: ")
            (inbox / "a").write_bytes(b"whole!")
            watch.until_ready(inbox / "a")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def test_a_listing_is_read_to_its_end_before_the_next_begins(inbox):
    """Where files stay, a listing that is begun anew before it was through would never reach the last ones."""
    paths = {inbox / f"{number}" for number in range(50)}
    for path in paths:
        path.write_bytes(b"whole!")
    folder = make(Tree(inbox), settle=0, rescan=0.0, batch=1)

    def keep_what_is_ready() -> bool:
        for path in watch.ready:
            folder.keep(next(scan(Tree(path))))
        return set(watch.ready) == paths

    with watching(folder) as watch:
        watch.until(keep_what_is_ready)
        assert watch.during(0.5) == []
    assert len(watch.ready) == len(paths)


def test_files_that_are_not_whole_hold_up_no_others(inbox, monkeypatch):
    monkeypatch.setattr("fracture_watch.intake.folder._MOST_WAITING", 20)
    for number in range(30):
        (inbox / f"{number:02}").write_bytes(b"half")
    with watching(make(Tree(inbox), settle=0, rescan=0.1)) as watch:
        watch.until(lambda: watch.during(0.3) == [])
        (inbox / "zz").write_bytes(b"whole!")
        watch.until_ready(inbox / "zz")


def test_a_file_in_hand_is_not_handed_out_again(inbox):
    (inbox / "a").write_bytes(b"1!")
    folder = make(Tree(inbox), settle=0, rescan=0.1)
    with closing(folder.watch(threading.Event())) as ticks:
        [source] = next(settled.ready for settled in ticks if settled.ready)
        again = [next(ticks).ready for _ in range(10)]  # ten ticks hold several rescans
        assert again == [()] * 10
        (inbox / "a").write_bytes(b"other!")
        [changed] = next(settled.ready for settled in ticks if settled.ready)
        assert changed.size == 6
        folder.forget(source)  # of the first; the second is still in hand
        assert [next(ticks).ready for _ in range(10)] == [()] * 10
        folder.forget(changed)
        assert next(settled.ready for settled in ticks if settled.ready)


def test_kept_files_that_are_gone_are_forgotten(inbox):
    (inbox / "a").write_bytes(b"whole!")
    folder = make(Tree(inbox), settle=0, rescan=0.1)
    folder.keep(next(scan(Tree(inbox))))
    with watching(folder) as watch:
        watch.during(0.3)
        assert set(folder._kept) == {inbox / "a"}
        (inbox / "a").unlink()
        watch.until(lambda: not folder._kept)
