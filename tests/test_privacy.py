"""Identifiers are kept, hashed or dropped: marked files go through the whole program, and all that it wrote is read."""

import contextlib
import csv
import io
import re
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.datadict import DicomDictionary

from fracture_watch.cli import app
from fracture_watch.errors import FractureWatchError
from tests.conftest import write_config
from tests.dicoms import dicom
from tests.test_end_to_end import Process

ROUTES = (
    "/ /?q=hand /files/1?q=hand /metrics /readyz /api/results /api/results/1 /api/results?status=failed /api/status"
).split()
CANARY, CANARY_UID = "CANARY", "1.2.999.31415926"
SALT = "a secret that only the tests know"
PIXELS = (np.add.outer(np.arange(200), np.arange(150)) * 8 % 4096).astype(np.uint16)
TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
DECIDES = (  # what the picture or its acceptance hangs on
    "PhotometricInterpretation PresentationIntentType PresentationLUTShape PixelPresentation ShutterShape SOPClassUID "
    "ManufacturerModelName Modality BodyPartExamined SpecificCharacterSet"
).split()


def marked(seed: int, **elements) -> bytes:
    """A sound radiograph with a marked value in every text and UID that DICOM knows outside of sequences."""
    texts = {}
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if retired or not keyword or keyword in DECIDES or group in (0, 2, 4) or group >= 0x5000:
            continue
        if vr in TEXT:
            texts[keyword] = f"{CANARY}{seed}"
        elif vr == "UI":
            texts[keyword] = f"{CANARY_UID}.{seed}"
    code = Dataset()
    code.CodeMeaning = f"{CANARY} {seed} of the hand"
    texts |= {"ViewCodeSequence": [code], "PatientName": f"{CANARY}^Ana", "Laterality": "L"}
    return dicom(
        PIXELS + seed, seed=seed, **(texts | {"ImageLaterality": f"{CANARY}", "ViewPosition": None} | elements)
    )


FILES = {
    "sound": {},
    "body": {"BodyPartExamined": f"HAND {CANARY}"},  # accepted, since it contains HAND
    "scope": {"Modality": CANARY},
    "photometric": {"PhotometricInterpretation": CANARY},
    "class": {"SOPClassUID": f"{CANARY_UID}.9", "PixelData": None, "Rows": None},
    "shutter": {"ShutterShape": CANARY},
    "presentation": {"PresentationIntentType": "FOR PROCESSING"},
}


@pytest.fixture(scope="module", params=["keep", "hash", "drop"])
def world(request, tmp_path_factory, weights):
    """A daemon that has gone through the marked files, and all that came of it."""
    folder = tmp_path_factory.mktemp(request.param)
    privacy = {"identifiers": request.param} | ({"salt": SALT} if request.param == "hash" else {})
    log = {"format": "text" if request.param == "hash" else "json"}
    inbox = {"give_up_seconds": 1.0}
    write_config(folder, weights, filing={"receipts": True}, logging=log, privacy=privacy, inbox=inbox)
    inbox = folder / "inbox" / f"{CANARY} Ana"
    inbox.mkdir(parents=True)
    for number, (name, elements) in enumerate(FILES.items()):
        (inbox / f"{CANARY}^{name}.dcm").write_bytes(marked(number, **elements))
    (inbox / f"{CANARY} again.dcm").write_bytes(marked(0))
    (inbox / f"{CANARY}.txt").write_bytes(f"DICM {CANARY}".encode())
    (inbox / f"{CANARY} cut.dcm").write_bytes(marked(50)[:-5000])
    daemon = Process(folder)
    try:
        daemon.until(lambda: daemon.rows(f"SELECT 1 FROM results LIMIT 1 OFFSET {len(FILES) + 2}"))
        daemon.until(lambda: not [p for p in inbox.parent.rglob("*") if p.is_file() and p.name[0] != "."])
        url = re.search(r"http://[\d.:]+", daemon.said())[0]
        answers = [urllib.request.urlopen(f"{url}{route}").read() for route in ROUTES]
        answers += [predicted(url, marked(70)), predicted(url, marked(71, PhotometricInterpretation=CANARY))]
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    return folder, request.param, b"\n".join(answers)


