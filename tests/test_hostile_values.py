"""Hostile values in headers and names, through every place that holds or shows them; docs/security.md has the table."""

import csv
import io
import json
import logging
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fracture_watch.cli.common import _JsonLines, _TextLines
from fracture_watch.cli.query import _write_table
from fracture_watch.delivery.exports import log_line, write_csv, write_json, write_jsonl
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.reader import open_image
from fracture_watch.intake.filing import Filing
from fracture_watch.intake.tree import Tree, scan
from fracture_watch.outcomes import Classified, Rejected
from fracture_watch.pipeline import Pipeline
from fracture_watch.records import Label, ModelFacts, Prediction
from fracture_watch.results.database import Database
from fracture_watch.results.queries import COLUMNS, Filter, results
from fracture_watch.results.store import Store
from fracture_watch.results.trail import trail
from fracture_watch.texts import json_text
from tests.conftest import REPOSITORY
from tests.dicoms import dicom
from tests.test_pipeline import CountingClassifier, prepared
from tests.web.test_app import client, send

TEMPLATES = REPOSITORY / "fracture_watch" / "web" / "templates"
PAGE = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
VALUES = {  # as docs/security.md names them
    "script": "<script>alert(1)</script>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "template": "{{ 7*7 }}${7*7}%(x)s{0}",
    "SQL": "'; DROP TABLE file; --",
    "formula": "=cmd|' /C calc'!A0",
    "formula after a sign": "@SUM(1+1)*cmd|' /C calc'!A0",
    "line break": "A\r\nSet-Cookie: x=1\r\n\r\n2026-01-01 INFO forged",
    "terminal escape": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "bidi": "gnp.\u202eexe\u2066\u2069\u200b",
    "traversal": "../../../../etc/passwd",
    "NUL": "A\0B",
    "long": "x" * 5000,
    "no UTF-8": "PLACEHOLDER",
}
TEXTS = "PatientID AccessionNumber PatientName".split()
CODES = "ViewPosition StudyInstanceUID SOPInstanceUID SeriesInstanceUID BodyPartExamined".split()
pytestmark = pytest.mark.filterwarnings("ignore:.*(value|component) (length|for VR)", "ignore:Invalid value for VR")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
MODEL = ModelFacts("m", "1", "x")


@pytest.fixture(params=VALUES.items(), ids=VALUES)
def value(request):
    return request.param[1]


@pytest.fixture
def facts(value):
    """What a real DICOM file with the value in every text comes to."""
    pixels = np.zeros((8, 8), np.uint16)
    keywords = TEXTS + (CODES if max(value) <= "\xff" else [])  # codes and UIDs have no other letters
    content = dicom(pixels, SpecificCharacterSet="ISO_IR 192", **dict.fromkeys(keywords, value))
    content = content.replace(b"PLACEHOLDER", b"\xff\xfe\xc3\x28\xf0\x90\x80e\x9b\x1b[")
    return open_image(content, Limits(), Scope()).facts


def named(value):
    """The value as far as a file can be named so; what has no UTF-8 is a name, too."""
    name = value.replace("/", "_").replace("\0", "")[:200]
    return "a" + name.replace("PLACEHOLDER", "\udcff\udcfe\udc80") + ".dcm"


