import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from fracture_watch import assembly
from fracture_watch.cli import main
from fracture_watch.cli.checks import writable
from fracture_watch.config import load_settings
from tests.conftest import write_config
from tests.imaging.test_streams import JPEG_2000, JPEGS


@pytest.fixture
def doctor(monkeypatch, capsys):
    """Run the command: (exit status, its checks by name)."""

    def run(config: Path):
        monkeypatch.setattr(sys, "argv", ["fracture-watch", "doctor", "--json", "--config", str(config)])
        with pytest.raises(SystemExit) as ended:
            main()
        checks = json.loads(capsys.readouterr().out)["checks"]
        return ended.value.code or 0, {check["name"]: check for check in checks}

    return run


def test_a_sound_machine_is_well(doctor, config):
    code, checks = doctor(config)
    assert (code, [name for name, check in checks.items() if not check["ok"]]) == (0, [])
    assert {syntax.name for syntax in [*JPEGS, *JPEG_2000]} < set(checks)
    assert sum(check["part"] == "codec" for check in checks.values()) == 16


def test_what_decodes_and_classifies_is_counted(doctor, config):
    threads = torch.get_num_threads()
    try:
        for count, said in ((1, "takes 1 thread beside"), (2, "takes 2 threads beside")):
            torch.set_num_threads(count)
            detail = doctor(config)[1]["imaging.workers"]["detail"]
            assert said in detail
    finally:
        torch.set_num_threads(threads)
    assert detail.startswith("1 decoding process on ")  # as the configuration says
    assert "run and serve start 2 more" in detail


def test_nothing_is_made_or_changed(doctor, config):
    before = sorted(config.parent.iterdir())
    doctor(config)
    assert sorted(config.parent.iterdir()) == before


def test_missing_weights_are_found(doctor, tmp_path):
    code, checks = doctor(write_config(tmp_path, tmp_path / "none.pth"))
    assert code == 1
    assert "there are no model weights here" in checks[str(tmp_path / "none.pth")]["detail"]


def test_a_foreign_database_is_found(doctor, config):
    with closing(sqlite3.connect(config.parent / "fracture_watch.db")) as connection:
        connection.execute("CREATE TABLE other (a)")
    code, checks = doctor(config)
    [database] = [check for check in checks.values() if check["part"] == "database"]
    assert (code, database["ok"]) == (1, False)
    assert "no such table: file" in database["detail"]


@pytest.mark.parametrize(("left", "said"), [(None, "fracture_watch.db is gone, but"), (b"", "is empty, but")])
def test_a_database_that_went_missing_is_found(doctor, config, left, said):
    database = config.parent / "fracture_watch.db"
    Path(f"{database}.lock").write_text("{}\n")
    if left is not None:
        database.write_bytes(left)
    code, checks = doctor(config)
    assert (code, checks[str(database)]["ok"]) == (1, False)
    assert said in checks[str(database)]["detail"]


def test_a_damaged_database_is_found(doctor, config):
    (config.parent / "fracture_watch.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    code, checks = doctor(config)
    [database] = [check for check in checks.values() if check["part"] == "database"]
    assert (code, database["ok"]) == (1, False)


def test_a_file_in_the_place_of_the_inbox_is_found(doctor, config):
    (config.parent / "inbox").write_text("not a folder")
    code, checks = doctor(config)
    assert (code, checks["inbox.path"]["ok"]) == (1, False)
    assert "is no folder that can be written to" in checks["inbox.path"]["detail"]


def test_polling_is_told(doctor, tmp_path, weights):
    _, checks = doctor(write_config(tmp_path, weights, inbox={"polling": "always"}))
    assert "listed every second, because inbox.polling is always" in checks["inbox.path"]["detail"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_found(doctor, config, tmp_path):
    (inbox := config.parent / "inbox").mkdir(mode=0o700)
    doctor(config)  # everything is imported now; the other user may not read this interpreter's folder
    if (child := os.fork()) == 0:
        os.setuid(65534)
        try:
            writable(inbox)
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_too_little_room_is_found_before_the_disk_is_full(doctor, tmp_path, weights):
    code, checks = doctor(write_config(tmp_path, weights, filing={"min_free_mb": 1 << 40}))
    assert (code, checks["filing.min_free_mb"]["ok"]) == (1, False)
    assert "fracture-watch prune" in checks["filing.min_free_mb"]["detail"]


def test_a_running_watcher_is_told(doctor, config):
    settings = load_settings(config, {})
    assembly.open_database(settings).close()
    assert doctor(config)[1][str(settings.inbox.path)]["detail"] == "no watcher runs now"
    with assembly.claimed(settings):
        assert f"watched by process {os.getpid()} on" in doctor(config)[1][str(settings.inbox.path)]["detail"]


def test_a_cluster_that_is_not_there_is_found(doctor, tmp_path, weights):
    address = "tcp://127.0.0.1:1"
    code, checks = doctor(write_config(tmp_path, weights, engine={"kind": "dask", "address": address}))
    assert (code, "no Dask scheduler answers" in checks[address]["detail"]) == (1, True)
