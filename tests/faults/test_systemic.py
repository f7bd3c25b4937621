"""Faults that are no file's: intake pauses, says why, changes nothing, and goes on by itself."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.results import sqlite as sqlite_room
from tests.conftest import png, write_config
from tests.test_daemon import built, drop, files, rows, until, working

ROOT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux mounts file systems and changes users"
)
ROOM = {"min_free_mb": 0}


@contextmanager
def small_disk(folder, size="1m"):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        while subprocess.run(["umount", "-l", folder], capture_output=True, check=False).returncode == 0:
            pass


@contextmanager
def nobody():
    """The daemon, which is a thread of this process, loses root's rights for a while."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def fill(folder):
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return ballast


def paused(daemon, code):
    assert until(lambda: (daemon.status.paused or "").startswith(code)), daemon.status
    return daemon.status.paused


def all_well(daemon, folder, names, place="processed"):
    assert until(lambda: files(folder / place) == names), (files(folder / place), daemon.status)
    assert until(lambda: daemon.status.paused is None)
    results = rows(folder, "SELECT status, count(*), count(DISTINCT sha256) FROM results GROUP BY status")
    assert results == [("classified", len(names), len(names))]
    assert until(lambda: files(folder / "inbox") == [])  # to another device it is a copy, and then an unlink


@ROOT
def test_a_full_disk_of_processed_files(tmp_path, weights, runtime):
    with small_disk(tmp_path / "processed") as disk:
        ballast = fill(disk)
        daemon = built(tmp_path, weights, runtime, filing=ROOM)
        drop(tmp_path, "a.png", png(1))
        with working(daemon):
            assert "No space left" in paused(daemon, "storage_unavailable")
            assert files(tmp_path / "inbox") == ["a.png"]
            ballast.unlink()
            all_well(daemon, tmp_path, ["a.png"])
            full = fill(disk)  # once more, while it runs
            drop(tmp_path, "b.png", png(2))
            paused(daemon, "storage_unavailable")
            assert files(tmp_path / "inbox") == ["b.png"]
            full.unlink()
            all_well(daemon, tmp_path, ["a.png", "b.png"])


@ROOT
def test_a_full_disk_of_the_database(tmp_path, weights, runtime):
    with small_disk(tmp_path / "disk", "2m") as disk:
        url = f"sqlite:///{disk / 'fracture_watch.db'}"
        daemon = built(tmp_path, weights, runtime, filing=ROOM, database={"url": url})
        (tmp_path / "fracture_watch.db").symlink_to(disk / "fracture_watch.db")
        with working(daemon):
            ballast = fill(disk)
            for number in range(40):
                drop(tmp_path, f"{number:02}.png", png(number))
            assert "database or disk is full" in paused(daemon, "database_unavailable")
            waiting = files(tmp_path / "inbox")
            assert waiting
            time.sleep(0.5)
            assert files(tmp_path / "inbox") == waiting
            ballast.unlink()
            all_well(daemon, tmp_path, [f"{number:02}.png" for number in range(40)])


@ROOT
def test_a_full_disk_of_heat_maps(tmp_path, weights, runtime):
    with small_disk(tmp_path / "artefacts") as disk:
        ballast = fill(disk)
        daemon = built(tmp_path, weights, runtime, filing=ROOM)
        drop(tmp_path, "a.png", png(1))
        with working(daemon):
            assert "artefacts" in paused(daemon, "storage_unavailable")
            assert rows(tmp_path) == []
            ballast.unlink()
            all_well(daemon, tmp_path, ["a.png"])


@ROOT
def test_a_folder_that_became_read_only(tmp_path, weights, runtime):
    with small_disk(tmp_path / "processed") as disk:
        daemon = built(tmp_path, weights, runtime, filing=ROOM)
        with working(daemon):
            drop(tmp_path, "a.png", png(1))
            all_well(daemon, tmp_path, ["a.png"])
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            drop(tmp_path, "b.png", png(2))
            assert "Read-only" in paused(daemon, "storage_unavailable")
            assert files(tmp_path / "inbox") == ["b.png"]
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            all_well(daemon, tmp_path, ["a.png", "b.png"])


