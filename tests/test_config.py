import itertools
import re
from pathlib import Path

import pytest
import yaml

from fracture_watch.config import Settings, load_settings, origins
from fracture_watch.errors import InvalidSettings
from fracture_watch.results.database import Database
from tests.conftest import REPOSITORY


def load(folder: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environment or {})


def refusal(folder: Path, text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(InvalidSettings) as caught:
        load(folder, text, environment)
    return caught.value.detail


def test_an_empty_file_gives_the_defaults_relative_to_its_folder(tmp_path):
    settings = load(tmp_path, "")
    assert settings.inbox.path == tmp_path / "inbox"
    assert settings.database.path == tmp_path / "fracture_watch.db"


def test_the_shipped_file_states_every_key_and_only_defaults():
    shipped = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    model = Settings.model_fields
    assert {section: set(keys) for section, keys in shipped.items()} == {
        section: set(field.annotation.model_fields) for section, field in model.items()
    }
    empty = REPOSITORY / "config.yaml"
    assert load_settings(empty, {}) == Settings.model_validate(
        {section: {} for section in model}, context={"folder": REPOSITORY}
    )


def test_every_key_of_the_shipped_file_is_commented():
    lines = (REPOSITORY / "config.yaml").read_text(encoding="utf-8").splitlines()
    uncommented = [
        line
        for above, line in itertools.pairwise(lines)
        if re.match(r"  \w", line) and "#" not in line and not above.lstrip().startswith("#")
    ]
    assert uncommented == ["  max_upload_mb: 64"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inbox:\n  path: a\n  pth: b\n", "line 3: inbox.pth: unknown key"),
        ("\nfoo:\n  bar: 1\n", "line 2: foo: unknown key"),
        ("inbox:\n  settle_seconds: fast\n", "line 2: inbox.settle_seconds: Input should be a valid number"),
        ("inbox:\n  recursive: 1\n", "line 2: inbox.recursive: Input should be a valid boolean"),
        ("web:\n  port: 70000\n", "line 2: web.port: Input should be less than or equal to 65535"),
        ("imaging:\n  workers: '2'\n", "line 2: imaging.workers: Input should be a valid integer"),
        ("model:\n  threshold: 1.5\n", "line 2: model.threshold: Input should be less than 1"),
        ("inbox: 3\n", "line 1: inbox: Input should be a valid dictionary"),
        ("web: false\n", "line 1: web: Input should be a valid dictionary"),
        ("inbox: []\n", "line 1: inbox: Input should be a valid dictionary"),
        ("- a\n", "must hold sections"),
        ("inbox: [\n", "is not valid YAML"),
        ("inbox:\n  path: a\n  path: b\n", "line 3: path: is set twice"),
        ("database:\n  url: 'sqlite:///:memory:'\n", "line 2: database.url: must be sqlite:///FILE"),
        ("filing:\n  processed_dir: inbox/done\n", "line 2: settings: filing.processed_dir ("),
        ("inbox:\n  path: in\nfiling:\n  artefacts_dir: in/a\n", "line 4: settings: filing.artefacts_dir ("),
        ("web:\n  token: 0123456701\n", "line 2: web.token: is no text as it stands; put it in quotes"),
        ("web:\n  token: 12:30:45\n", "line 2: web.token: is no text as it stands; put it in quotes"),
        ("scope:\n  body_parts: [1.50]\n", "line 2: scope.body_parts.0: is no text as it stands; put it in quotes"),
        ("inbox:\n  rescan_seconds: .inf\n", "line 2: inbox.rescan_seconds: Input should be a finite number"),
        ("imaging:\n  memory_mb: 99999999999999\n", "line 2: imaging.memory_mb: Input should be less than or equal"),
        ("inbox: &x\n  path: *x\n", "an alias leads back to where it stands"),
        ("? [a]\n: b\n", "is not valid YAML"),
        ("filing:\n  processed_dir: link/done\n", "lies inside inbox.path"),
        ("filing:\n  processed_dir: .\n", "inbox.path"),
        ("filing:\n  processed_dir: done\n  quarantine_dir: done/odd\n", "lies inside filing.processed_dir"),
        ("filing:\n  processed_dir: odd\n  quarantine_dir: odd\n", "lies inside filing.quarantine_dir"),
        ("inbox:\n  path: ~nobody-of-that-name/in\n", "inbox.path: "),
        ("inbox:\n  path: 2026-13-45\n", "is not valid YAML"),
        ("database:\n  url: 'sqlite:///x.db?cache=shared'\n", "nothing behind a ?"),
    ],
)
def test_what_cannot_work_is_refused_by_key_and_line(tmp_path, text, said):
    (tmp_path / "link").symlink_to(tmp_path / "inbox")
    assert said in refusal(tmp_path, text)


