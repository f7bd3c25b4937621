"""Results as DICOM objects, from the inbox to a real PACS and back, with the page that describes them."""

import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import requests
import yaml
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import evt

from fracture_watch import assembly
from fracture_watch.cli import main
from fracture_watch.config import load_settings
from fracture_watch.delivery import sr
from fracture_watch.delivery.finding import object_uid
from fracture_watch.delivery.metrics import Metrics
from fracture_watch.delivery.shelf import Shelf
from fracture_watch.errors import InvalidSettings
from fracture_watch.records import Kind
from fracture_watch.times import as_utc
from tests.conftest import REPOSITORY, SHARED, png, write_config
from tests.delivery.objects import PIXELS, finding, read, source, verdict
from tests.delivery.test_dicom_objects import HAND, child
from tests.delivery.test_send import provider
from tests.dicoms import dicom
from tests.orthanc import free_port, orthanc
from tests.test_daemon import built, drop, files, rows, until, working
from tests.test_end_to_end import Process

PAGE = (REPOSITORY / "docs" / "dicom-results.md").read_text(encoding="utf-8")
OUTBOX = "SELECT kind, destination, delivered_at IS NOT NULL, attempts, last_error FROM outbox ORDER BY id"
RESULT = (
    "SELECT id, sha256, model_id, sop_instance_uid, study_uid, series_uid, patient_id, probability, threshold, "
    "prediction, completed_at, model_name FROM results WHERE status = 'classified'"
)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory, weights):
    settings = load_settings(write_config(tmp_path_factory.mktemp("runtime"), weights), {})
    with assembly.runtime(settings) as running:
        yield running


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def archive(port, **keys):
    return {"name": "pacs", "host": "127.0.0.1", "port": port, "ae_title": "ORTHANC"} | keys


def folder(path, **keys):
    path.mkdir(exist_ok=True)
    return {"name": "files", "folder": str(path)} | keys


@contextmanager
def started(place, weights, runtime, *destinations, **sections):
    """A daemon and its senders, and their metrics."""
    daemon = built(place, weights, runtime, dicom={"destinations": list(destinations)}, **sections)
    settings, stop, metrics = load_settings(place / "config.yaml", {}), threading.Event(), Metrics()
    with assembly.delivering(settings, metrics, stop), working(daemon):
        yield daemon, metrics


