"""The whole program over a folder of hostile files: every one gets its line, and the sound ones their prediction."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import png, write_config
from tests.imaging import test_hostile as cases
from tests.imaging.hostile import ALLOWED, CLASSIFIED, CODES, sound

IMAGING = {"max_pixels": 4_000_000, "max_frames": 4, "timeout_seconds": 10.0, "memory_mb": 512, "workers": 2}
# What a name may hold: all but a slash and a zero.
NAMES = [
    b"two\nlines.dcm",
    b"back\rto the start.dcm",
    b"\x1b[31mred\x1b[0m\x07.dcm",
    b"not utf-8 \xff\xfe\xe9.dcm",
    b"\xf0\x9f\xa6\xb4 bone \xe2\x80\xae mcd.dcm",
    b"-rf",
    b"--config",
    b"*",
    b"$(touch pwned)`touch pwned`.dcm",
    b"'; DROP TABLE results; --.dcm",
    b'"quoted".dcm',
    b"<script>alert(1)</script>.dcm".replace(b"/", b"_"),
    b"%s%n{0}{name}.dcm",
    b"=cmd|' _C calc'!A0.dcm",
    b"space at the end ",
    b" ",
    b"dot at the end.",
    b"back\\slash..\\..\\x.dcm",
    b"CON.dcm",
    b"x" * 255,
    "é".encode() * 127,
    b"\xc0\x80.dcm",
]


def in_a_folder(folder: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """Every hostile file of the decoder's suite but the large ones, and of those that are cut off every fourth."""
    for group, cases_of_group in cases.GROUPS.items():
        (folder / group).mkdir()
        for number, case in enumerate(cases_of_group[:: 4 if group.endswith("cut") else 1]):
            content = case.make()
            if len(content) < 300_000:
                path = folder / group / f"{number}.{group[:3]}"
                path.write_bytes(content)
                yield path, case.expected


def dirty_names(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [Path(os.fsdecode(os.fsencode(folder) + b"/" + name)) for name in NAMES]
    for number, path in enumerate(paths):
        path.write_bytes(sound(1000 + number))
    return paths


def no_files(folder: Path) -> None:
    """What lies in a folder and must not even be opened."""
    folder.mkdir()
    os.mkfifo(folder / "pipe.dcm")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.dcm"))
    (folder / "loop.dcm").symlink_to("loop.dcm")
    (folder / "up").symlink_to("..")
    (folder / "zero.dcm").symlink_to("/dev/zero")
    (folder / "folder.dcm").mkdir()
    if os.getuid() == 0:
        try:
            os.mknod(folder / "device.dcm", 0o20666, os.makedev(1, 5))
        except PermissionError:
            return  # a container without the right


def scanned(config: Path, inbox: Path) -> tuple[list[dict], subprocess.CompletedProcess[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "fracture_watch", "scan", "--json", "--config", config, inbox],
        capture_output=True, text=True, errors="surrogateescape", timeout=300, cwd="/", check=False,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()], done


def test_a_scan_over_all_of_it_has_a_line_for_every_file(tmp_path, weights):
    config = write_config(tmp_path, weights, imaging=IMAGING, model={"heatmaps": "none", "batch_size": 64})
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    expected = dict(in_a_folder(inbox))
    dirty = dirty_names(inbox / "names")
    no_files(inbox / "things")
    sounds = [inbox / f"sound {n}.dcm" for n in range(5)] + [inbox / "sound.png"]
    for number, path in enumerate(sounds):
        path.write_bytes(png(5) if path.suffix == ".png" else sound(2000 + number))
    expected |= dict.fromkeys([*dirty, *sounds], frozenset({CLASSIFIED}))
    # JSON is UTF-8: what is not, in a name, is written as an escape.
    expected = {os.fsencode(path).decode("utf-8", "backslashreplace"): codes for path, codes in expected.items()}

    lines, done = scanned(config, inbox)

    assert done.returncode == 1, done.stderr  # done, and some files failed
    assert "Traceback" not in done.stderr
    summary = lines.pop()["summary"]
    wrong = {}
    for line in lines:
        found = line["code"] or line["status"]
        if line["status"] == "duplicate":
            found = CLASSIFIED
        allowed = expected.get(line["file"])
        if allowed is None or found not in allowed:
            wrong[line["file"]] = (found, allowed, line["detail"])
        assert line["status"] in ("classified", "duplicate", "rejected", "failed")
        assert (line["code"] in CODES) == (line["status"] in ("rejected", "failed"))
        assert found in ALLOWED
    seen = {line["file"] for line in lines}
    assert set(expected) - seen == set()
    assert len(seen) == len(lines) == sum(summary[s] for s in ("classified", "duplicate", "rejected", "failed"))
    assert wrong == {}


def test_the_watcher_goes_on_through_hostile_files(tmp_path, weights):
    """Dirty names, things that are no files, and a file of every kind of failure, beside sound ones."""
    write_config(
        tmp_path, weights, imaging=IMAGING, model={"heatmaps": "none"},
        inbox={"settle_seconds": 0.2, "give_up_seconds": 1.0, "rescan_seconds": 1.0},
    )  # fmt: skip
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    names = {path.name for path in dirty_names(inbox / "names")}
    no_files(inbox / "things")
    hostile = {f"{group} {n}": case for group, some in cases.GROUPS.items() for n, case in enumerate(some[::25])}
    for name, case in hostile.items():
        (inbox / name).write_bytes(case.make())
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "fracture_watch", "watch", "--config", tmp_path / "config.yaml"],
            stdout=stderr, stderr=stderr, cwd="/",
        )  # fmt: skip
        try:
            _wait_until_only_things_are_left(inbox, daemon, log)
            (inbox / "late.dcm").write_bytes(sound(3000))  # it is still at work
            _wait_until_only_things_are_left(inbox, daemon, log)
            daemon.terminate()
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()
            daemon.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in text
    assert "\x1b[31m" not in text
    # A name that leaves no room for a suffix is shortened; the others stay as they are.
    processed = {path.name for path in (tmp_path / "processed" / "names").iterdir()}
    assert len(processed) == len(names)
    assert processed >= {name for name in names if len(os.fsencode(name)) < 200}
    assert (tmp_path / "processed" / "late.dcm").is_file()
    filed = {path.name for folder in ("processed", "quarantine") for path in (tmp_path / folder).iterdir()}
    assert set(hostile) - filed == set()
    assert not list(tmp_path.rglob("pwned"))


def _wait_until_only_things_are_left(inbox: Path, daemon: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    lock = inbox / ".fracture_watch.lock"
    while left := [path for path in inbox.rglob("*") if path.is_file() and not path.is_symlink() and path != lock]:
        assert daemon.poll() is None, log.read_text(errors="replace")
        if time.monotonic() > deadline:
            pytest.fail(f"still there: {left[:10]}\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)
