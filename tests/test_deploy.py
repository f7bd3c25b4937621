"""What is in deploy/ is held to the code: commands, exit statuses, settings, routes, paths, versions."""

import ast
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import typer
import yaml

from fracture_watch.cli import serving
from fracture_watch.cli.app import app
from fracture_watch.config import Settings, load_settings
from fracture_watch.pipeline import Pipeline
from tests.conftest import REPOSITORY
from tests.web.test_app import client

DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
DISCLAIMER = "Research use only. Not a medical device."


def unit() -> dict[str, list[str]]:
    """The unit's settings; one that stands several times has several values."""
    values: dict[str, list[str]] = {}
    for line in (DEPLOY / "fracture-watch.service").read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def instruction(name: str) -> str:
    """A Dockerfile instruction, without its continuation."""
    found = re.search(rf"^{name} ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    assert found, name
    return found[1].replace("\\\n", "")


def parameters(words: list[str]) -> Path:
    """The settings file of a command line that the program understands."""
    command = typer.main.get_command(app)
    name, command, rest = command.resolve_command(typer.Context(command), words)
    assert name == "run"
    return command.make_context(name, list(rest)).params["config"]


def test_the_units_command_exists_and_reads_the_settings_that_are_installed():
    program, *words = shlex.split(unit()["ExecStart"][0])
    [script] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert program == f"/opt/fracture_watch/.venv/bin/{script}"
    assert parameters(words) == Path("/etc/fracture_watch/config.yaml")


def test_wrong_settings_end_with_the_status_that_is_not_started_again(tmp_path):
    (tmp_path / "config.yaml").write_text("nonsense: 1\n")
    command = [sys.executable, "-m", "fracture_watch", "run", "--config", str(tmp_path / "config.yaml")]
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=False, timeout=60)
    assert str(done.returncode) == unit()["RestartPreventExitStatus"][0]
    assert "2 wrong use or configuration" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_whoever_stops_it_waits_longer_than_it_takes():
    assert serving._STOP_SECONDS < int(unit()["TimeoutStopSec"][0]) < 2 * serving._STOP_SECONDS
    assert unit()["KillMode"] == ["mixed"]  # workers that get SIGTERM, too, would lose what they have in hand
    pages = DOCKERFILE + (REPOSITORY / "docs" / "operating.md").read_text(encoding="utf-8")
    for seconds in re.findall(r"(?:docker stop --time|--stop-timeout) (\d+)", pages):
        assert int(seconds) > serving._STOP_SECONDS


def test_the_settings_are_real_and_what_they_write_may_be_written():
    path = DEPLOY / "config.yaml"
    for section, keys in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        assert set(keys) <= set(Settings.model_fields[section].annotation.model_fields)
    settings = load_settings(path, {})
    filing = settings.filing
    written = [settings.inbox.path, filing.processed_dir, filing.quarantine_dir, filing.artefacts_dir]
    for folder in (*written, settings.database.path.parent):
        assert any(folder.is_relative_to(place) for place in unit()["ReadWritePaths"][0].split())
        assert folder.is_relative_to(shlex.split(instruction("VOLUME"))[0])
        assert f"{folder}" in instruction("RUN install")
    assert str(settings.inbox.path) in unit()["RequiresMountsFor"][0].split()


def test_every_variable_that_deploy_names_is_a_real_setting():
    pages = [DOCKERFILE, (REPOSITORY / "docs" / "operating.md").read_text(encoding="utf-8")]
    pages.append((DEPLOY / "fracture-watch.service").read_text(encoding="utf-8"))
    named = {found for page in pages for found in re.findall(r"FRACTURE_WATCH__([A-Z]+)__([A-Z_]+)", page)}
    assert ("WEB", "TOKEN") in named
    for section, key in named:
        assert key.lower() in Settings.model_fields[section.lower()].annotation.model_fields


def test_every_setting_that_operating_names_is_a_real_one():
    page = (REPOSITORY / "docs" / "operating.md").read_text(encoding="utf-8")
    for section, key in re.findall(r"`(inbox|filing|imaging|scope|model|database|web|logging)\.([a-z_]+)", page):
        assert key in Settings.model_fields[section].annotation.model_fields, f"{section}.{key}"


