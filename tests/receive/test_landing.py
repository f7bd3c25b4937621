"""Objects are in the inbox whole or not at all, whatever its disk and its watcher do meanwhile."""

import shutil
import subprocess
import threading
from hashlib import sha256

import pytest

from fracture_watch.errors import StorageUnavailable, TooLarge
from fracture_watch.receive.landing import Landing
from fracture_watch.receive.storing import is_uid
from tests.faults.test_systemic import ROOT, small_disk

UID = "1.2.840.99.1"


def landing(inbox, most=1 << 20, min_free=0):
    inbox.mkdir(exist_ok=True)
    return Landing(inbox, most, min_free, lambda sender: inbox / "dicom" / "2026-01-31" / sender)


def land(place, content, uid=UID, sender="CR1"):
    arriving = place.begin(sender)
    for start in range(0, len(content), 1000):
        arriving.write(content[start : start + 1000])
    return place.land(arriving, sender, uid)


def files(inbox):
    return sorted(str(path.relative_to(inbox)) for path in inbox.rglob("*") if path.is_file())


def test_an_object_lies_in_its_senders_folder_under_its_uid_and_its_digest(tmp_path):
    landed = land(landing(tmp_path / "inbox"), b"object" * 1000)
    digest = sha256(b"object" * 1000).hexdigest()
    assert landed.path == tmp_path / "inbox" / "dicom" / "2026-01-31" / "CR1" / f"{UID}-{digest[:12]}.dcm"
    assert landed.path.read_bytes() == b"object" * 1000
    assert (landed.size, landed.sha256) == (6000, digest)
    assert len(files(tmp_path / "inbox")) == 1


def test_until_it_is_whole_it_has_a_name_that_the_watcher_leaves_alone(tmp_path):
    place = landing(tmp_path / "inbox")
    arriving = place.begin("CR1")
    arriving.write(b"half")
    [name] = files(tmp_path / "inbox")
    assert name.startswith(".")
    assert name.endswith(".part")
    assert (tmp_path / "inbox" / "dicom" / "2026-01-31" / "CR1").is_dir()  # so that it is watched in time
    arriving.discard()
    assert files(tmp_path / "inbox") == []


def test_other_bytes_of_one_uid_lie_beside_each_other_and_the_same_bytes_once(tmp_path):
    place = landing(tmp_path / "inbox")
    first, again, other = land(place, b"one"), land(place, b"one"), land(place, b"two")
    assert first.path == again.path != other.path
    assert first.path.read_bytes() == b"one"
    assert other.path.read_bytes() == b"two"
    assert len(files(tmp_path / "inbox")) == 2


def test_objects_whose_digests_begin_alike_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("fracture_watch.receive.landing._DIGITS", 1)
    place = landing(tmp_path / "inbox")
    contents = {f"{number:04}".encode() for number in range(40)}
    assert {land(place, content).path.read_bytes() for content in contents} == contents


def test_what_was_taken_and_comes_again_is_there_again(tmp_path):
    place = landing(tmp_path / "inbox")
    land(place, b"one").path.unlink()
    assert land(place, b"one").path.read_bytes() == b"one"


def test_what_has_its_name_already_is_never_overwritten(tmp_path):
    place = landing(tmp_path / "inbox")
    first = land(place, b"one").path
    first.write_bytes(b"somebody else's")
    second = land(place, b"one").path
    assert first.read_bytes() == b"somebody else's"
    assert second.read_bytes() == b"one"
    second.unlink()
    second.symlink_to(tmp_path / "nowhere")
    assert land(place, b"one").path not in (first, second)
    assert not (tmp_path / "nowhere").exists()