@ROOT
def test_an_inbox_that_is_unmounted_and_mounted_again(tmp_path, weights, runtime):
    inbox = tmp_path / "inbox"
    with small_disk(inbox):
        daemon = built(tmp_path, weights, runtime, filing=ROOM)
        with working(daemon):
            drop(tmp_path, "a.png", png(1))
            all_well(daemon, tmp_path, ["a.png"])
            subprocess.run(["umount", "-l", inbox], check=True)
            inbox.rmdir()  # as with an automounter: nothing is there
            assert str(inbox) in paused(daemon, "storage_unavailable")
            with small_disk(inbox):
                drop(tmp_path, "b.png", png(2))
                all_well(daemon, tmp_path, ["a.png", "b.png"])


@pytest.fixture
def open_way(tmp_path):
    """Other users may pass through to this test's folder."""
    closed = {path: path.stat().st_mode for path in tmp_path.parents if not path.stat().st_mode & 0o001}
    for path, mode in closed.items():
        path.chmod(mode | 0o011)
    yield
    for path, mode in closed.items():
        path.chmod(mode)


@ROOT
@pytest.mark.parametrize("lost", ["inbox", "processed", "."], ids=["inbox", "processed", "database"])
def test_permissions_that_are_lost_and_given_back(tmp_path, weights, runtime, open_way, lost):
    daemon = built(tmp_path, weights, runtime, filing=ROOM)
    with working(daemon):
        drop(tmp_path, "a.png", png(1))
        all_well(daemon, tmp_path, ["a.png"])
        for path in [tmp_path, *tmp_path.rglob("*")]:
            os.chown(path, 65534, 65534)
        os.chown(tmp_path / lost, 0, 0)
        (tmp_path / lost).chmod(0o700)
        drop(tmp_path, "b.png", png(2))
        with nobody():
            assert until(lambda: (daemon.status.paused or "").startswith(("storage", "database"))), daemon.status
        assert files(tmp_path / "inbox") == ["b.png"]
        os.chown(tmp_path / lost, 65534, 65534)
        with nobody():
            assert until(lambda: daemon.status.paused is None), daemon.status
        all_well(daemon, tmp_path, ["a.png", "b.png"])


def test_a_database_that_another_program_keeps_locked(tmp_path, weights, runtime, monkeypatch):
    monkeypatch.setattr(sqlite_room, "_BUSY_MILLISECONDS", 300)
    daemon = built(tmp_path, weights, runtime, filing=ROOM)
    with working(daemon), closing(sqlite3.connect(tmp_path / "fracture_watch.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        drop(tmp_path, "a.png", png(1))
        assert "database is locked" in paused(daemon, "database_unavailable")
        time.sleep(1.0)
        assert files(tmp_path / "inbox") == ["a.png"]
        other.execute("COMMIT")
        all_well(daemon, tmp_path, ["a.png"])


def test_a_database_that_is_damaged_while_in_use_is_never_replaced_by_an_empty_one(tmp_path, weights, runtime):
    daemon = built(tmp_path, weights, runtime, filing=ROOM)
    database = tmp_path / "fracture_watch.db"
    with working(daemon):
        drop(tmp_path, "a.png", png(1))
        all_well(daemon, tmp_path, ["a.png"])
    garbage = b"SQLite format 3\0" + os.urandom(database.stat().st_size)
    for path in tmp_path.glob("fracture_watch.db-*"):
        path.unlink()
    database.write_bytes(garbage)
    settings = load_settings(tmp_path / "config.yaml", {})
    with pytest.raises(Exception, match=str(database)) as caught:
        assembly.open_database(settings)
    assert type(caught.value).__module__ == "fracture_watch.errors", caught.value
    assert database.read_bytes()[16:] == garbage[16:]


@pytest.mark.parametrize("what", ["a folder", "a text", "another program's"])
def test_what_is_no_database_of_ours_is_refused_and_left_alone(tmp_path, weights, what):
    database = tmp_path / "fracture_watch.db"
    settings = load_settings(write_config(tmp_path, weights), {})
    if what == "a folder":
        database.mkdir()
    elif what == "a text":
        database.write_text("dear diary, " * 200)
    else:
        with closing(sqlite3.connect(database)) as other:
            other.execute("CREATE TABLE precious (a)")
    before = database.stat().st_size
    with pytest.raises(Exception, match=str(database)) as caught:
        assembly.open_database(settings)
    assert type(caught.value).__module__ == "fracture_watch.errors", caught.value
    assert database.stat().st_size == before