def test_every_command_that_operating_names_is_a_real_one():
    page = (REPOSITORY / "docs" / "operating.md").read_text(encoding="utf-8")
    root = typer.main.get_command(app)
    named = set(re.findall(r"(?:`|/bin/)fracture-watch ([a-z]+)", page))
    assert {"doctor", "scan", "config"} <= named <= set(root.commands)


def test_a_container_without_a_token_does_not_start_and_says_so():
    environment = dict(pair.split("=", 1) for pair in shlex.split(instruction("ENV")))
    with pytest.raises(Exception, match=r"host 0\.0\.0\.0 is reachable from other machines, so web\.token must be set"):
        load_settings(DEPLOY / "config.yaml", environment)
    settings = load_settings(DEPLOY / "config.yaml", environment | {"FRACTURE_WATCH__WEB__TOKEN": "secret"})
    assert settings.web.port == int(instruction("EXPOSE"))


def test_the_container_starts_the_program_itself_so_that_signals_arrive():
    assert json.loads(instruction("ENTRYPOINT")) == ["fracture-watch"]
    copied = re.search(r"^COPY deploy/config\.yaml (\S+)$", DOCKERFILE, re.MULTILINE)[1]
    assert parameters(json.loads(instruction("CMD"))) == Path(copied)
    assert instruction("USER") == "fracture-watch"
    weights = load_settings(DEPLOY / "config.yaml", {}).model.weights
    assert weights.relative_to(instruction("WORKDIR")).parts[0] == "saved_models"


def test_the_image_is_made_of_files_that_exist_and_nothing_else_gets_in():
    ignore = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore  # a list of what may come in, not of what may not: an inbox may have any name
    allowed = {line[1:].rstrip("/") for line in ignore if line.startswith("!")}
    sources = {source for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]}
    assert sources == allowed
    for source in sources:
        assert (REPOSITORY / source).exists()


def test_no_registry_is_named():
    assert re.findall(r"https?://(?!127\.0\.0\.1)\S+", DOCKERFILE) == []
    assert "ARG TORCH_INDEX=\n" in DOCKERFILE
    assert "-c constraints.txt" in DOCKERFILE


def test_the_health_route_exists_and_wants_no_token(tmp_path):
    routes = {rule.rule for rule in client(tmp_path, Pipeline(None, None)).application.url_map.iter_rules()}
    port = instruction("EXPOSE")
    asked = re.search(rf"http://127\.0\.0\.1:{port}(/\w+)", instruction("HEALTHCHECK"))[1]
    assert asked in routes
    guarded = client(tmp_path, Pipeline(None, None), token="secret")
    assert guarded.get(asked).status_code == 200


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_tells_a_living_server_from_another(status, code):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    program, option, script = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    assert program == "python"
    ast.parse(script)
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        if status is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        else:
            port = server.server_port
            Thread(target=server.handle_request, daemon=True).start()
        script = script.replace(f":{instruction('EXPOSE')}/", f":{port}/")
        environment = {"http_proxy": "http://127.0.0.1:9"}  # nobody answers there
        done = subprocess.run([sys.executable, option, script], env=environment, capture_output=True, check=False)
    assert done.returncode == code, done.stderr


def test_systemd_finds_nothing_wrong(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("not installed: systemd-analyze")
    program = shlex.split(unit()["ExecStart"][0])[0]
    text = (DEPLOY / "fracture-watch.service").read_text(encoding="utf-8")
    (tmp_path / "fracture-watch.service").write_text(text.replace(program, sys.executable), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "fracture-watch.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "fracture-watch" in line]) == (0, [])


def test_every_page_says_what_it_is_not_for():
    pages = [REPOSITORY / "docs" / "operating.md", REPOSITORY / "docs" / "reliability.md", *DEPLOY.iterdir()]
    for page in pages:
        assert DISCLAIMER in page.read_text(encoding="utf-8"), page
