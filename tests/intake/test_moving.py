"""The order in which a move across devices does its steps: cut off between any two, the file is whole somewhere."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from fracture_watch.intake import moving
from fracture_watch.intake.moving import moved

SAFE = ["fsync copy", "name", "fsync folder", "unlink source"]


@contextmanager
def steps_of(monkeypatch, source):
    """The calls that reach the disk, in order."""
    seen = []

    def recording(name, describe):
        call = getattr(os, name)

        def recorded(*arguments, **options):
            seen.append(describe(*arguments))
            return call(*arguments, **options)

        monkeypatch.setattr(os, name, recorded)

    recording("fsync", lambda handle: "fsync folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "fsync copy")
    recording("link", lambda from_, _: "name" if Path(from_) != source else "link source")
    recording("replace", lambda *_: "name")
    recording("unlink", lambda path, **_: "unlink source" if Path(path) == source else "unlink")
    yield seen


def is_safe(steps):
    """Each of the steps is there, after the one before it."""
    return [step for step in steps if step in SAFE] == SAFE


def careless(source, target):
    """What a quick hand writes."""
    temporary = target.with_name(f".{target.name}.part")
    shutil.copy2(source, temporary)
    temporary.replace(target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    source.unlink()


@pytest.mark.parametrize(("move", "safe"), [(moved, True), (careless, False)])
def test_a_copy_is_on_disk_under_its_name_before_the_source_goes(tmp_path, elsewhere, monkeypatch, move, safe):
    source = tmp_path / "a"
    source.write_bytes(b"content")
    with steps_of(monkeypatch, source) as steps:
        move(source, elsewhere / "a")
    assert is_safe(steps) is safe, steps
    assert (elsewhere / "a").read_bytes() == b"content"
    assert not source.exists()


@pytest.mark.parametrize("across", [False, True], ids=["same device", "another device"])
def test_what_a_sender_puts_under_the_name_during_a_move_stays(tmp_path, elsewhere, monkeypatch, across):
    source, target = tmp_path / "a", (elsewhere if across else tmp_path) / "filed"
    source.write_bytes(b"old")
    module, name = (shutil, "copyfileobj") if across else (os, "link")
    step = getattr(module, name)

    def interrupted(*arguments, **options):
        step(*arguments, **options)
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(source)

    monkeypatch.setattr(getattr(moving, module.__name__), name, interrupted)
    assert moved(source, target)
    assert (target.read_bytes(), source.read_bytes()) == (b"old", b"new")


def test_what_comes_under_the_name_while_a_copy_is_made_is_not_overwritten(tmp_path, elsewhere, monkeypatch):
    source, target = tmp_path / "a", elsewhere / "a"
    source.write_bytes(b"ours")
    copy = shutil.copyfileobj

    def copying(*arguments):
        copy(*arguments)
        target.write_bytes(b"another's")

    monkeypatch.setattr(moving.shutil, "copyfileobj", copying)
    assert not moved(source, target)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == {"a": b"another's"}
    assert source.read_bytes() == b"ours"
