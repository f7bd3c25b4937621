"""From a PACS and back to it: received, classified, reported, each once, whichever of the three is killed."""

import shutil
import subprocess
import threading
from collections import Counter
from hashlib import sha256

import numpy as np
import pytest
from pydicom import dcmread, uid

from fracture_watch.delivery.finding import object_uid
from fracture_watch.records import Kind
from tests.conftest import SHARED, needs, write_config
from tests.delivery.objects import read
from tests.dicoms import dicom
from tests.orthanc import Peer, free_port, orthanc
from tests.receive.peers import Archive, stored, until
from tests.receive.test_process import Receiving, objects
from tests.test_dicom_results import OUTBOX, RESULT, archive, fetched
from tests.test_end_to_end import Process

PROPOSED = {uid.ExplicitVRLittleEndian: "-xe", uid.JPEGLosslessSV1: "-xs", uid.JPEGLSNearLossless: "-xu"}


@pytest.fixture
def radiographs(tmp_path):
    """Two files as modalities send them: real ones where they are at hand."""
    folder = tmp_path / "radiographs"
    folder.mkdir()
    if (SHARED / "dicom").is_dir():
        for name in ("RG3_JPLL.dcm", "RG2_JLSN.dcm"):
            shutil.copy(SHARED / "dicom" / name, folder)
    else:
        for seed in (1, 2):
            (folder / f"{seed}.dcm").write_bytes(dicom(np.full((200, 100), 900 * seed, np.uint16), seed=seed))
    return sorted(folder.iterdir())


def storescu(port, path):
    syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    command = ["storescu", PROPOSED[syntax], "-aec", "FRACTURE_WATCH", "127.0.0.1", str(port), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_storescu_sends_has_its_report_and_picture_in_the_pacs(tmp_path, weights, radiographs):
    needs("storescu")
    port = free_port()
    with orthanc(tmp_path / "pacs", peers={"watch": Peer("FRACTURE_WATCH", port)}) as pacs:
        receive = {"port": port}
        write_config(tmp_path, weights, dicom={"receive": receive, "destinations": [archive(pacs.dicom_port)]})
        for path in radiographs:
            pacs.post("/instances", path.read_bytes())
        program = Process(tmp_path)
        try:
            program.ready()
            for path in radiographs:
                storescu(port, path)
            program.until(lambda: [row[2] for row in program.rows(OUTBOX)] == [1] * 4, 120)
            results = program.rows(RESULT)
            assert {row[3] for row in results} == {dcmread(path).SOPInstanceUID for path in radiographs}
            for _, digest, model, sop, study, _, patient, *_ in results:
                for kind in (Kind.SR, Kind.SC):
                    made = read(fetched(pacs, study, object_uid(kind, digest, model)))
                    assert (made.StudyInstanceUID, made.PatientID) == (study, patient)
                assert read(fetched(pacs, study, sop)).StudyInstanceUID == study  # beside the image itself
            pictures = [object_uid(Kind.SC, digest, model) for _, digest, model, *_ in results]
            found = [pacs.post("/tools/lookup", picture.encode())[0]["ID"] for picture in pictures]
            pacs.post("/modalities/watch/store", found)  # from a PACS that routes everything on
            program.until(lambda: program.rows("SELECT code FROM results WHERE code <> ''") == [("own_output",)] * 2)
            assert len(program.rows(RESULT)) == 2
            assert program.stop() == 0
        finally:
            program.kill()


@pytest.mark.slow
def test_receiver_watcher_and_pacs_are_killed_in_turn_and_each_object_has_one_result_and_one_report(tmp_path, weights):
    """500 objects; what was acknowledged has exactly one result, and exactly one SR in the archive."""
    count, kills, port = 500, 12, free_port()
    with orthanc(tmp_path / "pacs") as pacs:
        pass  # it has written its configuration, with which it is started again

    def store_started():
        return subprocess.Popen(["Orthanc", str(tmp_path / "pacs" / "orthanc.json")], stderr=subprocess.DEVNULL)

    write_config(
        tmp_path, weights, filing={"min_free_mb": 0},
        dicom={"receive": {"port": port}, "destinations": [archive(pacs.dicom_port, objects=["sr"])]},
        inbox={"settle_seconds": 0.1, "give_up_seconds": 5.0, "rescan_seconds": 1.0},
    )  # fmt: skip
    archived = Archive(tmp_path, objects(count))
    sender = threading.Thread(target=archived.send, args=(port, 900))
    watcher, receiver, store = Process(tmp_path, "watch"), Receiving(tmp_path), store_started()
    sent = "SELECT count(*) FROM outbox WHERE delivered_at IS NOT NULL"
    try:
        sender.start()
        for number in range(kills):
            due = count * (number + 1) // (kills + 1)
            assert until(lambda due=due: len(archived.acknowledged) >= due, 300), receiver.said()[-3000:]
            if number % 3 == 0:
                receiver.kill()
                receiver = Receiving(tmp_path)
            elif number % 3 == 1:
                watcher.kill()
                watcher = Process(tmp_path, "watch")
            else:
                store.kill()
                store.wait()
                store = store_started()
        sender.join(900)
        assert archived.left() == []
        watcher.until(lambda: (watcher.rows(sent) or [(0,)])[0][0] >= count, 900)
        instances = [pacs.get(f"/instances/{i}/simplified-tags")["SOPInstanceUID"] for i in pacs.get("/instances")]
        assert watcher.stop() == 0
    finally:
        watcher.kill()
        receiver.kill()
        store.kill()
        store.wait()
    results = watcher.rows(RESULT)
    assert Counter(row[1] for row in results) == Counter(sha256(stored(one)).hexdigest() for one in archived.contents)
    assert sorted(instances) == sorted(object_uid(Kind.SR, row[1], row[2]) for row in results)
