"""Commands over results whose identifiers are hashed or dropped: they go on working, or say why not."""

import json

import numpy as np
import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from tests.conftest import png, write_config
from tests.dicoms import dicom
from tests.test_daemon import drop, files, rows, until, working

PIXELS = np.full((40, 30), 7, np.uint16)
NAME = "study of ANA/ANA.dcm"
LETTERS = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


@pytest.fixture(scope="module", params=["hash", "drop"])
def identifiers(request):
    return request.param


def configured(folder, weights, identifiers):
    return write_config(folder, weights, privacy={"identifiers": identifiers, "salt": "sixteen characters!"})


@pytest.fixture
def config(tmp_path, weights, identifiers):
    return configured(tmp_path, weights, identifiers)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory, weights, identifiers):
    settings = load_settings(configured(tmp_path_factory.mktemp("runtime"), weights, identifiers), {})
    with assembly.runtime(settings) as running:
        yield running


@pytest.fixture
def processed(config, runtime):
    """Let a daemon work until so many results are recorded, and nothing that is to be moved is left."""

    def run(count=1, left=(), **environment):
        settings = load_settings(config, environment)
        database = assembly.open_database(settings)
        with working(assembly.daemon(settings, runtime, database)):
            assert until(lambda: rows(config.parent, "SELECT count(*) FROM file WHERE filed") == [(count,)])
            assert files(config.parent / "inbox") == sorted(left)
        database.close()

    return run


def told(out):
    return [json.loads(line) for line in out.splitlines()]


def test_a_scan_names_no_file_and_passes_over_what_it_knows(fw, tmp_path):
    folder = tmp_path / "archive of ANA"
    folder.mkdir()
    (folder / "ANA.png").write_bytes(png(1))
    (folder / "ANA.txt").write_text("DICM ANA")
    (folder / "ANA.dcm").write_bytes(dicom(PIXELS, PatientID="ANA", Modality="ANA"))
    _, out, log = fw("scan", folder, "--json")
    assert {record["code"] for record in told(out)[:-1]} == {None, "not_an_image", "out_of_scope"}
    assert "ANA" not in out + log
    _, out, _ = fw("scan", folder)
    assert "3 skipped" in out.replace("\n", " ")
    assert "ANA" not in out
    assert rows(tmp_path, "SELECT count(*) FROM results WHERE status = 'classified'") == [(1,)]
    _, out, _ = fw("trace", folder / "ANA.png", "--json")
    steps = told(out)[0]["steps"]
    assert [step["what"] for step in steps] == ["received", "classified", "is there", "next"]
    assert "that is not recorded (privacy.identifiers)" in steps[-1]["detail"]


def test_what_was_filed_is_traced_and_put_back(fw, config, processed):
    folder = config.parent
    drop(folder, NAME, dicom(PIXELS, Modality="CT"))
    processed()
    [(place,)] = rows(folder, "SELECT filed_path FROM results")
    for wanted in ("1", place):
        code, out, _ = fw("trace", wanted)
        assert code == 0
        assert "ANA" not in out
        assert "rejected: out_of_scope" in out
    code, out, _ = fw("retry", "--all")
    assert code == 0
    [back] = files(folder / "inbox")
    assert back.endswith(".dcm")
    assert len(back) == len("0" * 64 + ".dcm")
    assert files(folder / "quarantine") == []


def test_a_path_that_is_gone_is_known_by_its_hash_alone(fw, config, processed, identifiers):
    drop(config.parent, NAME, png(3))
    processed()
    code, out, _ = fw("trace", config.parent / "inbox" / NAME)
    assert ("not fractured" in out or "fractured" in out) == (identifiers == "hash")
    assert "classified" in out if identifiers == "hash" else code == 0
    assert ("names are not recorded" in out) == (identifiers == "drop")
    assert "was received" not in out


@LETTERS
@pytest.mark.parametrize(("keyword", "value"), [("AccessionNumber", "ANA-17"), ("StudyInstanceUID", "ANA.1")])
def test_an_accession_number_or_a_uid_is_known_by_its_hash_alone(fw, config, processed, identifiers, keyword, value):
    drop(config.parent, NAME, dicom(PIXELS, **{keyword: value}))
    processed()
    code, out, _ = fw("trace", value)
    assert ("classified" in out, code) == ((True, 0) if identifiers == "hash" else (False, 1))


@LETTERS
def test_the_worklist_is_searched_by_what_people_know(config, processed, runtime, identifiers):
    ids = {"PatientID": "ANA", "AccessionNumber": "ANA-17", "StudyInstanceUID": "ANA.1"}
    drop(config.parent, NAME, dicom(PIXELS, **ids))
    processed()
    settings = load_settings(config, {})
    database = assembly.open_database(settings)
    pages = assembly.website(settings, runtime, database, None).test_client()
    found = {
        typed: "/files/1?" in pages.get("/", query_string={"q": typed}).get_data(as_text=True)
        for typed in (*ids.values(), NAME, str(config.parent / "inbox" / NAME), "BEA")
    }
    assert [typed for typed in found if found[typed]] == ([*found][:-1] if identifiers == "hash" else [])
    [(key,)] = rows(config.parent, "SELECT study_uid FROM studies")
    assert "/files/1?" in pages.get("/", query_string={"q": key[:20]}).get_data(as_text=True)
    database.close()


def test_a_patient_is_erased_where_rows_know_the_patient(fw, config, processed, identifiers):
    folder = config.parent
    drop(folder, NAME, dicom(PIXELS, PatientID="ANA"))
    drop(folder, "BEA.dcm", dicom(PIXELS, PatientID="BEA", seed=2))
    processed(2)
    code, out, error = fw("prune", "--patient", "ANA", "--yes")
    if identifiers == "drop":
        assert (code, "privacy.identifiers is drop" in error) == (2, True)
        return
    assert "removed 1 results and 2 files" in out
    assert len(files(folder / "processed")) == 1
    assert rows(folder, "SELECT count(*) FROM results") == [(1,)]


def test_files_that_stay_in_the_inbox_are_classified_once(fw, config, processed):
    drop(config.parent, NAME, png(4))
    processed(1, left=[NAME], FRACTURE_WATCH__FILING__PROCESSED="keep")
    drop(config.parent, "late.png", png(5))
    processed(2, left=[NAME, "late.png"], FRACTURE_WATCH__FILING__PROCESSED="keep")  # a new start, which remembers
    assert rows(config.parent, "SELECT status FROM results") == [("classified",)] * 2


def test_a_patient_is_erased_in_the_inbox_too_and_what_is_old_there_stays(
    fw, config, processed, identifiers, monkeypatch
):
    monkeypatch.setenv("FRACTURE_WATCH__FILING__PROCESSED", "keep")
    drop(config.parent, NAME, dicom(PIXELS, PatientID="ANA"))
    processed(1, left=[NAME], FRACTURE_WATCH__FILING__PROCESSED="keep")
    _, out, _ = fw("prune", "--older-than", "0h", "--yes")
    assert "1 results stay, because their file stays in the inbox" in out
    fw("prune", "--patient", "ANA", "--yes")
    assert files(config.parent / "inbox") == ([] if identifiers == "hash" else [NAME])
    assert rows(config.parent, "SELECT count(*) FROM results") == [(0 if identifiers == "hash" else 1,)]
