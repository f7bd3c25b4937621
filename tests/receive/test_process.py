"""`fracture-watch receive` and `run` as processes: killed, stopped, refused, and fed by Orthanc."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tests.conftest import REPOSITORY, png, write_config
from tests.crash.tap import read_journal
from tests.crash.world import Forked, Server
from tests.dicoms import DX, dicom
from tests.orthanc import Peer, free_port, orthanc
from tests.receive.peers import Archive, association, data_set, send_one, stored, until
from tests.receive.test_wire import pdv, store_command
from tests.test_end_to_end import Process, _get

ALONE = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def objects(count, rows=64, columns=64):
    return [dicom(np.full((rows, columns), n % 4096, np.uint16), seed=n) for n in range(count)]


class Receiving:
    """`fracture-watch receive`, which may kill itself at a crossing."""

    def __init__(self, folder, at=""):
        self.folder = folder
        self._seen = len(self.said())
        environment = ALONE | {"CRASH_JOURNAL": str(folder / "journal"), "CRASH_AT": at}
        words = ["receive", "--config", str(folder / "config.yaml")]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.start", "whole", *words],
                cwd=REPOSITORY, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        assert until(lambda: "receiving DICOM" in self.said()[self._seen :] or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.said()

    def said(self):
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def place(tmp_path, weights):
    """A folder with settings, and the receivers that are started in it."""
    port = free_port()
    write_config(
        tmp_path, weights, dicom={"receive": {"port": port}}, filing={"min_free_mb": 0},
        inbox={"settle_seconds": 0.1, "give_up_seconds": 5.0, "rescan_seconds": 1.0},
    )  # fmt: skip
    started = []

    def start(at=""):
        started.append(Receiving(tmp_path, at))
        return started[-1]

    yield tmp_path, port, start
    for receiver in started:
        receiver.kill()


def received(folder):
    return Counter(path.read_bytes() for path in (folder / "inbox").rglob("*.dcm"))


def all_is_there(folder, archive):
    """Every acknowledged object is in the inbox, and nothing there is half of one."""
    found, sent = received(folder), set(map(stored, archive.contents))
    assert set(found) <= sent
    assert {stored(archive.contents[number]) for number in archive.acknowledged} <= set(found)


BOUNDARIES = {
    "before open in landing.__init__": (),
    "before fsync in landing.sync": pytest.mark.slow,
    "after fsync in landing.sync": pytest.mark.slow,
    "before rename in landing._placed": (),
    "after rename in landing._placed": (),
    "before fsync in landing._sync": pytest.mark.slow,
    "after fsync in landing._sync": pytest.mark.slow,
}


@pytest.mark.parametrize("at", [pytest.param(at, marks=marks) for at, marks in BOUNDARIES.items()])
def test_killed_at_every_boundary_it_loses_nothing_that_it_acknowledged(place, at):
    folder, port, start = place
    archive = Archive(folder, objects(6))
    receiver = start(f"{at}#3")
    archive.send(port, 5 if receiver.process.poll() is None else 0)
    assert receiver.process.wait(20) == -signal.SIGKILL
    assert len(archive.acknowledged) < 6
    all_is_there(folder, archive)
    start()
    assert list((folder / "inbox").rglob("*.part")) == []
    assert archive.send(port)
    all_is_there(folder, archive)
    assert set(received(folder)) == set(map(stored, archive.contents))


def test_success_is_said_when_object_name_and_folder_are_on_disk_in_this_order(place):
    folder, port, start = place
    start()
    [content] = objects(1)
    assert send_one(port, folder, content) == 0x0000
    steps = [(e["crossing"], e["paths"]) for e in read_journal(folder / "journal") if "landing" in e["crossing"]]
    [path] = (folder / "inbox").rglob("*.dcm")
    names = [name for name, _ in steps]
    synced, renamed = names.index("after fsync in landing.sync"), names.index("before rename in landing._placed")
    assert synced < renamed
    assert steps[synced][1] == [steps[renamed][1][0]]
    assert steps[renamed][1][1] == str(path)
    after = [paths[0] for name, paths in steps[renamed:] if name == "after fsync in landing._sync"]
    assert after == [str(parent) for parent in path.parents[:4]]
    assert after[-1] == str(folder / "inbox")


def test_killed_at_random_moments(place):
    folder, port, start = place
    archive = Archive(folder, objects(30, 300, 300))
    sender = threading.Thread(target=archive.send, args=(port,))
    receiver = start()
    sender.start()
    for seconds in (0.15, 0.3):
        time.sleep(seconds)
        receiver.kill()
        all_is_there(folder, archive)
        receiver = start()
    sender.join(60)
    assert archive.left() == []
    all_is_there(folder, archive)
    assert receiver.process.poll() is None


def test_a_stop_answers_what_is_in_hand_and_takes_nothing_new(place):
    folder, port, start = place
    receiver = start()
    context = DX, [ExplicitVRLittleEndian]
    content = objects(1)[0]
    with association(port, context) as assoc, association(port, context) as idle:
        plain, command = assoc.dul.socket.socket, pdv(3, store_command("1.2.3"))
        assoc._reactor_checkpoint.clear()  # what comes is read here
        data = data_set(content)
        plain.sendall(command + pdv(0, data[:3000]))
        time.sleep(0.3)
        receiver.process.send_signal(signal.SIGTERM)
        assert until(lambda: not idle.is_established)
        with association(port, context) as late:
            assert not late.is_established
        plain.sendall(pdv(2, data[3000:]))
        assert until(assoc.dimse.msg_queue.qsize)
        _, answer = assoc.dimse.msg_queue.get()
        assert answer.Status == 0x0000
    assert receiver.process.wait(10) == 0
    assert [data_set(found) for found in received(folder)] == [data]
    assert receiver.said().rstrip().endswith("stopped")


def command(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "fracture_watch", *words, "--config", str(folder / "config.yaml")],
        cwd=REPOSITORY, env=ALONE, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_where_it_cannot_work_it_says_so_and_ends_with_two(place):
    folder, _, start = place
    start()
    done = command(folder, "receive")
    assert done.returncode == 2
    assert "(its receiver) is in use by process" in done.stderr


def test_the_whole_program_classifies_at_once_what_orthanc_sends(tmp_path, weights):
    port = free_port()
    receive = {"port": port, "ae_title": "WATCH", "peers": [{"ae_title": "PACS", "address": "127.0.0.1"}]}
    write_config(
        tmp_path, weights, dicom={"receive": receive}, filing={"min_free_mb": 0},
        inbox={"settle_seconds": 60.0, "give_up_seconds": 120.0, "rescan_seconds": 60.0},
    )  # fmt: skip
    # The watch of a folder begins a moment after that is made; what is put into it before has its quiet period.
    home = tmp_path / "inbox" / "dicom" / datetime.now(UTC).date().isoformat() / "PACS"
    home.mkdir(parents=True)
    program = Process(tmp_path)
    try:
        with orthanc(tmp_path / "pacs", peers={"watch": Peer("WATCH", port)}, aet="PACS") as pacs:
            ids = [pacs.post("/instances", content)["ID"] for content in objects(3)]
            program.ready()
            program.until(lambda: _woken(home, program), 30)
            answer = pacs.post("/modalities/watch/store", ids)
            assert (answer["InstancesCount"], answer["FailedInstancesCount"]) == (3, 0)
            question = "SELECT status, source_path, sha256 FROM results WHERE source_path LIKE '%.dcm'"
            # 60 seconds of quiet are not waited for: a renamed file that is whole is ready.
            found = program.until(lambda: _three(program.rows(question)), 30)
        assert {status for status, _, _ in found} == {"classified"}
        assert all(f"{tmp_path}/inbox/dicom/" in path and "/PACS/" in path for _, path, _ in found)
        assert {digest for _, _, digest in found} == {
            sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "processed").rglob("*.dcm")
        }
        status, body = _get(f"{program.page()}/readyz")
        assert (status, body["receiving"]["ae_title"]) == (200, "WATCH")
        assert body["receiving"]["address"] == f"127.0.0.1:{port}"
        with urllib.request.urlopen(f"{program.page()}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        assert "fracture_watch_dicom_received_total 3.0" in lines
        assert 'fracture_watch_dicom_refused_total{reason="calling_ae_title"} 0.0' in lines
        assert "fracture_watch_dicom_associations 0.0" in lines
        with association(port, called="WATCH", calling="STRANGER") as assoc:
            assert assoc.is_rejected
        assert program.stop() == 0
    finally:
        program.kill()


def _woken(folder, program):
    """Whether a file is classified at once: then the folder is watched."""
    (folder / "first.png").write_bytes(png(len(program.said())))
    return until(lambda: program.rows("SELECT 1 FROM results"), 1)


def _three(rows):
    return rows if len(rows) == 3 else None


@pytest.mark.parametrize(
    ("count", "kills"), [(40, 4), pytest.param(500, 20, marks=pytest.mark.slow)], ids=["40 objects", "500 objects"]
)
def test_receiver_and_daemon_are_killed_in_turn_and_every_object_has_one_result(place, count, kills):
    folder, port, start = place
    archive = Archive(folder, objects(count, 256, 256))
    sender = threading.Thread(target=archive.send, args=(port, 540))
    server = Server()
    order = {"config": str(folder / "config.yaml"), "at": "", "bug": "", "workers": 0}
    order |= {"journal": str(folder / "daemon journal"), "log": str(folder / "daemon log")}
    try:
        receiver, daemon = start(), Forked(server, order)
        sender.start()
        for number in range(kills):
            due = count * (number + 1) // (kills + 1)
            assert until(lambda due=due: len(archive.acknowledged) >= due, 120), receiver.said()[-3000:]
            if number % 2:
                receiver.kill()
                receiver = start()
            else:
                os.kill(daemon.pid, signal.SIGKILL)
                assert daemon.wait(10) == -signal.SIGKILL
                daemon = Forked(server, order)
        sender.join(540)
        assert archive.left() == []
        inbox = folder / "inbox"
        assert until(lambda: not list(inbox.rglob("*.dcm")), 120)
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.wait(30) == 0
    finally:
        server.close()
    results = Counter(
        digest
        for status, digest in Process.rows(_At(folder), "SELECT status, sha256 FROM results")
        if status == "classified"
    )
    assert results == Counter(sha256(stored(content)).hexdigest() for content in archive.contents)
    others = Process.rows(
        _At(folder), "SELECT status, code FROM results WHERE status NOT IN ('classified', 'duplicate')"
    )
    assert others == []
    assert list(inbox.rglob("*.part")) == []


class _At:
    """As much of a process as is needed to ask its database."""

    def __init__(self, folder):
        self.folder = folder
