import hashlib
import json
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fracture_watch.errors import Retry, StorageUnavailable
from fracture_watch.intake.filing import Filing
from fracture_watch.intake.tree import Tree, scan
from fracture_watch.outcomes import Classified, Duplicate, Failed, Outcome, Recorded, Rejected
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, SourceFile

GOOD = Classified(
    "c0ffee", Facts(), Prediction(Label.FRACTURED, 0.75, 0.5, ModelFacts("tiny", "1.2.3", "abc")), heatmap="map.png"
)
BAD = Failed("truncated", "the file ends too early; send it again", "bad5ad")
MEMORY_DISK = Path("/dev/shm")


class House:
    """An inbox with its filing, in which files are processed by hand."""

    def __init__(self, folder: Path, **options) -> None:
        self.inbox = folder / "inbox"
        self.inbox.mkdir(exist_ok=True)
        places = {"processed_dir": folder / "processed", "quarantine_dir": folder / "quarantine"}
        self.filing = Filing(self.inbox, **places | options)

    def receive(self, name: str = "a.dcm", content: bytes = b"pixels") -> SourceFile:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return next(source for source in scan(Tree(self.inbox)) if source.path == path)

    def commit(self, source: SourceFile, outcome: Outcome, attempts: int = 1) -> Recorded:
        """As the database would have it."""
        return Recorded(7, source, outcome, self.filing.destination(source, outcome), attempts)

    def file(self, source: SourceFile, outcome: Outcome) -> Path | None:
        return self.filing.file(self.commit(source, outcome))


@pytest.fixture
def house(tmp_path) -> House:
    return House(tmp_path)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below, by its relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_classified_file_is_moved_to_processed(house, tmp_path):
    assert house.file(house.receive(), GOOD) == tmp_path / "processed/a.dcm"
    assert tree(tmp_path) == {"processed/a.dcm": b"pixels"}


def test_a_duplicate_is_moved_to_processed(house, tmp_path):
    assert house.file(house.receive(), Duplicate("c0ffee", Facts())) == tmp_path / "processed/a.dcm"


@pytest.mark.parametrize("outcome", [BAD, Rejected("not_an_image", "no image")], ids=["failed", "rejected"])
def test_a_failed_or_rejected_file_is_moved_to_quarantine(house, tmp_path, outcome):
    assert house.file(house.receive(), outcome) == tmp_path / "quarantine/a.dcm"
    assert (tmp_path / "quarantine/a.dcm").read_bytes() == b"pixels"


