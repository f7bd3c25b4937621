import csv
import io
import json
import re
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from fracture_watch.delivery.exports import file_record, sentence, write_csv, write_json, write_jsonl
from fracture_watch.delivery.shelf import Shelf
from fracture_watch.errors import Unreadable, WrongUse
from fracture_watch.exporting import Exporter
from fracture_watch.labels import read_truths
from fracture_watch.outcomes import Classified, Duplicate, Failed
from fracture_watch.records import Facts, Kind, Label, ModelFacts, Prediction
from fracture_watch.texts import printable

PREDICTION = Prediction(Label.FRACTURED, 0.75, 0.5, ModelFacts("m", "1", "abc"), 2)
DONE = Classified("aa", Facts(study_uid="1.2", sop_instance_uid="1.3"), PREDICTION, ("no window",))


def test_a_json_line_has_the_contract_keys_in_order():
    assert file_record("a.dcm", DONE, 12.345) == {
        "file": "a.dcm",
        "status": "classified",
        "code": None,
        "detail": None,
        "notes": ["no window"],
        "sha256": "aa",
        "prediction": "fractured",
        "probability": 0.75,
        "threshold": 0.5,
        "frame": 2,
        "study_uid": "1.2",
        "sop_instance_uid": "1.3",
        "model": {"name": "m", "version": "1", "id": "abc"},
        "milliseconds": 12.3,
    }
    assert list(file_record("a", DONE)) == list(file_record("a", Failed("corrupt", "x")))


def test_absent_facts_are_null():
    record = file_record("a", Failed("corrupt", "broken"))
    assert (record["code"], record["detail"], record["prediction"], record["model"]) == (
        "corrupt",
        "broken",
        None,
        None,
    )


@pytest.mark.parametrize("outcome", [DONE, Duplicate("aa", Facts()), Failed("corrupt", "line\nbreak")])
def test_a_log_line_is_one_line_whatever_the_name(outcome):
    line = sentence("a\nERROR forged\x1b[2J\ud800.dcm", outcome)
    assert "\n" not in line
    assert "\x1b" not in line
    line.encode("utf-8")


def test_printable_leaves_ordinary_text_alone():
    assert printable("Müller^Jörg 漢字") == "Müller^Jörg 漢字"


@pytest.mark.parametrize(
    ("evil", "written"),
    [
        (evil, f"'{evil}")
        for evil in (
            "=1+1",
            "+1",
            "-1",
            "@x",
            "\tx",
            "\rx",
            "\nx",
            '"=1',
            "' =1",
            "  @x",
            "\ufeff=1",
            "\xa0=1",
            "\uff1d1",
        )
    ]
    + [
        ("x;=1+1", "x;'=1+1"),
        ('x; "@y', "x; \"'@y"),
        ("x\n=1", "x\n'=1"),
        ("=1;=2", "'=1;'=2"),
        ("\t=1", "'\t'=1"),
        ("a-b=c@d+e", "a-b=c@d+e"),
        ("it's; fine", "it's; fine"),
        ("", ""),
    ],
)
def test_csv_cells_are_never_formulas(evil, written):
    out = io.StringIO(newline="")
    write_csv([{"a": evil, "b": -0.5, "c": None}], ["a", "b", "c"], out)
    assert list(csv.reader(io.StringIO(out.getvalue(), newline="")))[1] == [written, "-0.5", ""]


@hypothesis.given(st.text(alphabet="=+-@\t\r\n ;,'\"x\u3000\uff0b", max_size=12))
def test_however_a_spreadsheet_splits_a_line_no_cell_begins_with_a_formula(text):
    out = io.StringIO(newline="")
    write_csv([{"a": "x", "b": text, "c": "y"}], ["a", "b", "c"], out)
    line = out.getvalue().split("\r\n", 1)[1]
    cells = [cell for row in csv.reader(io.StringIO(line, newline="")) for cell in row] + re.split(r"[;\t\r\n]", line)
    assert [cell for cell in cells if re.match(r"[\s\"]*[=+@\uff0b-]", cell)] == []


@hypothesis.given(st.text(alphabet="=+-@\t ;,'\"x\u3000\uff0b", min_size=1, max_size=12))
def test_what_was_made_safe_for_spreadsheets_is_read_as_it_was(name):
    hypothesis.assume(name == name.strip() and not name.startswith("'\t"))
    out = io.StringIO(newline="")
    write_csv([{"path": name, "label": "fractured"}], ["path", "label"], out)
    [truth] = read_truths(io.StringIO(out.getvalue(), newline=""), "x.csv")
    assert truth.name == name


def a_row(**columns):
    uids = {"study_uid": "1.2", "series_uid": "1.3", "sop_instance_uid": "1.4"}
    known = {"status": "classified", "code": None, "sha256": "aa", "model_id": "x", "duplicate_of": None}
    return uids | known | columns


def test_a_kept_object_that_cannot_be_read_is_said(tmp_path):
    unreadable = Path("/proc/self/mem")  # a file whose first byte nobody can read, whoever asks
    if not unreadable.is_file():
        pytest.skip("there is no /proc/self/mem")
    place = Shelf(tmp_path).of(Kind.SR, a_row())
    place.parent.mkdir()
    place.symlink_to(unreadable)
    exporter = Exporter(Shelf(tmp_path), lambda: pytest.fail("it was to be built anew"))
    with pytest.raises(Unreadable, match=r"aa-x\.sr\.dcm cannot be read: "):
        exporter.object(a_row(), Kind.SR)


def test_a_duplicate_says_whether_its_original_is_there(tmp_path):
    exporter = Exporter(Shelf(tmp_path), lambda: pytest.fail("it was to be built anew"))
    for original, said in ((7, "a duplicate of result 7; export that"), (None, "a result that was removed")):
        with pytest.raises(WrongUse, match=said):
            exporter.object(a_row(status="duplicate", duplicate_of=original), Kind.SR)


def test_json_and_json_lines_hold_notes_as_lists():
    rows = [{"id": 1, "notes": '["x"]'}, {"id": 2, "notes": None}]
    whole, lines = io.StringIO(), io.StringIO()
    write_json(rows, whole)
    write_jsonl(rows, lines)
    wanted = [{"id": 1, "notes": ["x"]}, {"id": 2, "notes": []}]
    assert json.loads(whole.getvalue()) == wanted
    assert [json.loads(line) for line in lines.getvalue().splitlines()] == wanted


def test_no_rows_are_valid_json():
    out = io.StringIO()
    write_json([], out)
    assert json.loads(out.getvalue()) == []