def test_all_wrong_keys_are_named_at_once(tmp_path):
    said = refusal(tmp_path, "inbox:\n  pth: a\nweb:\n  prt: 1\n")
    assert "inbox.pth" in said
    assert "web.prt" in said


def test_a_missing_file_says_how_to_name_it(tmp_path):
    with pytest.raises(InvalidSettings, match="--config"):
        load_settings(tmp_path / "none.yaml", {})


def test_the_environment_wins_and_has_types(tmp_path):
    environment = {"FRACTURE_WATCH__WEB__PORT": "8080", "FRACTURE_WATCH__SCOPE__MODALITIES": "[CR]"}
    settings = load(tmp_path, "web:\n  port: 9000\n", environment)
    assert settings.web.port == 8080
    assert settings.scope.modalities == ("CR",)


def test_a_wrong_variable_is_named(tmp_path):
    said = refusal(tmp_path, "", {"FRACTURE_WATCH__INBOX__PTH": "x"})
    assert said == "FRACTURE_WATCH__INBOX__PTH: inbox.pth: unknown key"


def test_an_open_host_wants_a_token(tmp_path):
    assert "web.token must be set" in refusal(tmp_path, "web:\n  host: 0.0.0.0\n")
    assert load(tmp_path, "web:\n  host: 0.0.0.0\n  token: secret\n").web.host == "0.0.0.0"


def test_a_refusal_never_shows_the_token(tmp_path):
    assert "hunter2" not in refusal(
        tmp_path, "web:\n  host: 0.0.0.0\n  token: ''\n  prt: 1\n", {"FRACTURE_WATCH__WEB__TOKEN": "hunter2"}
    )


@pytest.mark.parametrize("token", ["%abc", "*abc", "0123", "a # b", "null"])
def test_text_in_the_environment_is_taken_as_it_stands(tmp_path, token):
    settings = load(tmp_path, "", {"FRACTURE_WATCH__WEB__TOKEN": token, "FRACTURE_WATCH__INBOX__PATH": "/in # here"})
    assert settings.web.token.get_secret_value() == token
    assert str(settings.inbox.path) == "/in # here"