def run(*arguments, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fracture-watch", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


def fetched(pacs, study, instance):
    """One object, found by QIDO-RS and retrieved by WADO-RS."""
    query = {"SOPInstanceUID": instance}
    [found] = requests.get(f"{pacs.dicomweb}/studies/{study}/instances", query, timeout=30).json()
    series = found["0020000E"]["Value"][0]
    url = f"{pacs.dicomweb}/studies/{study}/series/{series}/instances/{instance}"
    answer = requests.get(url, headers={"Accept": "multipart/related; type=application/dicom"}, timeout=30)
    body = answer.content.split(b"\r\n\r\n", 1)[1]
    return body[: body.rindex(b"\r\n--")]


def test_real_files_become_objects_in_a_pacs_under_the_same_study(tmp_path, weights, runtime, pacs):
    if not (SHARED / "dicom").is_dir():
        pytest.skip(f"no sample files at {SHARED / 'dicom'}")
    names = ["RG3_JPLL.dcm", "RG2_JLSN.dcm"]
    originals = {name: (SHARED / "dicom" / name).read_bytes() for name in names}
    for content in originals.values():
        pacs.post("/instances", content)
    with started(tmp_path, weights, runtime, archive(pacs.dicom_port)):
        for name in names:
            shutil.copy(SHARED / "dicom" / name, tmp_path / "inbox" / name)
        assert until(lambda: [r[2] for r in rows(tmp_path, OUTBOX)] == [1] * 4, 90), rows(tmp_path, OUTBOX)
    for _, sha256, model, sop, study, series, patient, probability, threshold, prediction, at, name in rows(
        tmp_path, RESULT
    ):
        report = fetched(pacs, study, object_uid(Kind.SR, sha256, model))
        picture = fetched(pacs, study, object_uid(Kind.SC, sha256, model))
        for made in map(read, (report, picture)):
            assert (made.StudyInstanceUID, made.PatientID) == (study, patient)
            assert made.ContentDate + made.ContentTime == re.sub(r"[-:TZ]", "", at)
        assert verdict(report, tmp_path)[0] == verdict(picture, tmp_path)[0] == []
        group = child(child(read(report), "Imaging Measurements"), "Measurement Group")
        values = [
            child(group, c.meaning).MeasuredValueSequence[0].FloatingPointValue for c in (sr.PROBABILITY, sr.THRESHOLD)
        ]
        assert values == [probability, threshold]
        answer = child(group, "Fracture of bone").ConceptCodeSequence[0].CodeMeaning
        assert answer == ("Present" if prediction == "fractured" else "Absent")
        assert child(group, "Algorithm Name").TextValue == name
        [evidence] = read(report).CurrentRequestedProcedureEvidenceSequence
        [of_series] = evidence.ReferencedSeriesSequence
        assert of_series.SeriesInstanceUID == series
        assert of_series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == sop
        assert read(picture).SourceImageSequence[0].ReferencedSOPInstanceUID == sop


def test_sent_again_it_is_still_one_object(tmp_path, weights, runtime, pacs):
    """As after a kill -9 between the archive's answer and the note of it."""
    content = dicom(PIXELS, seed=77)
    study = read(content).StudyInstanceUID
    with started(tmp_path, weights, runtime, archive(pacs.dicom_port)):
        drop(tmp_path, "a.dcm", content)
        assert until(lambda: [r[2] for r in rows(tmp_path, OUTBOX)] == [1, 1], 60)
        with sqlite3.connect(tmp_path / "fracture_watch.db") as connection:
            connection.execute("UPDATE outbox SET delivered_at = NULL, next_attempt_at = created_at")
        assert until(lambda: [r[2:4] for r in rows(tmp_path, OUTBOX)] == [(1, 2), (1, 2)], 60)
    found = requests.get(f"{pacs.dicomweb}/studies/{study}/instances", timeout=30).json()
    assert len(found) == 2
    assert {i["00080016"]["Value"][0] for i in found} == {Comprehensive3DSRStorage, SecondaryCaptureImageStorage}


@pytest.mark.slow  # the same seam is broken by webhooks in every run
def test_a_daemon_that_is_killed_while_an_archive_stores_sends_it_again_and_loses_nothing(tmp_path, weights):
    stored, started_ = [], []

    def store(event):
        stored.append(event.dataset)
        if len(stored) == 1:
            os.kill(started_[0].process.pid, signal.SIGKILL)
        return 0x0000

    contents = [dicom(PIXELS + number, seed=number) for number in range(3)]
    with provider((evt.EVT_C_STORE, store)) as port:
        write_config(tmp_path, weights, dicom={"destinations": [archive(port)]})
        for number, content in enumerate(contents):
            drop(tmp_path, f"{number}.dcm", content)
        try:
            started_.append(Process(tmp_path, "watch"))
            started_[0].process.wait(60)
            assert len(stored) == 1
            started_.append(Process(tmp_path, "watch"))
            done = "SELECT count(*) FROM outbox WHERE delivered_at IS NOT NULL"
            started_[1].until(lambda: started_[1].rows(done) == [(6,)])
            assert started_[1].stop() == 0, started_[1].said()
        finally:
            for process in started_:
                process.kill()
    assert len(rows(tmp_path, RESULT)) == 3
    once = {dataset.SOPInstanceUID: dataset for dataset in stored}
    assert len(once) == 6
    assert len(stored) == 7
    [again] = [d for d in stored[1:] if d.SOPInstanceUID == stored[0].SOPInstanceUID]
    assert again == stored[0]
    wanted = [(kind, r[1], r[2]) for r in rows(tmp_path, RESULT) for kind in (Kind.SR, Kind.SC)]
    assert set(once) == {object_uid(*what) for what in wanted}


@pytest.mark.slow
def test_daemon_and_archive_are_killed_again_and_again_and_each_object_is_there_once(tmp_path, weights):
    port, http, number = free_port(), free_port(), 16
    with orthanc(tmp_path / "orthanc", dicom_port=port, http_port=http) as pacs:
        pass  # it has written its configuration, with which it is started again

    def archive_started():
        return subprocess.Popen(["Orthanc", str(tmp_path / "orthanc" / "orthanc.json")], stderr=subprocess.DEVNULL)

    write_config(tmp_path, weights, dicom={"destinations": [archive(port)]})
    for n in range(number):
        drop(tmp_path, f"{n}.dcm", dicom(PIXELS + n, seed=n))
    store, daemon = archive_started(), Process(tmp_path, "watch")
    delivered = "SELECT count(*) FROM outbox WHERE delivered_at IS NOT NULL"

    def wait_for(running, count):
        running.until(lambda: (running.rows(delivered) or [(0,)])[0][0] >= count, 180)

    try:
        for round_ in range(4):
            wait_for(daemon, 2 * number * (round_ + 1) // 6)
            store.kill()
            store.wait()
            if round_ % 2:
                daemon.kill()
                daemon = Process(tmp_path, "watch")
            store = archive_started()
        wait_for(daemon, 2 * number)
        instances = [pacs.get(f"/instances/{i}/simplified-tags")["SOPInstanceUID"] for i in pacs.get("/instances")]
    finally:
        store.kill()
        store.wait()
        daemon.kill()
    assert len(rows(tmp_path, RESULT)) == number
    wanted = [object_uid(kind, r[1], r[2]) for r in rows(tmp_path, RESULT) for kind in (Kind.SR, Kind.SC)]
    assert sorted(instances) == sorted(wanted)


def test_rules_say_which_objects_of_which_predictions_go_where(tmp_path, weights, runtime):
    reports = folder(tmp_path / "reports", name="reports", objects=["sr"])
    never = folder(tmp_path / "other", name="other", predictions=["fractured"])
    both = folder(tmp_path / "both", name="both", objects=["sc"], predictions=["not fractured"])
    with started(tmp_path, weights, runtime, reports, never, both):
        drop(tmp_path, "a.dcm", dicom(PIXELS))
        assert until(lambda: rows(tmp_path, OUTBOX) and all(r[2] for r in rows(tmp_path, OUTBOX)), 60)
    [(prediction,)] = rows(tmp_path, "SELECT prediction FROM results")
    wanted = {"dicom:reports": ["sr"]}
    wanted |= {"dicom:other": ["sr", "sc"]} if prediction == "fractured" else {"dicom:both": ["sc"]}
    got = {}
    for kind, destination, *_ in rows(tmp_path, OUTBOX):
        got.setdefault(destination, []).append(kind)
    assert got == wanted
    [report] = (tmp_path / "reports").iterdir()
    assert dcmread(report).Modality == "SR"


def test_a_picture_without_uids_is_recorded_and_says_why_it_has_no_objects(tmp_path, weights, runtime):
    with started(tmp_path, weights, runtime, folder(tmp_path / "out")):
        drop(tmp_path, "a.png", png(1))
        assert until(lambda: rows(tmp_path, "SELECT status FROM results") == [("classified",)], 60)
    [(notes,)] = rows(tmp_path, "SELECT notes FROM results")
    assert "no DICOM objects: the file has no UIDs that they could refer to" in notes
    assert rows(tmp_path, OUTBOX) == []
    assert files(tmp_path / "out") == []


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_no_object_can_refer_to_is_recorded_all_the_same(tmp_path, weights, runtime):
    with started(tmp_path, weights, runtime, folder(tmp_path / "out")):
        drop(tmp_path, "a.dcm", dicom(PIXELS, StudyInstanceUID="1.02.3"))
        assert until(lambda: rows(tmp_path, "SELECT status FROM results") == [("classified",)], 60)
    [(notes,)] = rows(tmp_path, "SELECT notes FROM results")
    assert "no DICOM objects: it has no valid StudyInstanceUID" in notes
    assert rows(tmp_path, OUTBOX) == []


def test_a_dead_archive_holds_up_nothing_and_gets_everything_when_it_is_back(tmp_path, weights, runtime):
    port = free_port()
    with started(tmp_path, weights, runtime, archive(port), folder(tmp_path / "out")) as (daemon, _):
        for number in range(4):
            drop(tmp_path, f"{number}.dcm", dicom(PIXELS + number, seed=number))
        assert until(lambda: len(files(tmp_path / "processed")) == 4, 60)
        assert until(lambda: len(files(tmp_path / "out")) == 8, 60)
        assert daemon.status.paused is None
        waits = [r for r in rows(tmp_path, OUTBOX) if r[1] == "dicom:pacs"]
        assert len(waits) == 8
        assert not any(r[2] for r in waits)
        assert until(lambda: any(r[4] and "cannot be reached" in r[4] for r in rows(tmp_path, OUTBOX)), 30)
        with orthanc(tmp_path / "orthanc", dicom_port=port) as late:
            assert until(lambda: len(late.get("/instances")) == 8, 60), rows(tmp_path, OUTBOX)
        assert until(lambda: all(r[2] for r in rows(tmp_path, OUTBOX)), 20)


def test_without_room_for_its_objects_nothing_is_recorded_and_intake_resumes_by_itself(tmp_path, weights, runtime):
    content = dicom(PIXELS)
    sha256, model = hashlib.sha256(content).hexdigest(), runtime.classifier.card.facts.id
    path = Shelf(tmp_path / "artefacts").path(Kind.SR, sha256, model)
    obstacle = path.with_name(f".{path.name}.part")  # root writes everywhere but there
    obstacle.mkdir(parents=True)
    with started(tmp_path, weights, runtime, folder(tmp_path / "out")) as (daemon, _):
        drop(tmp_path, "a.dcm", content)
        assert until(lambda: daemon.status.paused, 60)
        assert daemon.status.paused.startswith(f"storage_unavailable: the DICOM object {path} cannot be written")
        assert rows(tmp_path, RESULT) == []
        obstacle.rmdir()
        assert until(lambda: len(files(tmp_path / "out")) == 2, 60)
        assert until(lambda: daemon.status.paused is None)
    assert len(rows(tmp_path, RESULT)) == 1


def test_originals_may_be_deleted_and_prune_takes_the_objects(tmp_path, weights, runtime, capsys, monkeypatch):
    with started(tmp_path, weights, runtime, folder(tmp_path / "out"), filing={"processed": "delete"}):
        drop(tmp_path, "a.dcm", dicom(PIXELS))
        assert until(lambda: len(files(tmp_path / "out")) == 2, 60)
        assert until(lambda: rows(tmp_path, "SELECT filed FROM file") == [(1,)])
        assert not files(tmp_path / "processed")
    kept = [name for name in files(tmp_path / "artefacts") if name.endswith(".dcm")]
    assert len(kept) == 2
    with sqlite3.connect(tmp_path / "fracture_watch.db") as connection:
        old = as_utc(datetime.now(UTC) - timedelta(days=9))
        connection.execute("UPDATE file SET completed_at = ?", (old,))
    prune = ("prune", "--older-than", "8d", "--yes", "--config", tmp_path / "config.yaml")
    assert run(*prune, capsys=capsys, monkeypatch=monkeypatch)[0] == 0
    assert files(tmp_path / "artefacts") == []


def test_what_comes_back_to_the_inbox_is_own_output(tmp_path, weights, runtime):
    out = tmp_path / "out"
    with started(tmp_path, weights, runtime, folder(out)):
        drop(tmp_path, "a.dcm", dicom(PIXELS))
        assert until(lambda: len([n for n in files(out) if not n.startswith(".")]) == 2, 60)
        for path in out.iterdir():
            shutil.copy(path, tmp_path / "inbox" / path.name)
        query = "SELECT status, code FROM results ORDER BY id"
        assert until(lambda: len(rows(tmp_path, query)) == 3, 60)
        assert rows(tmp_path, query)[1:] == [("rejected", "own_output")] * 2
        assert len(rows(tmp_path, OUTBOX)) == 2


def test_trace_doctor_and_metrics_show_each_object(tmp_path, weights, runtime, capsys, monkeypatch):
    port = free_port()
    with started(tmp_path, weights, runtime, archive(port), folder(tmp_path / "out")) as (_, metrics):
        drop(tmp_path, "a.dcm", dicom(PIXELS))
        assert until(lambda: len(files(tmp_path / "out")) == 2, 60)
        assert until(lambda: any(r[4] for r in rows(tmp_path, OUTBOX)), 30)
        said = metrics.text().decode()
    assert 'fracture_watch_outbox_waiting{destination="dicom:pacs"} 2.0' in said
    config = ("--config", tmp_path / "config.yaml")
    _, said, _ = run("trace", "1", *config, capsys=capsys, monkeypatch=monkeypatch)
    assert re.search(r"delivered: SR of result 1 to dicom:files \(.*\) at attempt 1", said)
    assert re.search(r"delivered: SC of result 1 to dicom:files", said)
    assert re.search(r"to be delivered: SR of result 1 to dicom:pacs .*cannot be reached", said)
    _, said, _ = run("doctor", "--json", *config, capsys=capsys, monkeypatch=monkeypatch)
    checks = {check["name"]: check for check in yaml.safe_load(said)["checks"]}
    pacs, place = checks["dicom:pacs"], checks["dicom:files"]
    assert (pacs["ok"], place["ok"]) == (False, True)
    assert pacs["detail"].startswith(f"sr and sc to ORTHANC at 127.0.0.1:{port}, any answer; 2 deliveries wait")
    assert place["detail"] == f"sr and sc to {tmp_path / 'out'}, any answer; nothing waits"
    assert {"dicom.destinations", "dicom:pacs", "dicom:files"} <= set(checks)
    assert checks["dicom.destinations"]["ok"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, weights, runtime):
    place = tmp_path_factory.mktemp("export")
    with working(built(place, weights, runtime)):
        drop(place, "a.dcm", dicom(PIXELS))
        assert until(lambda: len(files(place / "processed")) == 1, 60)
        drop(place, "b.png", png(3))
        drop(place, "copy.dcm", dicom(PIXELS))
        drop(place, "c.txt", b"text")
        assert until(lambda: len(rows(place, "SELECT id FROM results")) == 4, 60)
        assert until(lambda: not files(place / "inbox") or files(place / "inbox") == [".fracture_watch.lock"])
    return place


def export(place, *arguments, **parts):
    return run("export", *arguments, "--config", place / "config.yaml", "--output", place / "exported", **parts)


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_what_was_not_built_is_built_anew(place, kind, tmp_path, capsys, monkeypatch):
    code, said, _ = export(place, kind, 1, capsys=capsys, monkeypatch=monkeypatch)
    assert (code, said.strip()) == (0, str(place / "exported" / f"1.{kind}.dcm"))
    content = (place / "exported" / f"1.{kind}.dcm").read_bytes()
    assert verdict(content, tmp_path)[0] == []
    [(_, sha256, model, *_)] = [row for row in rows(place, RESULT) if row[0] == 1]
    assert read(content).SOPInstanceUID == object_uid(Kind(kind), sha256, model)


def test_what_cannot_be_exported_says_why(place, capsys, monkeypatch):
    ids = dict(rows(place, "SELECT source_path, id FROM results"))
    by_name = {path.rsplit("/", 1)[1]: file_id for path, file_id in ids.items()}
    asked = [1, by_name["b.png"], by_name["copy.dcm"], by_name["c.txt"], 99]
    code, said, why = export(place, "sr", *asked, capsys=capsys, monkeypatch=monkeypatch)
    assert (code, said.count("\n")) == (1, 1)
    assert f"result {by_name['b.png']}: its image has no UIDs" in why
    assert f"result {by_name['copy.dcm']}: it is a duplicate of result 1; export that" in why
    assert f"result {by_name['c.txt']}: it has no prediction: it is rejected, not_an_image" in why
    assert "result 99: there is no such result" in why
    assert "Traceback" not in why


def test_an_image_that_is_gone_is_said(place, capsys, monkeypatch):
    [filed] = (place / "processed").glob("a.dcm")
    hidden = filed.rename(filed.with_name("hidden"))
    try:
        code, _, why = export(place, "sr", 1, capsys=capsys, monkeypatch=monkeypatch)
    finally:
        hidden.rename(filed)
    assert code == 1
    assert f"its image is not at {filed} any more; put that back first" in why


def test_json_tells_a_program(place, capsys, monkeypatch):
    code, said, _ = export(place, "sr", 1, 99, "--json", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 1
    first, second = map(yaml.safe_load, said.splitlines())
    assert (first["id"], first["detail"]) == (1, None)
    assert (second["id"], second["file"]) == (99, None)


def test_hidden_identifiers_are_not_given_out(place, capsys, monkeypatch):
    monkeypatch.setenv("FRACTURE_WATCH__PRIVACY__IDENTIFIERS", "drop")
    code, _, why = export(place, "sr", 1, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "a DICOM object names its patient and study" in why


def test_what_was_built_and_what_is_built_anew_are_the_same_bytes(tmp_path, weights, runtime):
    """From the row, long after: export says what was sent."""
    with started(tmp_path, weights, runtime, folder(tmp_path / "out", objects=["sr"])):
        drop(tmp_path, "a.dcm", dicom(PIXELS))
        assert until(lambda: len(files(tmp_path / "out")) == 1 and files(tmp_path / "processed") == ["a.dcm"], 60)
    [sent] = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    for kept in (tmp_path / "artefacts").rglob("*.dcm"):
        kept.unlink()
    settings = load_settings(tmp_path / "config.yaml", {})
    from fracture_watch.results.queries import one

    with closing(assembly.open_database(settings)) as database, assembly.exporting(settings, Kind.SR) as exporter:
        assert exporter.object(one(database, 1), Kind.SR) == sent


def refused(place, weights, **sections):
    with pytest.raises(InvalidSettings) as error:
        load_settings(write_config(place, weights, **sections), {})
    return error.value.detail


@pytest.mark.parametrize(
    ("destination", "said"),
    [
        ({"name": "x"}, "name either a folder, or the host, port and ae_title"),
        ({"name": "x", "host": "h", "port": 104}, "name either a folder, or the host, port and ae_title"),
        ({"name": "x", "folder": "a", "host": "h", "port": 104, "ae_title": "A"}, "name a folder or an archive, not"),
        ({"name": "x", "host": "h", "port": 104, "ae_title": "A" * 17}, "1 to 16 ASCII characters"),
        ({"name": "x", "host": "h", "port": 0, "ae_title": "A"}, "greater than or equal to 1"),
        ({"name": "x", "folder": "a", "objects": []}, "at least 1 item"),
        ({"name": "x", "folder": "a", "objects": ["ko"]}, "'sr' or 'sc'"),
        ({"name": "a b", "folder": "a"}, "should match pattern"),
        ({"name": "x", "folder": "inbox/out"}, "lies inside inbox.path"),
    ],
)
def test_destinations_that_cannot_work_are_refused(tmp_path, weights, destination, said):
    assert said in refused(tmp_path, weights, dicom={"destinations": [destination]})


def test_two_destinations_of_one_name_are_refused(tmp_path, weights):
    same = [{"name": "x", "folder": "a"}, {"name": "x", "folder": "b"}]
    assert "2 destinations are called x" in refused(tmp_path, weights, dicom={"destinations": same})


@pytest.mark.parametrize("identifiers", ["hash", "drop"])
def test_hidden_identifiers_and_destinations_are_refused_at_the_start(tmp_path, weights, identifiers):
    dicom = {"destinations": [{"name": "x", "folder": "a"}]}
    said = refused(tmp_path, weights, dicom=dicom, privacy={"identifiers": identifiers, "salt": "s" * 20})
    assert "dicom.destinations want privacy.identifiers: keep" in said
    assert "belong" in said or "files an object by its patient and study" in said


def test_the_example_of_the_page_is_a_configuration(tmp_path, weights):
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    settings = load_settings(write_config(tmp_path, weights, **yaml.safe_load(example)), {})
    assert [assembly.destination_name(d) for d in settings.dicom.destinations] == ["dicom:pacs", "dicom:research"]


def test_the_page_names_every_content_item_with_its_code_and_no_other():
    content, evidence = source(AnatomicRegionSequence=[HAND])
    made = read(sr.report(finding(content), evidence))
    present = read(sr.report(finding(content, probability=0.01), evidence))
    written = set(re.findall(r"\b(\w+), (?:DCM|SCT|99FWATCH)\b", _numbers(PAGE)))
    used = set(_codes(made)) | set(_codes(present))
    # Named once for all: who observes, in which language, what contains, and what tracks.
    aside = {"121005", "121007", "121049", "en-US", "126010", "126200", "112039", "112040", "260753009", "85562004"}
    assert used - aside == written


def _numbers(page):
    """Ranges and lists of codes, spelled out."""
    page = page.replace("121012 to 121016, DCM", ", ".join(f"{n}, DCM" for n in range(121012, 121017)))
    return page.replace("111001, 111003, 111002, DCM", "111001, DCM, 111003, DCM, 111002, DCM")


def _codes(container):
    for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
        for code in container.get(keyword, ()):
            yield code.CodeValue
    for item in container.get("ContentSequence", ()):
        yield from _codes(item)


def test_missing_packages_are_named_before_anything_starts(tmp_path, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    write_config(tmp_path, weights, dicom={"destinations": [{"name": "x", "folder": "out"}]})
    settings, stop = load_settings(tmp_path / "config.yaml", {}), threading.Event()
    with pytest.raises(InvalidSettings) as error, assembly.delivering(settings, Metrics(), stop):
        pass
    assert "dicom.destinations needs highdicom: pip install 'fracture-watch[pacs]'" in error.value.detail
    with pytest.raises(InvalidSettings), assembly.exporting(settings, Kind.SR):
        pass
