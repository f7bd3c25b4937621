import importlib.util
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracture_watch.imaging import read
from fracture_watch.model.card import Card, OneView
from tests.conftest import ARCHITECTURE, make_weights, png, write_config
from tests.dicoms import dicom
from tests.model.test_card import tiled


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(1))
    (folder / "deep" / "b").write_bytes(png(2))
    (folder / "note.txt").write_text("no picture")
    (folder / ".hidden").write_text("ignored")
    return folder


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_scan_records_in_place_and_skips_what_is_known(fw, archive):
    code, out, _ = fw("scan", archive, "--json")
    *records, summary = lines(out)
    assert code == 0
    assert sorted((r["file"].rsplit("/", 1)[1], r["status"]) for r in records) == [
        ("a.png", "classified"),
        ("b", "classified"),
        ("note.txt", "rejected"),
    ]
    assert all(r["milliseconds"] > 0 for r in records)
    assert summary["summary"] | {"seconds": 0} == {
        "classified": 2,
        "duplicate": 0,
        "rejected": 1,
        "failed": 0,
        "skipped": 0,
        "seconds": 0,
    }
    assert sorted(p.name for p in archive.rglob("*") if p.is_file()) == [".hidden", "a.png", "b", "note.txt"]
    _, out, _ = fw("scan", archive, "--json")
    assert [line["summary"]["skipped"] for line in lines(out)] == [3]
    *records, summary = lines(fw("scan", archive, "--json", "--retry")[1])
    assert ([Path(r["file"]).name for r in records], summary["summary"]["skipped"]) == (["note.txt"], 2)


def test_what_may_do_better_next_time_is_never_skipped(fw, config, archive):
    fw("scan", archive)
    with closing(sqlite3.connect(config.parent / "fracture_watch.db")) as connection, connection:
        connection.execute("UPDATE file SET status = 'failed', code = 'internal' WHERE code IS NOT NULL")
    *records, summary = lines(fw("scan", archive, "--json")[1])
    assert ([Path(r["file"]).name for r in records], summary["summary"]["skipped"]) == (["note.txt"], 2)


def test_scan_knows_content_that_moved(fw, archive):
    fw("scan", archive)
    (archive / "a.png").rename(archive / "moved.png")
    _, out, _ = fw("scan", archive, "--json")
    [moved] = [r for r in lines(out)[:-1] if r["file"].endswith("moved.png")]
    assert moved["status"] == "duplicate"


def test_reclassify_takes_filed_files_through_a_changed_model(fw, archive, monkeypatch, tmp_path):
    fw("scan", archive)
    (archive / "a.png").unlink()
    monkeypatch.setenv("FRACTURE_WATCH__MODEL__THRESHOLD", "0.987")
    code, out, err = fw("scan", "--reclassify", "--json")
    *records, summary = lines(out)
    assert (code, summary["summary"]["classified"]) == (0, 1)
    assert [(Path(r["file"]).name, r["threshold"]) for r in records] == [("b", 0.987)]
    assert "a.png is not there any more" in err
    _, out, _ = fw("results", "--status", "classified", "--format", "json")
    rows = [row for row in json.loads(out) if row["source_path"].endswith("/b")]
    assert len({row["model_id"] for row in rows}) == len(rows) == 2
    assert lines(fw("scan", "--reclassify", "--json")[1])[0]["summary"]["classified"] == 0


def test_scan_of_nothing_says_what_can_be_scanned(fw):
    code, _, err = fw("scan")
    assert (code, "--reclassify" in err) == (2, True)


def test_scan_of_a_broken_file_ends_with_1(fw, tmp_path):
    (tmp_path / "broken.png").write_bytes(png(1)[:200])
    code, out, _ = fw("scan", tmp_path / "broken.png")
    assert code == 1
    assert "failed" in out
    assert "Not a medical device" in out