@pytest.fixture
def house(tmp_path, value, facts):
    """A database and folders after two files of that name, with that header, a note and a detail."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / named(value)).write_bytes(b"x")
    [source] = scan(Tree(inbox))
    prediction = Prediction(Label.FRACTURED, 0.9, 0.5, MODEL)
    outcomes = Classified("aa", facts, prediction, (f"noted {value}",)), Rejected("out_of_scope", value, "bb", facts)
    filing = Filing(inbox, tmp_path / "processed", tmp_path / "quarantine", receipts=True)
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    recorded = Store(database, MODEL).record([(source, o, filing.destination(source, o)) for o in outcomes])
    yield tmp_path, database, filing, recorded
    database.close()


def queried(database):
    return list(results(database, Filter()))


class Texts(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.sources, self.text = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.sources.append(dict(attrs).get("src"))

    def handle_data(self, data):
        self.text += data


def test_hostile_values_are_data_in_the_database(house, facts):
    folder, database, _, _ = house
    with sqlite3.connect(folder / "x.db") as connection:
        assert connection.execute("SELECT count(*) FROM file").fetchone() == (2,)
        patient, path = connection.execute("SELECT patient_id, source_path FROM results LIMIT 1").fetchone()
    assert patient == facts.patient_id.replace("\0", "")
    assert len(patient) <= 256
    assert "\0" not in path
    assert [row["patient_id"] for row in results(database, Filter(patient=patient))] == [patient, patient]
    assert len(trail(database, patient).files) in (0, 2)  # by its accession number, which is the same text


def test_hostile_values_are_text_on_the_pages(house, value):
    folder, database, _, _ = house
    number = min(row["id"] for row in queried(database))
    asked = client(folder, Pipeline(None, None), database=database)
    paths = "/", f"/files/{number}", f"/files/{number + 1}", "/problems?status=rejected", "/accuracy"
    shown = [asked.get(path) for path in paths]
    shown.append(asked.get("/", query_string={"q": value, "body_part": value}))
    assert [answer.status_code for answer in shown] == [200] * len(shown)
    for page in [Texts(answer.text) for answer in shown]:
        assert set(page.attributes) <= ATTRIBUTES
        assert "script" not in [tag for tag, source in zip(page.tags, page.sources, strict=True) if not source]


# What our own templates use, but for what only a value would add.
WRITTEN = "".join(path.read_text("utf-8") for path in TEMPLATES.glob("*.html")).lower()
ATTRIBUTES = set(re.findall(r"([a-z][a-z0-9-]*)=\"", WRITTEN)) | set(
    "defer hidden selected multiple required download".split()
)


def test_hostile_values_are_no_formulas_in_csv(house):
    _, database, _, _ = house
    out = io.StringIO(newline="")
    write_csv(queried(database), COLUMNS, out)
    out.seek(0)
    rows = list(csv.reader(out))
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert len(rows) == 3
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_hostile_values_stay_in_their_json_string(house):
    _, database, _, _ = house
    rows = queried(database)
    whole, lines = io.StringIO(), io.StringIO()
    write_json(rows, whole)
    write_jsonl(rows, lines)
    assert [row["patient_id"] for row in json.loads(whole.getvalue())] == [row["patient_id"] for row in rows]
    assert [json.loads(line)["id"] for line in lines.getvalue().split("\n")[:-1]] == [2, 1]
    text = json_text(rows[0])
    assert not CONTROL.search(text)
    assert json.loads(text) == rows[0]
    text.encode("utf-8")


def test_hostile_values_are_one_line_of_the_terminal_and_the_log(house):
    _, database, _, recorded = house
    table = io.StringIO()
    _write_table(queried(database), table)
    assert not CONTROL.search(table.getvalue().replace("\n", ""))
    for form in (_TextLines("%(levelname)s %(message)s"), _JsonLines()):
        for item in recorded:
            text = form.format(logging.LogRecord("x", 20, "", 0, "%s", (log_line(item),), None))
            assert not CONTROL.search(text)
            text.encode("utf-8")


def test_hostile_values_stay_in_their_receipt_and_sidecar(house, value):
    folder, _, filing, recorded = house
    item = recorded[1]
    place = filing.file(item)
    [slip] = (folder / "quarantine").glob("*.json")
    text = slip.read_text(encoding="utf-8")
    assert not CONTROL.search(text.replace("\n", ""))
    said = json.loads(text)
    assert (said["detail"], said["result"], Path(said["source_path"]).name) == (value, 2, named(value))
    assert place.parent == folder / "quarantine"


def test_hostile_values_lead_to_no_other_folder(house):
    folder, _, filing, recorded = house
    before = set(folder.parent.iterdir())
    for item in recorded:
        assert item.filed_path.parent in (folder / "processed", folder / "quarantine")
    filing.file(recorded[0])
    assert set(folder.parent.iterdir()) == before
    assert {path.name for path in folder.iterdir()} <= {
        "inbox",
        "processed",
        "quarantine",
        "x.db",
        "x.db-wal",
        "x.db-shm",
    }


@pytest.mark.parametrize("where", ["file name", "request id", "path", "query", "login"])
def test_hostile_values_do_not_reach_the_headers_of_an_answer(tmp_path, value, where):
    site = client(tmp_path, Pipeline(Anything(), CountingClassifier()), token="secret" if where == "login" else None)
    one_line = value.replace("\r\n", " ").replace("\0", "").encode("latin-1", "replace").decode("latin-1")
    answer = {
        "file name": lambda: send(site, value),
        "request id": lambda: send(site, **{"X-Request-ID": one_line}),
        "path": lambda: site.get(f"/{value}"),
        "query": lambda: site.get("/", query_string={"next": value}),
        "login": lambda: site.post("/login", data={"token": "secret", "next": f"/{value}"}),
    }[where]()
    assert answer.status_code in (200, 303, 400, 404)
    assert "x" not in [cookie.partition("=")[0] for cookie in answer.headers.getlist("Set-Cookie")]
    for name, text in answer.headers:
        assert not re.search(r"[\x00-\x1f\x7f]", name + text)
        assert "<script>" not in text
    assert answer.headers.get("Location", "/").startswith("/")
    assert not answer.headers.get("Location", "/").startswith("//")


class Anything:
    """Decodes whatever its name."""

    def submit(self, source):
        class Done:
            def result(self):
                return prepared("aa")

        return Done()


def test_the_page_names_every_value_and_only_tests_that_exist():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    named_tests = set(re.findall(r"`(test_\w+|Test\w+)`", PAGE))
    assert len(named_tests) > 15
    assert {name for name in named_tests if not re.search(rf"(def|class) {name}\b", text)} == set()
    tried = PAGE.split("## What was tried")[1]
    assert {name for name in VALUES if f"| {name} |" not in tried} == set()