def test_a_quarantined_file_has_a_sidecar_that_says_why(house, tmp_path):
    source = house.receive()
    house.filing.file(house.commit(source, BAD, attempts=3))
    sidecar = json.loads((tmp_path / "quarantine/a.dcm.json").read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", sidecar.pop("when"))
    assert sidecar == {
        "result": 7,
        "status": "failed",
        "code": "truncated",
        "detail": "the file ends too early; send it again",
        "sha256": "bad5ad",
        "source_path": str(source.path),
        "attempts": 3,
    }


def test_a_receipt_says_what_was_predicted(tmp_path):
    house = House(tmp_path, receipts=True)
    house.file(house.receive(), GOOD)
    receipt = json.loads((tmp_path / "processed/a.dcm.json").read_text())
    assert {
        key: receipt[key] for key in ("status", "prediction", "probability", "threshold", "model", "disclaimer")
    } == {
        "status": "classified",
        "prediction": "fractured",
        "probability": 0.75,
        "threshold": 0.5,
        "model": {"name": "tiny", "version": "1.2.3", "id": "abc"},
        "disclaimer": "Research use only. Not a medical device.",
    }


def test_folders_are_kept_and_those_that_were_emptied_are_removed(house, tmp_path):
    first, second = house.receive("p/s/1.dcm"), house.receive("p/2.dcm")
    assert house.file(first, GOOD) == tmp_path / "processed/p/s/1.dcm"
    house.filing.remove_emptied(first.path.parent)
    assert sorted(path.name for path in house.inbox.rglob("*")) == ["2.dcm", "p"]
    house.file(second, GOOD)
    house.filing.remove_emptied(second.path.parent)
    assert house.inbox.is_dir()
    assert tree(house.inbox) == {}


def test_a_clash_gets_a_number_and_nothing_is_overwritten(house, tmp_path):
    for content in (b"first", b"second", b"third"):
        house.file(house.receive(content=content), GOOD)
    assert tree(tmp_path) == {
        "processed/a.dcm": b"first",
        "processed/a-1.dcm": b"second",
        "processed/a-2.dcm": b"third",
    }


def test_a_name_that_was_taken_after_the_commit_gets_a_number(house, tmp_path):
    recorded = house.commit(house.receive(), GOOD)
    (tmp_path / "processed").mkdir()
    (tmp_path / "processed/a.dcm").write_bytes(b"another")
    assert house.filing.file(recorded) == tmp_path / "processed/a-1.dcm"
    assert tree(tmp_path) == {"processed/a.dcm": b"another", "processed/a-1.dcm": b"pixels"}


def test_a_sidecar_never_overwrites_a_file_that_was_filed_before(house, tmp_path):
    house.file(house.receive("a.dcm.json", b"somebody's notes"), Rejected("not_an_image", "no image"))
    house.file(house.receive("a.dcm"), BAD)
    filed = tree(tmp_path / "quarantine")
    assert filed["a.dcm.json"] == b"somebody's notes"
    assert filed["a-1.dcm"] == b"pixels"
    assert json.loads(filed["a-1.dcm.json"])["code"] == "truncated"


def test_a_sidecar_never_overwrites_a_file_of_the_same_batch(house, tmp_path):
    notes, bad = house.receive("a.dcm.json", b"somebody's notes"), house.receive("a.dcm")
    recorded = [house.commit(notes, Rejected("not_an_image", "no image")), house.commit(bad, BAD)]
    for item in recorded:
        house.filing.file(item)
    assert {b"somebody's notes", b"pixels"} < set(tree(tmp_path / "quarantine").values())


def test_a_quarantine_that_is_out_of_reach_is_none_that_somebody_emptied(house, tmp_path):
    source = house.receive()
    filed = house.file(source, BAD)
    (tmp_path / "quarantine").rename(tmp_path / "away")
    with pytest.raises(StorageUnavailable):
        house.filing.put_back(filed, source.path)
    (tmp_path / "away").rename(tmp_path / "quarantine")
    filed.rename(tmp_path / "taken")
    with pytest.raises(FileNotFoundError):
        house.filing.put_back(filed, source.path)


def test_the_sidecar_of_a_file_that_was_put_back_is_kept_beside_the_new_one(house, tmp_path):
    house.file(house.receive("a.dcm"), BAD)
    (tmp_path / "quarantine/a.dcm").rename(house.inbox / "a.dcm")
    again = next(scan(Tree(house.inbox)))
    assert house.filing.file(house.commit(again, BAD, attempts=2)) == tmp_path / "quarantine/a-1.dcm"
    sidecars = [json.loads((tmp_path / f"quarantine/{name}.dcm.json").read_text()) for name in ("a", "a-1")]
    assert [sidecar["attempts"] for sidecar in sidecars] == [1, 2]


def test_a_folder_that_has_the_name_of_a_filed_file_gets_a_number(house, tmp_path):
    house.file(house.receive("study"), BAD)
    house.file(house.receive("study/a.dcm"), BAD)
    assert {"study", "study-1/a.dcm"} < set(tree(tmp_path / "quarantine"))


@pytest.mark.parametrize(
    "name", ["x" * 250 + ".dcm", ".".join(["x" * 120] * 2), "ä" * 125], ids=["ascii", "dot", "utf-8"]
)
def test_a_name_too_long_for_its_sidecar_is_cut(house, tmp_path, name):
    filed = house.file(house.receive(name), BAD)
    assert filed.name[0] == name[0]
    assert filed.read_bytes() == b"pixels"
    assert json.loads(filed.with_name(filed.name + ".json").read_text())["source_path"].endswith(name)


def test_a_place_that_would_be_too_deep_leaves_the_file_where_it_is(house, caplog, monkeypatch):
    monkeypatch.chdir(house.inbox)  # step by step: the whole path is as long as the system takes one
    left = 4093 - len(str(house.inbox))
    while left > 1:
        step = "x" * min(200, left - 1)
        Path(step).mkdir()
        os.chdir(step)
        left -= len(step) + 1
    Path("f").write_bytes(b"pixels")
    [source] = scan(Tree(house.inbox))
    assert house.file(source, GOOD) == source.path
    assert source.path.read_bytes() == b"pixels"
    assert "recorded but cannot be moved, so it stays: File name too long" in caplog.text


def test_a_name_that_is_no_utf_8_is_filed_and_described(house):
    name = os.fsdecode(b"r\xf6ntgen.dcm")
    filed = house.file(house.receive(name), BAD)
    assert filed.name == name
    assert json.loads(filed.with_name(filed.name + ".json").read_text(encoding="utf-8"))["source_path"].endswith(name)


def test_filing_again_changes_nothing(house, tmp_path):
    recorded = house.commit(house.receive(), GOOD)
    house.filing.file(recorded)
    before = tree(tmp_path)
    assert house.filing.file(recorded) == tmp_path / "processed/a.dcm"
    assert tree(tmp_path) == before


def test_a_move_that_was_cut_off_between_its_two_steps_is_finished(house, tmp_path):
    recorded = house.commit(house.receive(), GOOD)
    (tmp_path / "processed").mkdir()
    os.link(recorded.source.path, tmp_path / "processed/a.dcm")
    assert house.filing.file(recorded) == tmp_path / "processed/a.dcm"
    assert tree(tmp_path) == {"processed/a.dcm": b"pixels"}


def test_a_sidecar_that_a_crash_left_out_is_written_again(house, tmp_path):
    recorded = house.commit(house.receive(), BAD)
    house.filing.file(recorded)
    (tmp_path / "quarantine/a.dcm.json").unlink()
    house.filing.file(recorded)
    assert json.loads((tmp_path / "quarantine/a.dcm.json").read_text())["code"] == "truncated"


@pytest.mark.parametrize("processed", ["move", "delete"])
def test_a_source_that_was_replaced_is_neither_moved_nor_deleted(tmp_path, processed):
    house = House(tmp_path, processed=processed)
    recorded = house.commit(house.receive(), GOOD)
    house.receive(content=b"newer pixels")
    house.filing.file(recorded)
    assert tree(tmp_path) == {"inbox/a.dcm": b"newer pixels"}


def test_a_source_that_somebody_took_away_is_no_error(house, tmp_path):
    recorded = house.commit(house.receive(), BAD)
    recorded.source.path.unlink()
    house.filing.file(recorded)
    assert tree(tmp_path) == {}


def test_kept_files_stay(tmp_path):
    house = House(tmp_path, processed="keep")
    assert house.file(house.receive(), GOOD) == tmp_path / "inbox/a.dcm"
    assert tree(tmp_path) == {"inbox/a.dcm": b"pixels"}


@pytest.mark.parametrize("processed", ["keep", "delete"])
def test_failed_files_go_to_quarantine_whatever_becomes_of_processed_ones(tmp_path, processed):
    house = House(tmp_path, processed=processed)
    assert house.file(house.receive(), BAD) == tmp_path / "quarantine/a.dcm"


def test_processed_files_are_deleted_where_that_is_said(tmp_path):
    house = House(tmp_path, processed="delete")
    recorded = house.commit(house.receive("p/a.dcm"), GOOD)
    assert tree(tmp_path) == {"inbox/p/a.dcm": b"pixels"}
    assert house.filing.file(recorded) is None
    assert tree(tmp_path) == {}
    assert house.filing.file(recorded) is None


def test_a_symlink_in_the_place_is_not_written_through(house, tmp_path):
    (tmp_path / "processed").mkdir()
    (tmp_path / "processed/a.dcm").symlink_to(tmp_path / "nowhere")
    assert house.file(house.receive(), GOOD) == tmp_path / "processed/a-1.dcm"
    assert not (tmp_path / "nowhere").exists()


def test_what_cannot_be_filed_stays_in_the_inbox(house, tmp_path):
    source = house.receive()
    (tmp_path / "processed").write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable) as caught:
        house.file(source, GOOD)
    assert caught.value.detail.startswith(f"{tmp_path}/processed cannot be written: File exists; it must be a folder")
    assert caught.value.retry is Retry.SYSTEMIC
    assert source.path.read_bytes() == b"pixels"


