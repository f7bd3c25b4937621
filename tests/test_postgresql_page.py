"""docs/postgresql.md: its questions are those of docs/queries.md and run, its settings load."""

import re

import pytest
import yaml
from sqlalchemy import text

from benchmarks.archive import build
from benchmarks.databases import SPELLED
from benchmarks.million import PAGE, questions
from fracture_watch.config import load_settings
from fracture_watch.results.database import Database
from tests.conftest import write_config
from tests.results.test_postgresql import guest, server  # noqa: F401  fixtures

TEXT = SPELLED.read_text(encoding="utf-8")
QUESTIONS = dict(questions(PAGE.read_text(encoding="utf-8")))
OTHERWISE = dict(questions(TEXT))
ON_SERVER = pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="session")


@pytest.fixture(scope="module")
def archive(kind, postgresql):
    database = Database(postgresql.of(postgresql.empty()))
    build(database, 2000)
    yield database
    database.close()


@ON_SERVER
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_of_the_other_page_runs(archive, name):
    with archive.reading() as connection:
        rows = connection.execute(text(OTHERWISE.get(name, QUESTIONS[name]).replace(":", "\\:"))).all()
    assert rows or name in ("Everything of one patient, newest first", "Near the threshold")


def test_no_question_is_there_that_the_other_page_has_not():
    assert len(OTHERWISE) == 9
    assert set(OTHERWISE) < set(QUESTIONS)


def test_the_settings_on_the_page_load(tmp_path, weights):
    [example] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    settings = load_settings(write_config(tmp_path, weights, **example), {})
    assert settings.database.shown == example["database"]["url"]
    urls = re.findall(r"postgresql://\S*[\w?]", TEXT)
    assert len(urls) == 3
    for url in [*urls, "postgresql:///fracture_watch?host=/var/run/postgresql"]:
        loaded = load_settings(write_config(tmp_path, weights), {"FRACTURE_WATCH__DATABASE__URL": url})
        assert "PASSWORD" not in loaded.database.shown


@ON_SERVER
def test_the_rights_on_the_page_are_enough(guest):  # noqa: F811
    url, run = guest
    grants = [line for line in TEXT.splitlines() if line.startswith("GRANT ")]
    assert len(grants) == 4
    for line in grants:
        run(re.sub(r"TO \w+;", "TO {}", line))
    database = Database(url)
    with database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO model VALUES ('i', 'n', 'v', 't')")
        connection.exec_driver_sql("INSERT INTO event (at, source_path, what, detail) VALUES ('', '', '', '')")
    database.close()
