"""``results`` where it writes: files, pipes, and a reader that has seen enough."""

import csv
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.archive import build
from fracture_watch.results.database import Database

ROWS = 500


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A database with more rows than a pipe holds."""
    path = tmp_path_factory.mktemp("archive") / "fracture_watch.db"
    database = Database(f"sqlite:///{path}")
    build(database, ROWS)
    database.close()
    return path


@pytest.fixture
def recorded(config, archive):
    """A folder with settings and that database."""
    shutil.copy(archive, config.parent)
    return config.parent


def test_a_file_is_written_whole_and_replaces_what_was_there(fw, recorded):
    target = recorded / "out.csv"
    target.write_text("old")
    code, out, err = fw("results", "--format", "csv", "--output", target)
    assert (code, out, err) == (0, "", "")
    with target.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == ROWS
    assert [p.name for p in recorded.iterdir() if p.name.endswith(".part")] == []


def test_a_file_that_is_replaced_goes_on_being_readable_by_the_same_users(fw, recorded):
    target = recorded / "out.csv"
    target.touch(0o600)
    assert fw("results", "--format", "csv", "--output", target)[0] == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_goes_on_pointing_to_the_file_that_is_written(fw, recorded):
    (recorded / "link.jsonl").symlink_to("there.jsonl")
    assert fw("results", "--format", "jsonl", "--limit", 3, "--output", "link.jsonl")[0] == 0
    assert (recorded / "link.jsonl").is_symlink()
    assert len((recorded / "there.jsonl").read_text().splitlines()) == 3


def test_a_pipe_is_written_to_as_it_stands(fw, recorded):
    os.mkfifo(recorded / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((recorded / "pipe").read_text()))
    reader.start()
    assert fw("results", "--format", "jsonl", "--limit", 2, "--output", "pipe")[0] == 0
    reader.join()
    assert read[0].count("\n") == 2
    assert stat.S_ISFIFO((recorded / "pipe").stat().st_mode)


@pytest.mark.parametrize("target", ["none/out.csv", ".", "a" * 252, "a" * 300])
def test_what_cannot_be_written_is_named_and_nothing_is_left(fw, recorded, target):
    code, _, err = fw("results", "--format", "csv", "--output", target)
    assert code == 2
    assert f"{target} cannot be written" in err
    assert [p.name for p in recorded.rglob("*.part")] == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "table"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(recorded, form):
    command = [sys.executable, "-m", "fracture_watch", "results", "--format", form]
    with subprocess.Popen(command, cwd=recorded, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("command", [("results", "--json"), ("results",), ("config", "show")])
def test_a_full_disk_behind_standard_output_is_said(recorded, command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fracture_watch", *command],
            check=False,
            cwd=recorded,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = "fracture-watch: the output cannot be written: No space left on device; make room, or write it elsewhere\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_closed_standard_output_is_no_error(recorded):
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m fracture_watch results >&-', sys.executable],
        check=False,
        cwd=recorded,
        stderr=subprocess.PIPE,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ("results", "--limit", 10**20),
        ("retry", 10**20),
        ("retry", 0),
        ("retry", "--code", "trunacted"),
        ("prune", "--older-than", "999999d"),
        ("prune", "--older-than", "999999w"),
    ],
)
def test_a_number_beyond_what_can_be_is_wrong_use(fw, recorded, arguments):
    code, out, err = fw(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert arguments[-1] in (0, 10**20, "trunacted") or f"{arguments[-1]}: is before the year 1" in err