def test_a_fault_that_goes_before_it_is_looked_at_holds_no_file_up(house, tmp_path, monkeypatch):
    recorded = house.commit(house.receive("sender/a.dcm"), GOOD)
    blocker = tmp_path / "processed" / "sender"
    blocker.parent.mkdir()
    blocker.write_text("a file where the folder should be")
    probe = Filing.probe

    def repaired_meanwhile(filing):
        blocker.unlink(missing_ok=True)
        probe(filing)

    monkeypatch.setattr(Filing, "probe", repaired_meanwhile)
    assert house.filing.file(recorded) == tmp_path / "processed/sender/a.dcm"
    assert tree(tmp_path) == {"processed/sender/a.dcm": b"pixels"}


def test_a_probe_makes_the_folders_and_leaves_nothing_in_them(house, tmp_path):
    house.filing.probe()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inbox", "processed", "quarantine"]


def test_a_probe_tells_of_a_folder_that_cannot_be_written(house, tmp_path):
    (tmp_path / "quarantine").write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable) as caught:
        house.filing.probe()
    assert caught.value.detail.startswith(f"{tmp_path}/quarantine cannot be written: File exists; it must be a folder")


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike pytest's own."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
def test_a_file_that_alone_cannot_be_moved_stays_and_leaves_no_trace(open_folder):
    house = House(open_folder)
    source = house.receive("sender/a.dcm")  # in a folder of another user, as file shares make them
    house.filing.probe()
    for folder in (open_folder / "processed", open_folder / "quarantine"):
        os.chown(folder, 65534, 65534)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os._exit(0 if house.file(source, GOOD) == source.path else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tree(open_folder) == {"inbox/sender/a.dcm": b"pixels"}


# --- Another device


def is_another_device(tmp_path: Path) -> bool:
    return MEMORY_DISK.is_dir() and MEMORY_DISK.stat().st_dev != tmp_path.stat().st_dev


@pytest.fixture
def far(tmp_path) -> Path:
    """A folder on another device than ``tmp_path``."""
    if not is_another_device(tmp_path):
        pytest.skip(f"{MEMORY_DISK} is no other device than {tmp_path}")
    with TemporaryDirectory(dir=MEMORY_DISK) as folder:
        yield Path(folder)


def test_a_file_is_moved_to_another_device_with_its_time(tmp_path, far):
    house = House(tmp_path, processed_dir=far)
    source = house.receive()
    os.utime(source.path, ns=(10**18, 10**18))
    source = next(scan(Tree(house.inbox)))
    assert house.file(source, GOOD) == far / "a.dcm"
    assert (tree(far), tree(tmp_path)) == ({"a.dcm": b"pixels"}, {})
    assert (far / "a.dcm").stat().st_mtime_ns == 10**18


def test_a_clash_on_another_device_gets_a_number(tmp_path, far):
    house = House(tmp_path, processed_dir=far)
    recorded = house.commit(house.receive(), GOOD)
    (far / "a.dcm").write_bytes(b"others")  # of the same size
    assert house.filing.file(recorded) == far / "a-1.dcm"
    assert tree(far) == {"a.dcm": b"others", "a-1.dcm": b"pixels"}


def test_a_copy_that_was_cut_off_before_its_source_was_removed_is_finished(tmp_path, far):
    house = House(tmp_path, processed_dir=far)
    recorded = house.commit(house.receive(), GOOD)
    (far / "a.dcm").write_bytes(b"pixels")
    assert house.filing.file(recorded) == far / "a.dcm"
    assert (tree(far), tree(tmp_path)) == ({"a.dcm": b"pixels"}, {})


def test_a_copy_that_was_cut_off_with_its_name_and_its_temporary_one_is_finished(tmp_path, far):
    house = House(tmp_path, processed_dir=far)
    recorded = house.commit(house.receive(), GOOD)
    temporary = far / f".a.dcm.{recorded.source.inode:x}.part"
    temporary.write_bytes(b"pixels")
    (far / "a.dcm").hardlink_to(temporary)
    assert house.filing.file(recorded) == far / "a.dcm"
    assert (tree(far), tree(tmp_path)) == ({"a.dcm": b"pixels"}, {})


def test_a_copy_that_was_cut_off_in_the_middle_is_made_again(tmp_path, far):
    house = House(tmp_path, processed_dir=far)
    recorded = house.commit(house.receive(), GOOD)
    (far / f".a.dcm.{recorded.source.inode:x}.part").write_bytes(b"pix")
    house.filing.file(recorded)
    assert tree(far) == {"a.dcm": b"pixels"}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_file_that_a_crash_left_beside_a_taken_name_is_found_again(tmp_path, far, elsewhere):
    quarantine = far if elsewhere else tmp_path / "quarantine"
    house = House(tmp_path, quarantine_dir=quarantine)
    content = b"no picture"
    outcome = Rejected("not_an_image", "send an image", hashlib.sha256(content).hexdigest())
    recorded = house.commit(house.receive("a.txt", content), outcome)
    quarantine.mkdir(exist_ok=True)
    (quarantine / "a.txt").write_bytes(b"another's!")
    for _ in range(2):  # the second time as after a crash before the database was told
        assert house.filing.file(recorded) == quarantine / "a-1.txt"
    assert set(tree(quarantine)) == {"a.txt", "a-1.txt", "a-1.txt.json"}
    assert (quarantine / "a-1.txt").read_bytes() == content


def test_a_sidecar_is_not_taken_for_a_file_of_its_name(house):
    first, second = house.receive("a.txt"), house.receive("a.txt.json")
    recorded = [house.commit(source, BAD) for source in (first, second)]
    places = [house.filing.file(item) for item in recorded]
    assert places == [house.filing.quarantine_dir / "a.txt", house.filing.quarantine_dir / "a.txt-1.json"]
    assert [house.filing.file(item) for item in recorded] == places


def test_a_file_of_unknown_content_is_found_again_by_its_size_and_time(tmp_path, far):
    house = House(tmp_path, quarantine_dir=far)
    recorded = house.commit(house.receive(), Failed("timeout", "decoding took too long", None))
    assert house.filing.file(recorded) == house.filing.file(recorded) == far / "a.dcm"


def test_the_probe_that_a_crash_left_goes_with_the_next(house):
    house.filing.probe()
    (house.filing.processed_dir / ".probe.part").write_bytes(b"half")
    house.filing.probe()
    assert tree(house.filing.processed_dir) == {}
