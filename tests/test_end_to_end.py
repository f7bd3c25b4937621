"""The daemon as a process of its own, files dropped as people drop them, rows read with plain SQLite."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import png, write_config
from tests.dicoms import dicom

PIXELS = (np.add.outer(np.arange(200), np.arange(150)) * 8 % 4096).astype(np.uint16)


class Process:
    """`fracture-watch run` in a folder."""

    def __init__(self, folder: Path, command: str = "run") -> None:
        self.folder = folder
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fracture_watch", command, "--config", str(folder / "config.yaml")],
            stderr=self.log, stdout=self.log, cwd="/", start_new_session=True,
        )  # fmt: skip

    def said(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def until(self, condition, seconds: float = 60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)
        pytest.fail(f"not within {seconds} s; the log:\n{self.said()}")

    def page(self) -> str:
        return self.until(lambda: [w.rstrip("/") for w in self.said().split() if w.startswith("http://")])[0]

    def ready(self) -> None:
        url = f"{self.page()}/readyz"
        self.until(lambda: _get(url)[0] == 200)

    def rows(self, sql: str) -> list[tuple]:
        try:
            with sqlite3.connect(f"file:{self.folder / 'fracture_watch.db'}?mode=ro", uri=True) as connection:
                return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


def _get(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def _post(url: str, content: bytes | None) -> tuple[int, dict]:
    boundary = "----------boundary"
    body = b"" if content is None else (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
        + content + f"\r\n--{boundary}--\r\n".encode()
    )  # fmt: skip
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture
def start(tmp_path, weights):
    started = []

    def _start(command="run", **sections):
        write_config(tmp_path, weights, **sections)
        started.append(Process(tmp_path, command))
        return started[-1]

    yield _start
    for process in started:
        process.kill()


def names(folder: Path) -> list[str]:
    """Every file but the lock that says who watches the folder."""
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != ".fracture_watch.lock"
    )


def test_files_dropped_in_every_way_become_rows(start, tmp_path):
    daemon = start()
    daemon.ready()
    inbox = tmp_path / "inbox"

    outside = tmp_path / "outside.dcm"  # renamed in
    outside.write_bytes(dicom(PIXELS, PatientID="RENAMED"))
    outside.rename(inbox / "renamed.dcm")

    content = dicom(PIXELS + 1, seed=2, PatientID="SLOW")  # copied slowly, with pauses longer than the settling time
    with (inbox / "slow.dcm").open("wb") as writer:
        for start_ in range(0, len(content), len(content) // 4 + 1):
            writer.write(content[start_ : start_ + len(content) // 4 + 1])
            writer.flush()
            time.sleep(0.5)

    study = tmp_path / "study" / "deep"  # a folder moved in
    study.mkdir(parents=True)
    (study / "a.dcm").write_bytes(dicom(PIXELS + 2, seed=3, PatientID="FOLDER"))
    (tmp_path / "study").rename(inbox / "study")

    (inbox / "picture.png").write_bytes(png(1))
    (inbox / "junk.txt").write_text("junk")
    (inbox / "cut.dcm").write_bytes(dicom(PIXELS + 3, seed=4, PatientID="CUT")[:-1000])
    (inbox / "unfinished.part").write_bytes(b"x")
    (inbox / ".hidden").write_bytes(b"x")
    os.mkfifo(inbox / "pipe")
    (inbox / "link.dcm").symlink_to("/etc/passwd")

    daemon.until(lambda: len(daemon.rows("SELECT id FROM results WHERE status <> 'stalled'")) == 6)
    daemon.until(lambda: names(inbox) == [".hidden", "link.dcm", "unfinished.part"])
    assert daemon.stop() == 0, daemon.said()

    rows = daemon.rows("SELECT patient_id, status, code FROM results ORDER BY patient_id, status")
    assert sorted(rows, key=str) == sorted(
        [
            ("RENAMED", "classified", None),
            ("SLOW", "classified", None),
            ("FOLDER", "classified", None),
            ("CUT", "failed", "truncated"),
            (None, "classified", None),
            (None, "rejected", "not_an_image"),
        ],
        key=str,
    )
    assert names(tmp_path / "processed") == ["picture.png", "renamed.dcm", "slow.dcm", "study/deep/a.dcm"]
    assert names(tmp_path / "quarantine") == ["cut.dcm", "cut.dcm.json", "junk.txt", "junk.txt.json"]
    [(prediction, probability, threshold, model, modality)] = daemon.rows(
        "SELECT prediction, probability, threshold, model_name, modality FROM results WHERE patient_id = 'SLOW'"
    )
    assert prediction == ("fractured" if probability >= threshold else "not fractured")
    assert (model, modality) == ("tiny", "DX")
    assert daemon.rows("SELECT count(*) FROM studies") == [(5,)]
    assert daemon.rows("PRAGMA integrity_check") == [("ok",)]


def test_predict_answers_over_http_and_records_nothing(start):
    daemon = start("serve")
    url = daemon.page() + "/predict"
    daemon.until(lambda: _get(daemon.page() + "/healthz")[0] == 200)
    status, body = _post(url, dicom(PIXELS))
    assert status == 200
    assert body["prediction"] in ("fractured", "not fractured")
    assert _post(url, png(1))[0] == 200
    assert _post(url, b"some text")[1]["error"]["code"] == "not_an_image"
    assert _post(url, b"some text")[0] == 415
    assert _post(url, dicom(PIXELS)[:-500])[0] == 422
    assert _post(url, None)[0] == 400
    assert daemon.rows("SELECT count(*) FROM results") == [(0,)]
    assert daemon.stop(signal.SIGINT) == 0, daemon.said()


def test_a_killed_daemon_goes_on_where_it_was(start, tmp_path):
    first = start()
    first.ready()
    for number in range(40):
        (tmp_path / "inbox" / f"{number}.png").write_bytes(png(number))
    first.until(lambda: first.rows("SELECT 1 FROM results LIMIT 1"))
    first.kill()
    second = start()
    second.ready()
    second.until(lambda: not names(tmp_path / "inbox"))
    assert second.stop() == 0
    rows = second.rows("SELECT sha256, status FROM results")
    assert len(rows) == len(set(rows)) == 40
    assert {status for _, status in rows} == {"classified"}
    assert names(tmp_path / "processed") == sorted(f"{number}.png" for number in range(40))


def test_workers_do_not_outlive_a_killed_daemon(start, tmp_path):
    daemon = start()
    daemon.ready()
    (tmp_path / "inbox" / "a.png").write_bytes(png(1))
    daemon.until(lambda: names(tmp_path / "processed"))
    session = daemon.process.pid

    def others() -> list[int]:
        stats = [p.read_text().rsplit(")", 1)[1].split() for p in Path("/proc").glob("[0-9]*/stat")]
        return [int(s[3]) for s in stats if int(s[3]) == session and s[0] != "Z"]

    assert others()
    daemon.kill()
    deadline = time.monotonic() + 20
    while others() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert others() == []


def test_a_taken_port_is_a_clear_message(start):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon = start(web={"port": port})
        assert daemon.process.wait(60) == 2
    assert f"web.port: 127.0.0.1:{port} cannot be used" in daemon.said()
    assert "Traceback" not in daemon.said()