def test_a_watcher_that_removes_emptied_folders_all_the_time_costs_nothing(tmp_path):
    place, stop, taken = landing(tmp_path / "inbox"), threading.Event(), []

    def watch():
        while not stop.wait(0.005):
            for path in (tmp_path / "inbox").rglob("*.dcm"):
                taken.append(path.read_bytes())
                path.unlink()
            for folder in ("dicom/2026-01-31/CR1", "dicom/2026-01-31", "dicom"):
                try:
                    (tmp_path / "inbox" / folder).rmdir()
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(100):
            land(place, f"object {number}".encode())
    finally:
        stop.set()
        watcher.join()
    left = [path.read_bytes() for path in (tmp_path / "inbox").rglob("*.dcm")]
    assert sorted(taken + left) == sorted(f"object {number}".encode() for number in range(100))


def test_too_large_an_object_leaves_nothing_and_is_said_at_its_end(tmp_path):
    place = landing(tmp_path / "inbox", most=5000)
    arriving = place.begin("CR1")
    arriving.write(bytes(6000))
    assert files(tmp_path / "inbox") == []
    assert not arriving.is_endless
    arriving.write(bytes(6000))
    assert arriving.is_endless
    with pytest.raises(TooLarge, match="max_file_mb"):
        place.land(arriving, "CR1", UID)
    assert land(place, bytes(5000)).size == 5000


@ROOT
def test_a_full_disk_is_said_and_leaves_room_for_the_next(tmp_path):
    with small_disk(tmp_path / "inbox") as inbox:
        place = landing(inbox, most=1 << 30)
        with pytest.raises(StorageUnavailable, match="No space left"):
            land(place, bytes(2 << 20))
        assert files(inbox) == []
        assert land(place, bytes(200_000)).path.exists()


@ROOT
def test_a_read_only_disk_is_said(tmp_path):
    with small_disk(tmp_path / "inbox") as inbox:
        place = landing(inbox)
        subprocess.run(["mount", "-o", "remount,ro", inbox], check=True)
        with pytest.raises(StorageUnavailable, match="Read-only"):
            land(place, b"one")


@ROOT
def test_a_share_that_is_gone_gets_nothing_below_its_mount_point(tmp_path):
    inbox = tmp_path / "inbox"
    with small_disk(inbox):
        place = landing(inbox)
        land(place, b"one")
        subprocess.run(["umount", "-l", inbox], check=True)
        with pytest.raises(StorageUnavailable, match="mount it again"):
            land(place, b"two")
        assert files(inbox) == []


def test_with_less_room_than_wanted_nothing_is_begun(tmp_path):
    place = landing(tmp_path / "inbox", min_free=1 << 60)
    with pytest.raises(StorageUnavailable, match="min_free_mb"):
        land(place, b"one")
    assert files(tmp_path / "inbox") == []


def test_an_inbox_that_is_gone_is_not_made_anew(tmp_path):
    place = landing(tmp_path / "inbox")
    arriving = place.begin("CR1")
    arriving.write(b"one")
    shutil.rmtree(tmp_path / "inbox")
    with pytest.raises(StorageUnavailable):
        place.land(arriving, "CR1", UID)
    assert not (tmp_path / "inbox").exists()


def test_nothing_is_put_where_the_watcher_does_not_look(tmp_path):
    place = landing(tmp_path / "inbox")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "inbox" / "dicom").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        land(place, b"one")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_a_killed_receiver_left_is_removed_and_nothing_else(tmp_path):
    place = landing(tmp_path / "inbox")
    place.begin("CR1").write(b"half")
    whole = land(place, b"one").path
    foreign = tmp_path / "inbox" / "copying.dcm.part"
    foreign.write_bytes(b"of somebody who copies")
    assert place.clear() == 1
    assert sorted(p for p in (tmp_path / "inbox").rglob("*") if p.is_file()) == sorted([foreign, whole])


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "1.2/3", ".1.2", "1..2", "1.2\x00", "1.2 3", "1" * 65, "a.b"])
def test_what_is_no_uid_names_no_file(uid):
    assert not is_uid(uid)


def test_what_is_a_uid_does():
    assert is_uid("1.2.840.10008")
    assert is_uid("2.25." + "1" * 59)
