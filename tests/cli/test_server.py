"""Commands whose settings name a PostgreSQL server; its password is shown nowhere."""

import json
import subprocess
import sys

import pytest
from sqlalchemy import make_url

from fracture_watch import assembly
from fracture_watch.cli import main
from fracture_watch.config import load_settings
from fracture_watch.errors import InvalidSettings
from tests.conftest import png, write_config
from tests.databases import PASSWORD

ON_SERVER = pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="session")


@pytest.fixture
def folder(tmp_path, weights, url):
    write_config(tmp_path, weights, database={"url": url})
    return tmp_path


@pytest.fixture
def fw(monkeypatch, capfd, folder):
    """Run a command: (exit status, standard output); what it prints holds no password."""

    def run(*arguments):
        words = ["fracture-watch", *map(str, arguments), "--config", str(folder / "config.yaml")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert PASSWORD not in out + err
        return ended.value.code or 0, out + err

    return run


def doctor(fw):
    checks = json.loads(fw("doctor", "--json")[1])["checks"]
    [database] = [check for check in checks if check["part"] == "database"]
    return database


@ON_SERVER
def test_scan_and_every_question_work(fw, folder):
    (folder / "archive").mkdir()
    for number in range(3):
        (folder / "archive" / f"{number}.png").write_bytes(png(number))
    assert '"classified": 3' in fw("scan", folder / "archive", "--json")[1]
    assert '"skipped": 3' in fw("scan", folder / "archive", "--json")[1]
    assert len(fw("results", "--format", "jsonl")[1].splitlines()) == 3
    assert fw("results", "--patient", "nobody", "--format", "jsonl")[1] == ""
    code, out = fw("trace", folder / "archive/1.png")
    assert (code, "classified: " in out) == (0, True)
    assert fw("retry", "--all")[1] == "0 put back\n"
    assert "would remove 3 results and 3 files" in fw("prune", "--older-than", "0h")[1]
    assert "removed 3 results and 3 files" in fw("prune", "--older-than", "0h", "--yes")[1]
    assert fw("results", "--format", "jsonl")[1] == ""
    assert fw("trace", 1)[0] == 1


@ON_SERVER
def test_doctor_says_what_server_it_is(fw, folder, url, postgresql):
    found = doctor(fw)
    assert (found["ok"], found["name"]) == (True, make_url(url).render_as_string())
    assert found["detail"].startswith("PostgreSQL 1")
    assert found["detail"].endswith("schema 0007; 0 files recorded")
    write_config(folder, folder / "none.pth", database={"url": f"{postgresql.url}/not_there"})
    found = doctor(fw)
    assert (found["ok"], "does not exist; make it with createdb" in found["detail"]) == (False, True)
    write_config(folder, folder / "none.pth", database={"url": postgresql.of(postgresql.empty())})
    assert doctor(fw)["detail"].endswith("empty, the tables are made at the first start")


@ON_SERVER
def test_a_database_that_cannot_be_used_ends_a_command_with_what_to_do(fw, folder, weights, url):
    wrong = make_url(url).set(password=f"not-{PASSWORD}").render_as_string(hide_password=False)
    write_config(folder, weights, database={"url": wrong})
    code, said = fw("results")
    assert (code, "see the user and the password in database.url" in said) == (1, True)


@ON_SERVER
def test_a_database_that_went_missing_is_never_silently_begun_anew(fw, folder, weights, postgresql):
    settings = load_settings(folder / "config.yaml", {})
    name = assembly.watcher_of(settings, make=True)
    assert assembly.watcher_of(settings, make=True) == name
    assert fw("results")[0] == 0
    write_config(folder, weights, database={"url": postgresql.of(postgresql.empty())})
    code, said = fw("results")
    assert (code, "Restore it from a backup, or remove that file to begin with an empty one" in said) == (2, True)
    (folder / "inbox/.fracture_watch.name").unlink()
    assert fw("results")[0] == 0
    (folder / "inbox/.fracture_watch.name").write_text("a torn write")
    code, said = fw("retry", "--all")
    assert (code, "the name of this inbox in the database, cannot be used" in said) == (2, True)


@ON_SERVER
def test_the_settings_show_no_password(fw, folder, url):
    shown = make_url(url).render_as_string()
    assert f"url: {shown}  #" in fw("config", "show")[1]
    settings = load_settings(folder / "config.yaml", {})
    assert (settings.database.url, settings.database.shown, settings.database.path) == (url, shown, None)
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("postgresql://u:s3cret@host", "the database at the end is missing"),
        ("mysql://u:s3cret@host/db", "must be sqlite:///FILE or postgresql://"),
        ("postgresql+psycopg2://u:s3cret@host/db", "must be sqlite:///FILE or postgresql://"),
        ("postgresql://host/db?password=s3cret", "must not have a password behind the ?"),
        ("postgresql://u:s3cret@host:port/db", "must be sqlite:///FILE or postgresql://"),
        ("s3cret", "must be sqlite:///FILE or postgresql://"),
    ],
)
def test_a_wrong_url_is_refused_without_being_quoted(tmp_path, weights, wrong, said):
    config = write_config(tmp_path, weights, database={"url": wrong})
    with pytest.raises(InvalidSettings, match=r"database\.url: ") as caught:
        load_settings(config, {})
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_missing_driver_is_named_with_the_command_that_brings_it():
    """In a process of its own, for which the driver is not there."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from fracture_watch.results.database import Database\n"
        f"Database('postgresql://u:{PASSWORD}@127.0.0.1:1/db')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "PostgreSQL needs psycopg, which is not installed: `pip install 'psycopg[binary]'`" in last
    assert PASSWORD not in last