def test_predict_records_nothing_and_draws_on_request(fw, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    code, out, _ = fw("predict", "a.png", "--heatmap", "heat.png", "--json")
    record, summary = lines(out)
    assert code == 0
    assert record["prediction"] in ("fractured", "not fractured")
    assert record["file"] == "a.png"
    assert summary["summary"]["classified"] == 1
    assert Image.open(tmp_path / "heat.png").size == (60, 90)
    assert not (tmp_path / "fracture_watch.db").exists()


def test_predict_of_a_missing_file_says_so(fw):
    code, out, _ = fw("predict", "none.dcm")
    assert code == 1
    assert "none.dcm: failed, unreadable: the file cannot be read: No such file" in out


def test_a_picture_of_several_files_is_wrong_use(fw, tmp_path):
    assert fw("predict", "a", "b", "--heatmap", "h.png") == (
        2,
        "",
        "fracture-watch: --heatmap needs exactly one FILE\n",
    )


def test_render_writes_the_imaging_stages_exact_output(fw, tmp_path):
    pixels = (np.arange(64 * 48, dtype=np.uint16) % 4096).reshape(64, 48)
    (tmp_path / "a.dcm").write_bytes(dicom(pixels, WindowCenter=2000, WindowWidth=3000))
    assert fw("render", "a.dcm", "out.png")[0] == 0
    assert (np.asarray(Image.open(tmp_path / "out.png")) == read(tmp_path / "a.dcm").pixels).all()


@pytest.mark.parametrize("element", ["ShutterShape", "PhotometricInterpretation"])  # a note, and an error
def test_what_a_header_says_does_not_reach_the_terminal_as_it_is(fw, tmp_path, element):
    hostile = "\x1b]0;owned\x07\x1b[2J\nfracture-watch: done"
    with pytest.warns(UserWarning, match="VR CS"):
        (tmp_path / "a.dcm").write_bytes(dicom(np.ones((9, 9), np.uint16), **{element: hostile}))
    _, out, err = fw("render", "a.dcm", "out.png")
    told = [line for line in err.splitlines() if "x1b[2j" in line.casefold()]
    assert (out, len(told)) == ("", 1)
    assert all(line.isprintable() for line in err.splitlines())
    assert "\nfracture-watch: done" not in err.casefold()


def test_render_of_a_frame_that_is_not_there_is_wrong_use(fw, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    code, _, err = fw("render", "a.png", "out.png", "--frame", "3")
    assert (code, err) == (2, "fracture-watch: there is no frame 3; the file has 1, counted from 0\n")


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "table"])
def test_results_in_every_form(fw, archive, tmp_path, form):
    fw("scan", archive)
    code, out, _ = fw("results", "--format", form, "--status", "classified")
    assert code == 0
    if form == "csv":
        header, *body = out.splitlines()
        assert header.startswith("id,received_at,completed_at,source_path")
        assert len(body) == 2
    elif form == "json":
        assert [r["status"] for r in json.loads(out)] == ["classified"] * 2
    elif form == "jsonl":
        assert [r["status"] for r in lines(out)] == ["classified"] * 2
    else:
        assert out.count("classified") == 2
        assert "Not a medical device" in out
    fw("results", "--format", form, "--status", "classified", "--output", "out")
    if form != "table":
        assert (tmp_path / "out").read_text().splitlines() == out.splitlines()


def test_results_without_a_database_say_what_makes_one(fw):
    code, _, err = fw("results")
    assert code == 2
    assert "there is no database yet" in err


def test_results_refuse_a_date_that_is_none(fw, archive):
    fw("scan", archive)
    assert fw("results", "--since", "yesterday")[0] == 2


def test_wrong_settings_end_with_2_before_anything_starts(fw, config):
    config.write_text("inbox:\n  pth: x\n")
    code, out, err = fw("run")
    assert (code, out) == (2, "")
    assert "config.yaml, line 2: inbox.pth: unknown key" in err


def test_a_missing_model_names_the_setting(fw, config, archive):
    config.write_text("model:\n  weights: none.pth\n")
    code, _, err = fw("scan", archive)
    assert code == 2
    assert "model.weights" in err


def test_config_show_says_where_values_come_from(fw, monkeypatch):
    monkeypatch.setenv("FRACTURE_WATCH__WEB__HOST", "localhost")
    _, out, _ = fw("config", "show")
    assert "host: localhost  # FRACTURE_WATCH__WEB__HOST" in out
    assert "port: 0  # config.yaml" in out
    assert "recursive: True  # default" in out
    assert json.loads(fw("config", "show", "--json")[1])["web"]["host"] == "localhost"


def test_config_show_hides_the_token(fw, monkeypatch):
    monkeypatch.setenv("FRACTURE_WATCH__WEB__TOKEN", "hunter2")
    assert "hunter2" not in fw("config", "show")[1] + fw("config", "show", "--json")[1]


def test_config_schema_is_a_json_schema(fw):
    schema = json.loads(fw("config", "schema")[1])
    assert "inbox" in schema["properties"]


