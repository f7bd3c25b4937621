"""The transcripts of docs/api.md are run; status, headers and the keys of the answers are as they are there."""

import json
import re
import shutil
import subprocess

import pytest

from fracture_watch.pipeline import Pipeline
from tests.conftest import REPOSITORY, needs
from tests.web.test_app import client

PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
TRANSCRIPTS = re.findall(r"```console\n\$ (.*?)\n(.*?)```", PAGE, re.DOTALL)
EXACT = ("Content-Type", "Cache-Control")


@pytest.fixture(scope="module")
def folder(live, tmp_path_factory):
    """The files that the page names."""
    needs("curl")
    folder = tmp_path_factory.mktemp("page")
    for place, name in (("processed", "hand.dcm"), ("processed", "picture.png"), ("quarantine", "notes.txt")):
        shutil.copy(live.folder / place / name, folder)
    return folder


@pytest.mark.parametrize(("command", "shown"), TRANSCRIPTS, ids=[command for command, _ in TRANSCRIPTS])
def test_the_transcript_is_true(live, folder, command, shown):
    command = command.replace("http://127.0.0.1:5000", live.url)
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if not shown.startswith("HTTP/"):
        assert done.stdout.strip() == shown.strip()
        return
    expected, found = parted(shown), parted(done.stdout)
    assert found[0] == expected[0]
    for name, value in expected[1].items():
        assert name.lower() in found[1]
        assert name not in EXACT or found[1][name.lower()] == value
    compare(expected[2], found[2])


def parted(answer):
    """The status line, the headers, and the body."""
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.strip().split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return status, headers | {name.lower(): value for name, value in headers.items()}, body.strip()


def compare(shown, found):
    if shown.startswith(("{", "[")):
        assert shape(json.loads(shown.replace("\n ", " "))) == shape(json.loads(found))  # long lines are wrapped there
    else:
        assert set(shown.splitlines()) <= set(found.splitlines())


def shape(value):
    """The keys of an answer, however deep; of a list of rows, those of its first."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [shape(value[0])]
    return None


def test_every_route_has_a_transcript(tmp_path):
    urls = re.findall(r"http://127\.0\.0\.1:5000(/[^\s'?]*)", "\n".join(command for command, _ in TRANSCRIPTS))
    rules = client(tmp_path, Pipeline(None, None)).application.url_map
    shown = set()
    for url in urls:
        adapter = rules.bind("127.0.0.1")
        shown |= {
            adapter.match(url, method=method, return_rule=True)[0].rule for method in adapter.allowed_methods(url)
        }
    assert shown == {rule.rule for rule in rules.iter_rules() if rule.endpoint.startswith("api.")}
