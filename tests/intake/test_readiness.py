"""How files arrive in the wild, and that none is taken before it is whole: real files in a real folder, watched."""

import os
import shutil
import subprocess
import threading
import time
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from fracture_watch.assembly import check_completeness
from fracture_watch.intake.completeness import Completeness
from fracture_watch.intake.folder import Folder
from fracture_watch.intake.settling import Settling
from fracture_watch.intake.tree import Tree
from tests.conftest import png
from tests.dicoms import dicom
from tests.intake.test_folder import Watch, events

WHOLE = dicom(np.full((64, 64), 99, np.uint16))


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@contextmanager
def watched(inbox, settle=0.3, give_up=60.0, rescan=0.5, clock=time.monotonic):
    folder = Folder(Tree(inbox), Settling(settle, give_up, check_completeness, clock), rescan, None, 10)
    stop = threading.Event()
    ticks = folder.watch(stop)
    watch = Watch(ticks)
    watch.tick()
    try:
        yield watch
    finally:
        stop.set()
        ticks.close()


def test_a_slow_writer_is_waited_for(inbox):
    """A kilobyte at a time, with pauses far longer than the quiet period, and the file closed between them."""
    with watched(inbox, settle=0.1) as watch:
        for start in range(0, len(WHOLE), 1024):
            with (inbox / "a.dcm").open("ab") as file:
                file.write(WHOLE[start : start + 1024])
            if start + 1024 < len(WHOLE):
                assert watch.during(0.3) == []
        watch.until_ready(inbox / "a.dcm")


def test_old_times_do_not_make_a_file_old(inbox, tmp_path):
    """`cp -p` and unzip bring the times of the original: age counts from the first sighting."""
    (tmp_path / "a.png").write_bytes(png(1))
    os.utime(tmp_path / "a.png", (1e9, 1e9))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("b.png", (1999, 1, 1, 0, 0, 0)), png(2))
    with watched(inbox, settle=1.0) as watch:
        began = time.monotonic()
        half = (inbox / "c.png").open("wb")
        half.write(png(3)[:50])
        half.flush()
        os.utime(inbox / "c.png", (1e9, 1e9))
        subprocess.run(["cp", "-p", tmp_path / "a.png", inbox], check=True)
        shutil.unpack_archive(tmp_path / "z.zip", inbox)
        watch.until_ready(inbox / "a.png", inbox / "b.png")
        assert inbox / "c.png" not in watch.ready
        half.write(png(3)[50:])
        half.close()
        watch.until_ready(inbox / "c.png")
        assert time.monotonic() - began < 5


@events
def test_a_temporary_name_is_never_taken_and_its_renaming_is(inbox):
    """As rsync does it: a dotfile of another name, then a rename."""
    with watched(inbox) as watch:
        (inbox / ".a.dcm.Xy12Zz").write_bytes(WHOLE)
        os.utime(inbox / ".a.dcm.Xy12Zz", (1e9, 1e9))
        assert watch.during(0.8) == []
        (inbox / ".a.dcm.Xy12Zz").rename(inbox / "a.dcm")
        watch.until_ready(inbox / "a.dcm")


def test_a_file_whose_size_was_reserved_first_is_waited_for(inbox):
    """Header written, length reserved, the tail still a hole: by its own lengths it looks whole."""
    with watched(inbox) as watch, (inbox / "a.dcm").open("wb") as file:
        big = dicom(np.full((600, 600), 99, np.uint16))
        file.write(big[:8192])
        file.truncate(len(big))
        file.flush()
        assert check_completeness(inbox / "a.dcm") is Completeness.INCOMPLETE
        assert watch.during(1.2) == []
        file.write(big[8192:])
        file.flush()
        watch.until_ready(inbox / "a.dcm")


def test_whole_files_have_no_holes_whatever_they_hold(inbox):
    (inbox / "black.dcm").write_bytes(dicom(np.zeros((600, 600), np.uint16)))
    assert check_completeness(inbox / "black.dcm") is Completeness.COMPLETE


def test_a_file_that_was_cut_off_is_taken_once_it_is_whole_or_at_last_as_it_is(inbox):
    with watched(inbox, give_up=2.5) as watch:
        (inbox / "a.dcm").write_bytes(WHOLE[:-100])
        (inbox / "b.dcm").write_bytes(WHOLE[:-100])
        assert watch.during(1.0) == []
        with (inbox / "a.dcm").open("ab") as file:
            file.write(WHOLE[-100:])
        watch.until_ready(inbox / "a.dcm")
        assert inbox / "b.dcm" not in watch.ready
        watch.until_ready(inbox / "b.dcm")


def test_a_file_that_is_replaced_while_it_waits_is_the_new_one(inbox, tmp_path):
    with watched(inbox, settle=0.8) as watch:
        (inbox / "a.png").write_bytes(png(1)[:-5])
        watch.during(0.3)
        (tmp_path / "new").write_bytes(png(2))
        (tmp_path / "new").rename(inbox / "a.png")
        watch.until_ready(inbox / "a.png")
        assert watch.ready == [inbox / "a.png"]


def test_a_file_that_is_deleted_while_it_waits_is_forgotten(inbox):
    with watched(inbox) as watch:
        (inbox / "a.png").write_bytes(png(1)[:-5])
        watch.during(0.5)
        (inbox / "a.png").unlink()
        assert watch.during(1.0) == []


def test_elements_after_the_pixels_and_padding_are_part_of_a_whole_file(inbox):
    (inbox / "a.dcm").write_bytes(WHOLE + bytes(512))
    (inbox / "b.png").write_bytes(png(1) + b"appended by some writer")
    with watched(inbox) as watch:
        watch.until_ready(inbox / "a.dcm", inbox / "b.png")


def test_a_file_that_is_touched_many_times_is_one_file(inbox):
    with watched(inbox, settle=0.5, rescan=0.1) as watch:
        for number in range(20):
            (inbox / "a.png").write_bytes(png(1)[: 30 + number])
            os.utime(inbox / "a.png")
            watch.during(0.05)
        (inbox / "a.png").write_bytes(png(1))
        watch.until_ready(inbox / "a.png")
    assert len(watch.ready) == 1


@pytest.mark.parametrize("when", [0.0, 1.0, 4e9], ids=["1970", "a second later", "2096"])
def test_the_time_that_a_file_states_has_no_say(inbox, when):
    (inbox / "a.png").write_bytes(png(1))
    os.utime(inbox / "a.png", (when, when))
    with watched(inbox) as watch:
        began = time.monotonic()
        watch.until_ready(inbox / "a.png")
        assert time.monotonic() - began < 3


def test_the_wall_clock_may_jump(inbox, monkeypatch):
    """Ages are counted on a clock that nobody sets: a file is ready after its quiet period, not an hour later."""
    with watched(inbox, settle=0.5) as watch:
        (inbox / "a.png").write_bytes(png(1))
        for jump in (-86_400, 3_600, -10 * 365 * 86_400):
            monkeypatch.setattr(time, "time", lambda jump=jump: 1.8e9 + jump)
            watch.tick()
        watch.until_ready(inbox / "a.png")
