import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fracture_watch.errors import InvalidSettings
from fracture_watch.intake.claim import claimed, holder, name_of

HOLD = (
    "import sys, time, pathlib; from fracture_watch.intake.claim import claimed\n"
    "with claimed(pathlib.Path(sys.argv[1]), 'x'): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_one_is_refused_and_told_who_holds_it(tmp_path, other):
    with pytest.raises(InvalidSettings) as caught, claimed(tmp_path / "lock", "inbox.path: /in"):
        pass
    assert caught.value.detail.startswith(f"inbox.path: /in is in use by process {other.pid} on ")
    assert "stop that one first" in caught.value.detail
    assert holder(tmp_path / "lock").startswith(f"process {other.pid} on ")


def test_a_lock_whose_holder_was_killed_does_not_block(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder(tmp_path / "lock") is None
    with claimed(tmp_path / "lock", "x"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert holder(tmp_path / "lock") is None


def test_nobody_holds_a_lock_that_is_not_there(tmp_path):
    assert holder(tmp_path / "lock") is None


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(InvalidSettings, match=r"x: the lock .*/no/lock cannot be made: No such file"):
        claimed(tmp_path / "no" / "lock", "x").__enter__()


def test_a_lock_is_no_way_to_somebody_elses_file(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InvalidSettings, match="cannot be made"):
        claimed(tmp_path / "lock", "x").__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


def test_whatever_stands_in_a_held_lock_is_survived(tmp_path, other):
    (tmp_path / "lock").write_text("[1]")
    assert holder(tmp_path / "lock") == "another process"


def test_starts_at_once_give_an_inbox_one_name(tmp_path):
    with ThreadPoolExecutor(8) as starts:
        for number in range(50):
            place = tmp_path / f"inbox-{number}.name"
            names = set(starts.map(lambda _, place=place: name_of(place, make=True), range(8)))
            assert names == {place.read_text().strip()}
    assert len(list(tmp_path.iterdir())) == 50


def test_an_inbox_without_a_name_stays_without_one_unless_it_is_to_get_one(tmp_path):
    assert name_of(tmp_path / "name", make=False) is None
    assert not (tmp_path / "name").exists()
