"""The README and the contract are held to the code; their examples run."""

import ast
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

from fracture_watch.cli.app import app
from fracture_watch.config import Settings
from fracture_watch.errors import FileFailed, FileRejected
from fracture_watch.model.card import Card
from fracture_watch.pipeline import Pipeline
from fracture_watch.results.database import Database
from fracture_watch.results.queries import COLUMNS
from tests.conftest import REPOSITORY, SHIPPED, png
from tests.dicoms import dicom
from tests.web.test_app import client

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def section(title: str) -> str:
    return re.split(r"\n## ", README.split(f"\n## {title}\n", 1)[1])[0]


def commands() -> set[str]:
    root = typer.main.get_command(app)
    names = set()
    for name, command in root.commands.items():
        names |= {f"{name} {sub}" for sub in command.commands} if hasattr(command, "commands") else {name}
    return names


def test_every_command_is_in_the_readme_and_the_other_way_round():
    written = re.findall(r"`fracture-watch ([a-z ]+?)(?: [A-Z].*?)?`", section("Commands").split("In a checkout")[0])
    assert set(written) == commands()


def test_every_option_in_the_readme_exists():
    root = typer.main.get_command(app)
    known = {option for command in _leaves(root) for parameter in command.params for option in parameter.opts}
    written = set(re.findall(r"`(--[a-z-]+)", section("Commands")))
    assert written <= known
    assert known - written <= {"--help"} | {
        "paths",
        "files",
        "file",
        "output",
        "source",
        "csv_file",
        "ids",
        "kind",
        "wanted",
    }


def _leaves(command):
    if hasattr(command, "commands"):
        for child in command.commands.values():
            yield from _leaves(child)
    else:
        yield command


def test_every_setting_is_in_the_readme_and_the_other_way_round():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section("Settings"), re.MULTILINE)
    written = {name: set(re.findall(r"`([a-z_]+)`", keys.split(":")[0])) for name, keys in rows}
    assert written == {n: set(f.annotation.model_fields) for n, f in Settings.model_fields.items()}


def test_every_column_is_in_the_readme_and_the_other_way_round(tmp_path):
    table = section("The database").split("**`studies`**")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell)) == sorted(COLUMNS)
    Database(f"sqlite:///{tmp_path / 'x.db'}").close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        for row in connection.execute("PRAGMA table_info(studies)"):
            assert f"`{row[1]}`" in README


def test_every_route_is_in_the_readme_and_the_other_way_round(tmp_path):
    rules = client(tmp_path, Pipeline(None, None)).application.url_map.iter_rules()
    routes = {f"{m} {r.rule}" for r in rules if r.endpoint != "static" for m in r.methods - {"HEAD", "OPTIONS"}}
    cells = re.findall(r"^\| (`(?:GET|POST) .*?) \|", section("HTTP"), re.MULTILINE)
    written = {route for cell in cells for route in re.findall(r"`((?:GET|POST) \S+)`", cell)}
    assert written == {re.sub(r"<\w+:", "<", route) for route in routes}


def test_every_code_is_in_the_readme():
    for kind in (*FileRejected.__subclasses__(), *FileFailed.__subclasses__()):
        assert f"`{kind.code}`" in section("The database")


def test_every_make_target_in_the_readme_exists():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"\.PHONY: (.*)", makefile)[1].split())
    assert set(re.findall(r"`make ([a-z]+)", README)) == targets


FIGURES = ("auroc", "average_precision", "sensitivity", "specificity", "sensitivity_at_specificity_0.90", "ece")