def predicted(url: str, content: bytes) -> bytes:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s.dcm"\r\n\r\n%b\r\n--b--\r\n'
    asked = urllib.request.Request(f"{url}/predict", body % (CANARY.encode(), content))
    asked.add_header("Content-Type", "multipart/form-data; boundary=b")
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def run(*arguments: object) -> str:
    """What a command prints; it runs in this process, since to load the program takes longer than all it does here."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            app([str(argument) for argument in arguments], standalone_mode=False)
        except FractureWatchError as error:
            out.write(error.detail)
    return out.getvalue()


def written(folder: Path) -> dict[str, bytes]:
    """Every name outside of the inbox, and every byte but those of the settings and of the files that were sent."""
    texts = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] != "inbox":
            content = b"" if path.is_dir() or path.name == "config.yaml" else path.read_bytes()
            was_sent = b"DICM" in content[:132]
            texts[str(relative)] = str(relative).encode() + (b"" if was_sent else content)
    return texts


def test_nothing_that_identifies_is_written_or_answered(world):
    folder, identifiers, answers = world
    config = ("--config", folder / "config.yaml")
    texts = written(folder) | {"answers": answers}
    texts |= {form: run("results", *config, "--format", form).encode() for form in ("csv", "json", "jsonl", "table")}
    texts["trace"] = run("trace", "1", *config, "--json").encode()
    marks = [CANARY.encode(), CANARY.title().encode(), CANARY.lower().encode()]
    marks += [CANARY_UID.encode()] if identifiers == "drop" else []
    found = {name for name, text in texts.items() if any(mark in text for mark in marks)}
    if identifiers == "keep":
        assert {"fracture_watch.db", "csv", "json", "jsonl", "answers", "trace"} <= found
        assert b"Prediction" in answers  # the page was there
    else:
        assert found == set()


def test_no_log_line_of_a_file_that_went_well_names_it(world):
    folder, _, _ = world
    well = [
        line for line in (folder / "log").read_text().splitlines() if re.search(r" INFO |\"level\": \"info\"", line)
    ]
    assert len([line for line in well if "probability" in line]) == 3
    assert CANARY not in "".join(well)


def test_every_file_has_its_row_and_its_file_is_found_again(world):
    folder, identifiers, _ = world
    with sqlite3.connect(folder / "fracture_watch.db") as connection:
        rows = connection.execute("SELECT status, code, filed_path, patient_id, study_uid FROM results").fetchall()
        studies = connection.execute("SELECT study_uid FROM studies").fetchall()
    assert len(rows) == len(FILES) + 3
    assert {code for _, code, *_ in rows} >= {
        None, "out_of_scope", "corrupt", "no_pixel_data", "not_for_presentation", "not_an_image", "truncated"
    }  # fmt: skip
    assert all(Path(row[2]).exists() and Path(f"{row[2]}.json").exists() for row in rows)
    patients = {row[3] for row in rows if row[0] == "classified"}
    assert {"keep": len(patients) == 3, "hash": len(patients) == 3, "drop": patients == {None}}[identifiers]
    assert all(uid.startswith("sha256:") == (identifiers == "drop") for (uid,) in studies)


def test_a_patient_is_asked_for_by_the_id_that_people_know(world):
    folder, identifiers, _ = world
    config = ("--config", folder / "config.yaml", "--patient", f"{CANARY}0")
    told = run("results", *config, "--format", "csv"), run("prune", *config)
    if identifiers == "drop":
        assert all("privacy.identifiers is drop" in text for text in told)
    else:
        assert len(list(csv.reader(io.StringIO(told[0])))) == 3  # the header, the result, its duplicate
        assert "would remove 2 results" in told[1]
