"""Shares that come and go while their mount point stays, and an inbox that nothing can be taken out of."""

import os
import subprocess
from contextlib import contextmanager

from tests.conftest import png
from tests.faults.test_systemic import ROOT, nobody, open_way, small_disk
from tests.test_daemon import drop, files, until

__all__ = ["open_way"]


def umount(folder):
    subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def unmounted_at_last(folder):
    yield
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def remount(folder, how):
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


@ROOT
def test_an_inbox_whose_share_is_gone_is_no_empty_inbox(tmp_path, house):
    inbox = tmp_path / "inbox"
    with small_disk(inbox):
        daemon = house()
        with daemon.working():
            daemon.drop(1)
            daemon.all_done(1)
            umount(inbox)
            assert "mount it again" in daemon.paused("storage_unavailable", str(inbox))
            with small_disk(inbox):
                daemon.drop(2)
                daemon.all_done(1, 2)


@ROOT
def test_a_share_of_processed_files_that_is_gone_gets_nothing_below_its_mount_point(tmp_path, house):
    processed = tmp_path / "processed"
    aside = tmp_path / "aside"
    aside.mkdir()
    with small_disk(processed, "8m"), unmounted_at_last(aside):
        daemon = house()
        with daemon.working():
            daemon.drop(1)
            daemon.all_done(1)
            subprocess.run(["mount", "--make-private", processed], check=False)
            subprocess.run(["mount", "--move", processed, aside], check=True)
            daemon.drop(2)
            assert "mount it again" in daemon.paused("storage_unavailable", str(processed))
            assert files(processed) == []
            assert files(tmp_path / "inbox") == ["2.png"]
            subprocess.run(["mount", "--move", aside, processed], check=True)
            daemon.all_done(1, 2)


@ROOT
def test_an_inbox_that_becomes_read_only_keeps_its_files_until_they_can_be_taken(tmp_path, house):
    with small_disk(tmp_path / "inbox") as inbox:
        daemon = house()
        with daemon.working():
            daemon.drop(1)
            daemon.all_done(1)
            (inbox / ".2.png").write_bytes(png(2))
            (inbox / ".2.png").rename(inbox / "2.png")
            remount(inbox, "ro")
            if files(inbox) == ["2.png"]:  # else it was quicker than the mount
                daemon.paused("storage_unavailable", str(inbox), "Read-only")
                assert files(inbox) == ["2.png"]
            remount(inbox, "rw")
            daemon.all_done(1, 2)


@ROOT
def test_an_inbox_that_may_not_be_changed_keeps_its_files_until_it_may(tmp_path, house, open_way):
    daemon = house()
    with daemon.working():
        daemon.drop(1)
        daemon.all_done(1)
        for path in [tmp_path, *tmp_path.rglob("*")]:
            os.chown(path, 65534, 65534)
        os.chown(tmp_path / "inbox", 0, 0)
        (tmp_path / "inbox").chmod(0o755)
        with nobody():
            os.seteuid(0)
            daemon.drop(2)
            os.seteuid(65534)
            daemon.paused("storage_unavailable", str(tmp_path / "inbox"), "Permission denied")
        assert files(tmp_path / "inbox") == ["2.png"]
        os.chown(tmp_path / "inbox", 65534, 65534)
        daemon.all_done(1, 2)


@ROOT
def test_a_read_only_inbox_whose_files_are_kept_is_none_of_a_fault(tmp_path, house):
    with small_disk(tmp_path / "inbox") as inbox:
        drop(tmp_path, "1.png", png(1))
        remount(inbox, "ro")
        daemon = house(filing={"processed": "keep"})
        with daemon.working():
            assert until(lambda: daemon.rows("SELECT status, filed_path FROM results"))
            daemon.until_ready()
        assert daemon.rows("SELECT status, filed_path FROM results") == [("classified", str(inbox / "1.png"))]


@ROOT
def test_a_disk_with_room_for_the_probe_and_not_for_the_file(tmp_path, house):
    with small_disk(tmp_path / "processed") as disk:
        daemon = house()
        big = png(9, 800, 800)  # more than half of the disk
        with daemon.working():
            (disk / "ballast").write_bytes(bytes(600_000))
            drop(tmp_path, "9.png", big)
            assert "No space left" in daemon.paused("storage_unavailable", str(tmp_path / "processed"))
            assert files(tmp_path / "inbox") == ["9.png"]
            (disk / "ballast").unlink()
            assert until(lambda: files(disk) == ["9.png"])
            daemon.until_ready()
        assert daemon.rows("SELECT status FROM results") == [("classified",)]
        assert (disk / "9.png").read_bytes() == big
