"""``results`` where it writes: files, pipes, and a reader that has seen enough."""

import csv
import os
import shutil
import stat
import subprocess
import sys
import threading

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


@pytest.mark.parametrize("target", ["none/out.csv", "."])
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


@pytest.mark.parametrize(
    "arguments",
    [
        ("results", "--limit", 10**20),
        ("retry", 10**20),
        ("retry", 0),
        ("prune", "--older-than", "999999d"),
        ("prune", "--older-than", "999999w"),
    ],
)
def test_a_number_beyond_what_can_be_is_wrong_use(fw, recorded, arguments):
    code, out, err = fw(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert arguments[-1] in (0, 10**20) or f"{arguments[-1]}: is before the year 1" in err