def test_origins_tell_file_and_environment_apart(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("web:\n  port: 1\n  host: localhost\n", encoding="utf-8")
    found = origins(path, {"FRACTURE_WATCH__WEB__PORT": "2"})
    assert found["web", "port"] == "FRACTURE_WATCH__WEB__PORT"
    assert found["web", "host"] == str(path)


HOOK = "webhooks:\n  secret: 0123456789abcdef\n  hooks:\n    - url: "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HOOK + "ftp://a/\n", "line 4: webhooks.hooks.0: url must be an http:// or https:// address"),
        (HOOK + "http:///path\n", "line 4: webhooks.hooks.0: url must be an http"),
        (HOOK + "http://a:99999/\n", "url must be an http"),
        (HOOK + "http://[::1/\n", "url must be an http"),
        (HOOK + "'http://a/\u00fc b'\n", "with other characters than ASCII escaped"),
        (HOOK + "http://me:pass@a/\n", "url must hold no user and no password"),
        (HOOK + "http://a/#x\n", "url must have no #fragment"),
        (HOOK + "http://a/\n    - url: http://a/b\n", "2 hooks are called a; give each a name"),
        (HOOK + "http://a/\n    - {url: http://b/, nme: x}\n", "line 5: webhooks.hooks.1.nme: unknown key"),
        (HOOK + "http://a/\n      events: []\n", "line 5: webhooks.hooks.0.events: Tuple should have at least 1 item"),
        (HOOK + "http://a/\n      predictions: [broken]\n", "line 5: webhooks.hooks.0.predictions.0: Input should be"),
        (HOOK + "http://a/\n      name: a b\n", "line 5: webhooks.hooks.0.name: String should match pattern"),
        ("webhooks:\n  hooks: [{url: http://a/}]\n", "webhooks: the hook a has no secret of at least 16 characters"),
        ("webhooks:\n  study_quiet_seconds: 0\n", "line 2: webhooks.study_quiet_seconds: Input should be greater"),
        ("webhooks:\n  give_up_days: 0\n", "line 2: webhooks.give_up_days: Input should be greater than 0"),
    ],
)
def test_hooks_that_cannot_work_are_refused_by_key_and_line(tmp_path, text, said):
    assert said in refusal(tmp_path, text)


def test_a_refusal_never_shows_a_url_or_a_secret_of_a_hook(tmp_path):
    for hooks in ("[{url: 'http://u:hunter2@a/'}]", "[{url: http://a/, secret: hunter2}]", "'hunter2", "[hunter2]"):
        environment = {"FRACTURE_WATCH__WEBHOOKS__HOOKS": hooks, "FRACTURE_WATCH__WEBHOOKS__SECRET": "hunter2"}
        said = refusal(tmp_path, "", environment)
        assert "hunter2" not in said
        assert "FRACTURE_WATCH__WEBHOOKS__HOOKS" in said or "FRACTURE_WATCH__WEBHOOKS__SECRET" in said


def test_hooks_and_their_secret_may_come_from_the_environment(tmp_path):
    environment = {
        "FRACTURE_WATCH__WEBHOOKS__HOOKS": '[{"url": "https://A.example:8443/x?y"}, '
        '{url: "http://b/", secret: "of b, which is long"}]',
        "FRACTURE_WATCH__WEBHOOKS__SECRET": "0123: of the others",
        "FRACTURE_WATCH__WEBHOOKS__STUDY_QUIET_SECONDS": "5",
    }
    webhooks = load(tmp_path, HOOK + "http://file/\n", environment).webhooks
    assert [hook.known_as for hook in webhooks.hooks] == ["a.example:8443", "b"]
    assert [webhooks.secret_of(hook) for hook in webhooks.hooks] == ["0123: of the others", "of b, which is long"]
    assert webhooks.study_quiet_seconds == 5
    assert "0123" not in str(webhooks.model_dump(mode="json"))


@pytest.mark.parametrize("salt", [None, "", "short"])
def test_hashing_without_a_secret_is_refused_with_the_way_to_make_one(tmp_path, salt):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"privacy": {"identifiers": "hash", "salt": salt}}))
    with pytest.raises(
        InvalidSettings, match=r"line 1: privacy: identifiers: hash needs a secret salt.*secrets\.token"
    ):
        load_settings(path, {})
    settings = load_settings(path, {"FRACTURE_WATCH__PRIVACY__SALT": "0123456789abcdef"})
    assert settings.privacy.salt.get_secret_value() == "0123456789abcdef"
    assert "0123456789abcdef" not in str(settings.model_dump(mode="json"))


@pytest.mark.parametrize("folder", ["My%20Data", "100%", "a%41#b c", "ä?"])
def test_a_database_lies_where_its_path_says_whatever_is_in_it(tmp_path, folder):
    place = tmp_path / folder
    place.mkdir()
    settings = load(place, "")
    Database(settings.database.url).close()
    assert settings.database.path == place / "fracture_watch.db"
    assert settings.database.path.is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == [folder]
