"""What the log looks like, for people and for programs."""

import json
import logging

import pytest

from fracture_watch.cli.common import settings_from
from tests.conftest import write_config

FORGED = "a.dcm\n2026-01-01 00:00:00,000 INFO    b.dcm: fractured\x1b[31m"


@pytest.fixture(autouse=True)
def restored():
    root, level = logging.getLogger(), logging.getLogger("fracture_watch").level
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    logging.getLogger("fracture_watch").setLevel(level)


def said(capsys, tmp_path, weights, form, **extra):
    settings_from(write_config(tmp_path, weights, logging={"format": form}))
    logging.getLogger("fracture_watch.daemon").info("%s", FORGED, **extra)
    return capsys.readouterr().err


def test_a_name_cannot_forge_a_second_line(capsys, tmp_path, weights):
    text = said(capsys, tmp_path, weights, "text")
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert len(said(capsys, tmp_path, weights, "json").splitlines()) == 1


def test_json_lines_carry_what_is_known_of_a_file(capsys, tmp_path, weights):
    facts = {"file": FORGED, "result": 7, "status": "failed", "code": "corrupt", "milliseconds": {"decode": 1.5}}
    entry = json.loads(said(capsys, tmp_path, weights, "json", extra={"facts": facts}))
    assert entry | facts == entry
    assert set(entry) == {"time", "level", "logger", "message", *facts}


def test_a_traceback_stays_in_its_line(capsys, tmp_path, weights):
    settings_from(write_config(tmp_path, weights, logging={"format": "json"}))
    try:
        int(FORGED)
    except ValueError:
        logging.getLogger("fracture_watch").exception("it broke")
    [line] = capsys.readouterr().err.splitlines()
    assert "ValueError" in json.loads(line)["traceback"]
