"""A database that goes away, is damaged or is replaced while the daemon works, and comes back."""

import os
import shutil
import sqlite3
import threading
from contextlib import closing, contextmanager

import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.errors import DatabaseUnavailable
from fracture_watch.results import sqlite as sqlite_room
from tests.conftest import png
from tests.test_daemon import drop, files, until


def path_of(daemon):
    return daemon.folder / "fracture_watch.db"


def copy_of(daemon):
    """A backup as people make it, with SQLite's own means."""
    copy = daemon.folder / "backup.db"
    with closing(sqlite3.connect(path_of(daemon))) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def in_one_file(database):
    """As after a quiet hour: nothing is left in the write-ahead log."""
    with closing(sqlite3.connect(database)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def damage(path):
    """Its beginning and its schema stand; what is in its tables and indexes is rubbish."""
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def test_a_database_that_is_moved_away_and_put_back(house):
    daemon = house()
    database = path_of(daemon)
    with daemon.working():
        daemon.drop(1)
        daemon.all_done(1)
        database.rename(daemon.folder / "away.db")
        daemon.drop(2)
        assert "put it back" in daemon.paused("database_unavailable", str(database), "was removed")
        reader = threading.Thread(target=daemon._client.get, args=("/",))  # a thread of its own: a new connection
        reader.start()
        reader.join()
        assert not database.exists(), "an empty one was made in its place"
        assert files(daemon.inbox) == ["2.png"]
        (daemon.folder / "away.db").rename(database)
        daemon.all_done(1, 2)


def test_a_deleted_database_that_is_restored_from_a_backup(house, caplog):
    daemon = house()
    database = path_of(daemon)
    with daemon.working():
        daemon.drop(1)
        daemon.all_done(1)
        backup = copy_of(daemon)
        for path in daemon.folder.glob("fracture_watch.db*"):
            path.unlink()
        daemon.drop(2)
        daemon.paused("database_unavailable", str(database), "was removed")
        shutil.copy(backup, daemon.folder / "new.db")
        (daemon.folder / "new.db").rename(database)
        daemon.all_done(1, 2)
    assert f"{database} was replaced" in caplog.text
    assert daemon.rows("PRAGMA integrity_check") == [("ok",)]


def test_a_backup_beside_the_log_of_the_one_before_is_not_mixed_with_it(house):
    daemon = house()
    database, log = path_of(daemon), daemon.folder / "fracture_watch.db-wal"
    with daemon.working():
        daemon.drop(1)
        daemon.all_done(1)
        backup = copy_of(daemon)
        before = backup.read_bytes()
        daemon.drop(2)
        daemon.all_done(1, 2)
        assert log.stat().st_size
        backup.replace(database)
        daemon.drop(3)
        assert f"remove {log.name}" in daemon.paused("database_unavailable", str(database))
        assert daemon._client.get("/").status_code == 503
        assert database.read_bytes() == before
        log.unlink()
        (daemon.folder / "fracture_watch.db-shm").unlink(missing_ok=True)
        assert until(lambda: files(daemon.processed) == ["1.png", "2.png", "3.png"])
        daemon.until_ready()
    assert daemon.rows("PRAGMA integrity_check") == [("ok",)]
    assert [name for (name,) in daemon.rows("SELECT source_path FROM results ORDER BY id")] == [
        str(daemon.inbox / "1.png"),
        str(daemon.inbox / "3.png"),
    ]


@pytest.mark.parametrize(
    ("what", "with_its_log"),
    [
        ("a folder", False),
        ("an empty file", False),
        ("a text", True),
        ("another program's", False),
        ("another program's", True),
    ],
)
def test_what_takes_the_place_of_the_database_is_never_written(house, what, with_its_log):
    daemon = house()
    database = path_of(daemon)
    with daemon.working():
        daemon.drop(1)
        daemon.all_done(1)
        new = daemon.folder / "new"
        if what == "a folder":
            new.mkdir()
        elif what == "another program's":
            with closing(sqlite3.connect(new)) as other:
                other.execute("CREATE TABLE precious (a)")
        else:
            new.write_text("" if what == "an empty file" else "dear diary, " * 200)
        content = None if new.is_dir() else new.read_bytes()
        names = sorted(path.name for path in daemon.folder.glob("fracture_watch.db*"))[: None if with_its_log else 1]
        (daemon.folder / "away").mkdir()
        for name in names:
            (daemon.folder / name).rename(daemon.folder / "away" / name)
        new.rename(database)
        daemon.drop(2)
        assert "put it back" in daemon.paused("database_unavailable", str(database))
        assert files(daemon.inbox) == ["2.png"]
        assert database.is_dir() if content is None else database.read_bytes() == content
        database.rename(daemon.folder / "intruder")
        for name in names:
            (daemon.folder / "away" / name).rename(daemon.folder / name)
        daemon.all_done(1, 2)


@contextmanager
def in_use(house):
    """A daemon at work that has recorded one file, its database, and a backup of that."""
    daemon = house()
    database = path_of(daemon)
    with daemon.working():
        daemon.drop(1)
        daemon.all_done(1)
        backup = copy_of(daemon)
        in_one_file(database)
        yield daemon, database, backup


def test_a_database_that_is_damaged_while_in_use_and_restored(house):
    with in_use(house) as (daemon, database, backup):
        damage(database)
        daemon.drop(2)
        assert "restore a backup" in daemon.paused("database_unavailable", str(database), "malformed")
        assert files(daemon.inbox) == ["2.png"]
        shutil.copy(backup, database)  # over it, as people do
        daemon.all_done(1, 2)
    assert daemon.rows("PRAGMA integrity_check") == [("ok",)]


def test_a_database_that_is_emptied_while_in_use_is_left_empty_until_a_backup_is_copied_into_it(house):
    with in_use(house) as (daemon, database, backup):
        os.truncate(database, 0)
        daemon.drop(2)
        assert "is empty; put it back" in daemon.paused("database_unavailable", str(database))
        assert database.stat().st_size == 0
        shutil.copy(backup, database)
        daemon.all_done(1, 2)


def test_a_database_whose_beginning_is_overwritten_while_in_use(house):
    with in_use(house) as (daemon, database, backup):
        with database.open("r+b") as file:
            file.write(b"dear diary, " * 100)
        daemon.drop(2)
        assert "restore a backup" in daemon.paused("database_unavailable", str(database), "not a database")
        assert database.read_bytes().startswith(b"dear diary")
        backup.replace(database)
        daemon.all_done(1, 2)


def test_a_daemon_does_not_start_over_a_damaged_database(house):
    daemon = house()
    database = path_of(daemon)
    with daemon.working():
        daemon.drop(*range(30))
        daemon.all_done(*range(30))
    in_one_file(database)
    [(page,)] = daemon.rows("SELECT rootpage FROM sqlite_schema WHERE name = 'one_result_per_content_and_model'")
    size = database.stat().st_size
    with database.open("r+b") as file:  # somewhere in the middle, where opening it does not look
        file.seek((page - 1) * 4096)
        file.write(os.urandom(4096))
    settings = load_settings(daemon.folder / "config.yaml", {})
    with closing(assembly.open_database(settings)) as opened, pytest.raises(DatabaseUnavailable) as caught:
        opened.check()
    assert str(database) in caught.value.detail
    assert "restore a backup" in caught.value.detail
    assert database.stat().st_size == size


def test_a_lock_that_outlasts_the_patience_names_what_to_do(house, monkeypatch):
    monkeypatch.setattr(sqlite_room, "_BUSY_MILLISECONDS", 200)
    daemon = house()
    with daemon.working(), closing(sqlite3.connect(path_of(daemon), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        daemon.drop(1, 2)
        assert "another program" in daemon.paused("database_unavailable", str(path_of(daemon)), "locked")
        assert files(daemon.inbox) == ["1.png", "2.png"]
        other.execute("ROLLBACK")
        daemon.all_done(1, 2)


def test_a_fault_in_the_middle_of_a_backlog_costs_and_repeats_nothing(house):
    daemon = house()
    database = path_of(daemon)
    drop(daemon.folder, "first.png", png(1000))
    numbers = range(60)
    daemon.drop(*numbers)
    (daemon.inbox / "first.png").unlink()
    with daemon.working():
        for _ in range(4):
            done = len(files(daemon.processed))
            assert until(lambda done=done: len(files(daemon.processed)) in (60, *range(done + 1, 60)))
            database.rename(daemon.folder / "away.db")
            if len(files(daemon.processed)) < 60:
                daemon.paused("database_unavailable")
            (daemon.folder / "away.db").rename(database)
            daemon.until_ready()
        daemon.all_done(*numbers)