def test_model_show_prints_the_card_and_its_identity(fw, weights):
    card = json.loads(fw("model", "show", "--json")[1])
    assert (card["name"], card["version"], len(card["id"])) == ("tiny", "1.2.3", 16)
    assert "Not a medical device" in fw("model", "show")[1]


def test_model_show_prints_the_model_that_the_settings_make_of_the_card(fw, tmp_path, monkeypatch):
    one_view = {"calibration": {"slope": 0.5}, "threshold": {"value": 0.25, "chosen": "by hand"}}
    own = make_weights(tmp_path / "tiled.pth")
    card = tiled(Card.load(own), tiles=(3, 3), pool="max")
    card = card.model_copy(update={"one_view": OneView.model_validate(one_view)})
    card.save(own)
    monkeypatch.setenv("FRACTURE_WATCH__MODEL__WEIGHTS", str(own))
    monkeypatch.setenv("FRACTURE_WATCH__MODEL__VIEWS", "whole")
    shown = json.loads(fw("model", "show", "--json")[1])
    assert (shown["input"]["views"], shown["threshold"]["value"]) == ("whole", 0.25)
    assert shown["id"] == card.with_one_view().facts.id != card.facts.id


def test_nothing_heavy_is_imported_before_it_is_needed():
    heavy = "('torch', 'numpy', 'sqlalchemy', 'flask')"
    code = f"import sys, fracture_watch.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert shutil.which("fracture-watch", path=str(Path(sys.executable).parent))


@pytest.fixture
def contradicted(config, tmp_path):
    """Weights under a card whose golden probabilities are another model's."""
    weights = make_weights(tmp_path / "own.pth", golden={"dicom-1": 0.123, "png-1": 0.5, "colour-1": 0.5})
    write_config(tmp_path, weights)
    return weights


@pytest.mark.parametrize("command", ["run", "watch", "serve", "scan"])
def test_nothing_starts_with_a_model_that_contradicts_its_card(fw, archive, tmp_path, contradicted, command):
    code, out, err = fw(command, *([archive] if command == "scan" else []))
    assert (code, out) == (2, "")
    assert "golden images get other probabilities than its card says: dicom-1" in err
    assert not (tmp_path / "fracture_watch.db").exists()


def test_model_check_finds_it_and_writes_on_request(fw, contradicted):
    before = json.loads(fw("model", "show", "--json")[1])
    code, out, _ = fw("model", "check", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["golden"][0]["expected"]) == (1, False, 0.123)
    assert fw("model", "check", "--write")[0] == 0
    assert "answers as its card says" in fw("model", "check")[1]
    assert json.loads(fw("model", "show", "--json")[1])["id"] == before["id"]


def test_a_card_without_golden_values_is_warned_of_and_works(fw, archive):
    code, _, err = fw("scan", archive / "a.png")
    assert code == 0
    assert "model check --write" in err
    assert "nothing to compare with" in fw("model", "check")[1]


def test_weights_without_a_card_name_the_command_that_brings_them_and_it_works(fw, tmp_path, archive):
    make_weights(tmp_path / "plain.pth")
    (tmp_path / "plain.yaml").unlink()
    write_config(tmp_path, tmp_path / "plain.pth")
    code, _, err = fw("scan", archive)
    assert code == 2
    assert "fracture-watch model import plain.pth --architecture" in err
    order = ["--classes", "fractured,not fractured", "--architecture", ARCHITECTURE]
    assert fw("model", "import", "plain.pth", "--output", "own.pt", *order)[0] == 2
    code, out, _ = fw("model", "import", "plain.pth", "--output", "own.pth", *order)
    assert code == 0
    assert "stretch" in out
    write_config(tmp_path, tmp_path / "own.pth")
    assert fw("model", "check")[0] == 0
    assert fw("scan", archive / "a.png")[0] == 0


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the openvino extra is not installed")
def test_another_runtime_than_the_reference_is_in_every_rows_notes(fw, archive, tmp_path, weights):
    write_config(tmp_path, weights, model={"runtime": "openvino"})
    fw("scan", archive)
    rows = json.loads(fw("results", "--status", "classified", "--json")[1])
    assert [row["notes"] for row in rows] == [["runtime openvino"]] * 2
    assert lines(fw("predict", archive / "a.png", "--json")[1])[0]["notes"] == ["runtime openvino"]