def test_the_figures_are_the_cards():
    card = Card.load(SHIPPED)
    measured = card.metrics["5_fold_cross_validation"]
    rows = [(measured[name], name) for name in ("all", "hand", "leg", "hip", "shoulder")]
    rows += [(measured["no hardware"], "without visible hardware")]
    rows += [(card.metrics["5_fold_cross_validation_one_view"]["all"], "all, `model.views: whole`")]
    for figures, label in rows:
        cells = [_interval(figures[name]) for name in FIGURES]
        assert f"| {label} | {figures['images']} | {figures['fractured']} | {' | '.join(cells)} |" in README
    assert _interval(card.metrics["5_fold_cross_validation_pointing"]) in README
    assert f"prevalence of {card.calibration.prevalence:.3f}; *fractured* from {card.threshold.value} " in README
    assert f"{card.name} {card.version}: EfficientNet-Lite0" in README


def _interval(figure):
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def test_links_lead_somewhere():
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "config.yaml").write_text((REPOSITORY / "config.yaml").read_text())
    (folder / "saved_models").symlink_to(REPOSITORY / "saved_models")
    (folder / "image.dcm").write_bytes(dicom((np.arange(120 * 90) % 4096).astype(np.uint16).reshape(120, 90)))
    (folder / "image.png").write_bytes(png(1))
    (folder / "archive").mkdir()
    (folder / "archive" / "a.png").write_bytes(png(2))
    return folder


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_command_examples_run(playground):
    [examples] = [text for kind, text in BLOCKS if kind == "console" and text.startswith("fracture-watch ")]
    for line in examples.splitlines():
        done = run(shlex.split(line), playground)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert {"heat.png", "full-size.png", "positives.csv"} <= {p.name for p in playground.iterdir()}


def test_the_sql_examples_run(tmp_path):
    Database(f"sqlite:///{tmp_path / 'x.db'}").close()
    [examples] = [text for kind, text in BLOCKS if kind == "sql"]
    with sqlite3.connect(tmp_path / "x.db") as connection:
        for statement in examples.strip().split(";\n"):
            connection.execute(statement).fetchall()


def test_the_python_example_runs(playground):
    [example] = [text for kind, text in BLOCKS if kind == "python"]
    done = run([sys.executable, "-c", example], playground)
    assert done.returncode == 0, done.stderr
    card = Card.load(SHIPPED)
    said = f"{card.threshold.value} {card.version}"
    assert re.match(rf"(not )?fractured 0\.\d+ {re.escape(said)}", done.stdout)


def test_the_card_examples_of_the_docs_are_valid_cards():
    text = (REPOSITORY / "docs" / "model.md").read_text(encoding="utf-8")
    own, views = (yaml.safe_load(example) for example in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    own["sha256"] = "0" * 64
    assert Card.model_validate(own).architecture == "torchvision:resnet18"
    tiled = Card.model_validate(own | views)
    assert tiled.preprocessor.tiles == (3, 3)
    assert tiled.with_one_view().preprocessor.tiles is None


def test_a_result_is_never_shown_without_the_disclaimer():
    assert "Not a medical device" in README
    template = (REPOSITORY / "fracture_watch" / "web" / "templates" / "base.html").read_text(encoding="utf-8")
    assert "{{ disclaimer }}" in template


def test_every_room_is_in_the_house_as_it_says_itself_what_it_does():
    house, rooms = REPOSITORY / "fracture_watch", {}
    layers = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    for floor, names in enumerate(layers, start=1):
        for name in names.split(" | "):
            room = f"{name}/" if (house / name).is_dir() else f"{name}.py"
            code = (house / room / "__init__.py" if room.endswith("/") else house / room).read_text(encoding="utf-8")
            does = ast.get_docstring(ast.parse(code)).splitlines()[0]
            rooms[room] = f"| {floor} | [`{room}`](../fracture_watch/{room}) | {does} |"
    there = {
        f"{path.name}/" if path.is_dir() else path.name for path in house.iterdir() if not path.name.startswith("__")
    }
    assert there - {"py.typed", "__init__.py"} == set(rooms) - {"__main__.py"}
    written = re.findall(r"^\| \d.*$", (REPOSITORY / "docs" / "house.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert written == list(rooms.values())
