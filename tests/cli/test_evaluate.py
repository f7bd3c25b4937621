"""`model evaluate` from end to end, on drawn files and a real small model."""

import csv
import json
import re

import numpy as np
import pytest

from fracture_watch import golden, load_classifier
from fracture_watch.model.card import Calibration, Card
from tests.conftest import make_weights, png, write_config
from tests.dicoms import dicom


@pytest.fixture
def labelled(tmp_path):
    """Ten PNG and ten DICOM files of two manufacturers, a hostile name, and a configuration with weights of its own."""
    weights = make_weights(tmp_path / "own.pth", calibration=Calibration(slope=60.0))
    golden.write(weights)
    write_config(tmp_path, weights)
    folder = tmp_path / "files"
    folder.mkdir()
    rows = []
    for number in range(20):
        name = "<script>alert(1).png" if number == 0 else f"{number}"
        pixels = np.random.default_rng(number).integers(0, 4096, (80, 60)).astype(np.uint16)
        facts = {"Manufacturer": "Acme" if number < 15 else "Bcme", "ViewPosition": "AP", "seed": number}
        (folder / name).write_bytes(png(number) if number < 10 else dicom(pixels, **facts))
        rows.append(
            {"path": name, "label": "fractured" if number % 2 else "not fractured", "hardware": number % 4 // 2}
        )
    return write_labels(folder, rows)


def write_labels(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "labels.csv"


def test_it_measures_what_is_served(fw, labelled, tmp_path):
    code, out, _ = fw("model", "evaluate", labelled)
    assert code == 0
    assert "20 images, 10 fractured" in out
    assert "Not a medical device" in out
    figures = json.loads((tmp_path / "evaluation" / "figures.json").read_text())
    assert figures["overall"]["images"] == 20
    assert sum(figures["overall"]["confusion"].values()) == 20
    assert {"value", "low", "high"} == set(figures["overall"]["auroc"])
    parts = {(part["name"], part["value"]): part["images"] for part in figures["subgroups"]}
    assert parts["manufacturer", "Acme"] == 5
    assert parts["hardware", "1"] == 10
    assert parts["view", "AP"] == 10
    with (tmp_path / "evaluation" / "answers.csv").open(newline="") as file:
        answers = {row["file"]: float(row["probability"]) for row in csv.DictReader(file)}
    _, served, _ = fw("predict", labelled.parent / "3", labelled.parent / "14", "--json")
    records = [json.loads(line) for line in served.splitlines()[:2]]
    assert [answers["3"], answers["14"]] == pytest.approx([r["probability"] for r in records], abs=1e-6)
    assert len({row["group"] for row in _rows(tmp_path)}) == 20  # a patient each, and each picture its own
    assert json.loads(fw("model", "evaluate", labelled, "--json")[1])["overall"] == figures["overall"]


def _rows(tmp_path):
    with (tmp_path / "evaluation" / "answers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_needs_no_other_file_and_runs_nothing(fw, labelled, tmp_path):
    fw("model", "evaluate", labelled, "--output", "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert all(url.startswith("data:image/") for url in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert page.count("data:image/svg+xml") == 4
    assert page.count("what speaks for a fracture") >= 2
    assert "Missed fracture" in page or "False alarm" in page
    assert "Not a medical device" in page


def test_files_without_an_answer_are_listed_and_end_with_1(fw, labelled, tmp_path):
    with labelled.open("a") as file:
        file.write("none.png,fractured,0\nbroken.png,fractured,0\n")
    (labelled.parent / "broken.png").write_bytes(png(1)[:100])
    code, out, _ = fw("model", "evaluate", labelled)
    assert code == 1
    assert "2 labelled files have no answer" in out
    listed = json.loads((tmp_path / "evaluation" / "figures.json").read_text())["not_evaluated"]
    assert {(item["name"], item["code"]) for item in listed} == {
        ("none.png", "unreadable"),
        ("broken.png", "truncated"),
    }


def test_an_aim_sets_the_cards_threshold_and_says_how(fw, labelled, tmp_path):
    weights = tmp_path / "own.pth"
    before = Card.load(weights)
    code, out, _ = fw("model", "evaluate", labelled, "--set-threshold", "sensitivity>=0.9")
    after = Card.load(weights)
    assert code == 0
    assert after.facts.id in out
    assert after.facts.id != before.facts.id
    assert after.threshold.chosen.startswith("sensitivity >= 0.9; chosen on labels.csv (20 images, 10 fractured)")
    assert after.model_copy(update={"threshold": before.threshold}) == before
    assert golden.require(load_classifier(weights, device="cpu"))
    fw("model", "evaluate", labelled)
    figures = json.loads((tmp_path / "evaluation" / "figures.json").read_text())
    assert figures["overall"]["sensitivity"]["value"] >= 0.9


def test_a_threshold_needs_its_reason_before_anything_is_classified(fw, labelled, tmp_path):
    code, _, err = fw("model", "evaluate", labelled, "--set-threshold", "0.3")
    assert code == 2
    assert "--because" in err
    assert not (tmp_path / "evaluation").exists()
    assert fw("model", "evaluate", labelled, "--set-threshold", "0.3", "--because", "a meeting")[0] == 0
    assert Card.load(tmp_path / "own.pth").threshold.value == 0.3


def test_labels_of_one_class_or_without_files_are_wrong_use(fw, labelled):
    write_labels(labelled.parent, [{"path": "3", "label": "fractured"}])
    code, _, err = fw("model", "evaluate", labelled)
    assert code == 2
    assert "figures need images of both labels: of 1 labelled files 1 could be classified" in err
    write_labels(labelled.parent, [{"path": "gone", "label": "fractured"}])
    assert "the first reason: gone: the file cannot be read" in fw("model", "evaluate", labelled)[2]


def test_labels_that_are_the_other_way_round_are_noticed(fw, labelled):
    fw("model", "evaluate", labelled)
    truth = {row["file"]: row["probability"] for row in _rows(labelled.parent.parent)}
    middle = sorted(truth.values())[10]
    rows = [
        {"path": name, "label": "not fractured" if value >= middle else "fractured"} for name, value in truth.items()
    ]
    write_labels(labelled.parent, rows)
    assert "the labels are the other way round" in fw("model", "evaluate", labelled)[1]
