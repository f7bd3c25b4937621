"""Webhooks of real daemons and in the page that describes them."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
import yaml

from fracture_watch import assembly
from fracture_watch.cli import main
from fracture_watch.config import load_settings
from fracture_watch.delivery.webhook import Webhook
from fracture_watch.outcomes import Delivery
from fracture_watch.records import Kind
from tests.conftest import REPOSITORY, png, write_config
from tests.delivery.receiver import SECRET, Receiver, answering
from tests.delivery.test_webhook import DELIVERY
from tests.test_daemon import built, drop, files, rows, until, working
from tests.test_end_to_end import Process

PAGE = (REPOSITORY / "docs" / "webhooks.md").read_text(encoding="utf-8")
EXAMPLES = dict.fromkeys(("yaml", "python"), "") | dict(re.findall(r"```(yaml|python)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory, weights):
    settings = load_settings(write_config(tmp_path_factory.mktemp("runtime"), weights), {})
    with assembly.runtime(settings) as running:
        yield running


def hooks(*urls, **keys):
    return {"hooks": [{"url": url, "name": f"h{n}"} for n, url in enumerate(urls)], "secret": SECRET} | keys


def test_a_daemon_that_is_killed_right_after_an_answer_sends_it_again_and_loses_nothing(tmp_path, weights):
    receiver, started = Receiver(), []

    def start():
        started.append(Process(tmp_path, "watch"))
        return started[-1]

    def kill(_):
        os.kill(started[0].process.pid, signal.SIGKILL)
        return 204

    write_config(tmp_path, weights, webhooks=hooks(receiver.url, study_quiet_seconds=1.0))
    receiver.answer = kill
    for number in range(3):
        drop(tmp_path, f"{number}.png", png(number))
    try:
        with receiver.up():
            start().process.wait(60)
            assert len(receiver.got) == 1
        assert started[0].rows("SELECT count(*) FROM outbox WHERE next_attempt_at IS NULL") == [(0,)]
        receiver.answer = lambda _: 204
        with receiver.up():
            daemon = start()
            daemon.until(lambda: daemon.rows("SELECT count(*) FROM outbox WHERE delivered_at IS NOT NULL") == [(6,)])
        assert daemon.stop() == 0, daemon.said()
        assert "k3y" not in daemon.said()
        assert SECRET not in daemon.said()
    finally:
        for process in started:
            process.kill()
    told = receiver.messages
    again = [message for message in told[1:] if message["delivery"] == told[0]["delivery"]]
    assert again == [told[0]]
    once = {message["delivery"]: message for message in told}
    assert len(once) == len(told) - 1 == 6
    inbox = tmp_path / "inbox"
    assert {m["file"] for m in once.values() if m["event"] == "result"} == {str(inbox / f"{n}.png") for n in range(3)}
    recorded = {key for (key,) in started[0].rows("SELECT study_uid FROM studies")}
    assert {m["study_uid"] for m in once.values() if m["event"] == "study"} == recorded


def test_a_receiver_that_hangs_leaves_rows_and_delays_nothing_else(tmp_path, weights, runtime):
    stop, receiver, released = threading.Event(), Receiver(), threading.Event()
    with answering(lambda connection, over: released.wait(60)) as url, receiver.up():
        daemon = built(tmp_path, weights, runtime, webhooks=hooks(url, receiver.url))
        settings = load_settings(tmp_path / "config.yaml", {})
        with assembly.delivering(settings, runtime.metrics, stop), working(daemon):
            for number in range(5):
                drop(tmp_path, f"{number}.png", png(number))
            assert until(lambda: len(files(tmp_path / "processed")) == 5)
            assert until(lambda: len(receiver.got) == 5)
            waits = "SELECT destination, count(*) FROM outbox WHERE kind = 'result' AND delivered_at IS NULL GROUP BY 1"
            assert until(lambda: rows(tmp_path, waits) == [("webhook:h0", 5)])
            said = runtime.metrics.text().decode()
            assert 'fracture_watch_outbox_waiting{destination="webhook:h0"} 10.0' in said
            assert 'fracture_watch_outbox_waiting{destination="webhook:h1"} 5.0' in said  # the studies
            assert 'fracture_watch_outbox_delivered_total{destination="webhook:h1"} 5.0' in said
            stop.set()
            released.set()
    assert len(rows(tmp_path)) == 5


def left(folder, sql):
    with closing(sqlite3.connect(folder / "fracture_watch.db")) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def told_nobody(tmp_path, weights, runtime):
    """A folder whose one result waits for a receiver that is down, and one that is not in the settings any more."""
    receiver = Receiver()
    daemon = built(tmp_path, weights, runtime, webhooks=hooks(receiver.url, receiver.url))
    with working(daemon):
        drop(tmp_path, "a.png", png(1))
        assert until(lambda: files(tmp_path / "processed") == ["a.png"])
        assert until(lambda: left(tmp_path, "SELECT filed FROM file") == [(1,)])
    with sqlite3.connect(tmp_path / "fracture_watch.db") as connection:
        connection.execute(
            "UPDATE outbox SET attempts = 2, last_error = 'it answered 500' "
            "WHERE kind = 'result' AND destination LIKE '%h0'"
        )
        connection.execute(
            "UPDATE outbox SET attempts = 9, next_attempt_at = NULL, last_error = 'no answer within 10 s' "
            "WHERE kind = 'study' AND destination LIKE '%h0'"
        )
        connection.execute(
            "UPDATE outbox SET attempts = 1, next_attempt_at = NULL, delivered_at = completed_at FROM file "
            "WHERE kind = 'study' AND destination LIKE '%h1'"
        )
    write_config(tmp_path, weights, webhooks=hooks(receiver.url))
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command on a folder: (exit status, what it says as JSON)."""

    def run(folder, *arguments):
        config = str(folder / "config.yaml")
        monkeypatch.setattr(sys, "argv", ["fracture-watch", *arguments, "--config", config, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, json.loads(capsys.readouterr().out)

    return run


def test_trace_and_doctor_tell_what_was_and_was_not_delivered(told_nobody, command):
    _, answer = command(told_nobody, "trace", "1")
    steps = [(step["what"], step["detail"]) for step in answer["steps"]]
    assert sorted(what for what, _ in steps if "deliver" in what) == [
        "delivered",
        "not delivered",
        "to be delivered",
        "to be delivered",
    ]
    said = "\n".join(f"{what}: {detail}" for what, detail in steps)

    def tells(pattern):
        return re.search(f"^{pattern}", said, re.MULTILINE)

    assert tells(r"delivered: study sha256:\w+ to webhook:h1 \(\S+\) at attempt 1$")
    assert tells(r"to be deliv.*: result 1 to webhook:h0 .*; attempt 2 was in vain: it answered 500")
    assert tells(r"not delivered: study .* given up; attempt 9 was in vain: no answer within 10 s")

    code, answer = command(told_nobody, "doctor")
    checks = {c["name"]: (c["ok"], c["detail"]) for c in answer["checks"] if c["part"] == "webhook"}
    assert code == 1
    assert checks["webhook:h0"][0] is False
    assert "1 deliveries wait" in checks["webhook:h0"][1]
    assert "in vain: it answered 500" in checks["webhook:h0"][1]
    assert "which anybody on the way can read" in checks["webhook:h0"][1]
    assert "1 deliveries were given up" in checks["webhook:h0 (given up)"][1]
    assert checks["webhook:h1"][0] is False
    assert "no such hook is in webhooks.hooks" in checks["webhook:h1"][1]
    assert "k3y" not in str(answer)


def test_what_waits_for_a_hook_that_is_gone_is_kept_and_then_given_up(told_nobody, runtime):
    settings = load_settings(told_nobody / "config.yaml", {})
    orphans = "SELECT count(*) FROM outbox WHERE destination = 'webhook:h1' AND next_attempt_at IS NOT NULL"
    stop = threading.Event()
    with assembly.delivering(settings, type(runtime.metrics)(), stop):
        stop.set()
    assert left(told_nobody, orphans) == [(1,)]
    with sqlite3.connect(told_nobody / "fracture_watch.db") as connection:
        connection.execute("UPDATE outbox SET created_at = '2026-01-01T00:00:00.000000Z'")
    stop.set()
    with assembly.delivering(settings, type(runtime.metrics)(), stop):
        pass
    assert left(told_nobody, orphans) == [(0,)]


@pytest.fixture
def example(tmp_path):
    """The receiver of the page, running; gives back its URL and what it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert EXAMPLES["python"].count("8800") == 1
    script = tmp_path / "receiver.py"
    script.write_text(EXAMPLES["python"].replace("8800", str(port)))
    with (tmp_path / "said").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(script)], env=os.environ | {"SECRET": SECRET}, stdout=out, stderr=out
        )
    try:
        assert until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}/", tmp_path / "said"
    finally:
        process.kill()
        process.wait()


def _listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_the_receiver_of_the_page_takes_what_is_signed_and_nothing_else(example):
    url, said = example
    assert Webhook(url, SECRET).send(DELIVERY) is None
    assert until(lambda: "d-1 {'event': 'study'" in said.read_text())
    other = Delivery("d-2", Kind.STUDY, "webhook:x", 0, DELIVERY.created_at, DELIVERY.subject)
    assert "401" in Webhook(url, SECRET + "x").send(other)
    assert "401" in Webhook(url, SECRET, clock=lambda: time.time() - 3600).send(other)
    assert "d-2" not in said.read_text()


def test_the_settings_of_the_page_are_valid(tmp_path):
    (tmp_path / "config.yaml").write_text(EXAMPLES["yaml"])
    environment = {"FRACTURE_WATCH__WEBHOOKS__SECRET": SECRET}
    settings = load_settings(tmp_path / "config.yaml", environment).webhooks
    assert [hook.known_as for hook in settings.hooks] == ["ris.example", "pager"]
    assert set(yaml.safe_load(EXAMPLES["yaml"])["webhooks"]) | {"secret"} == set(type(settings).model_fields)


def test_the_bodies_of_the_page_have_the_keys_that_are_sent(tmp_path, weights, runtime):
    written = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    stop, receiver = threading.Event(), Receiver()
    with receiver.up():
        daemon = built(tmp_path, weights, runtime, webhooks=hooks(receiver.url, study_quiet_seconds=1.0))
        settings = load_settings(tmp_path / "config.yaml", {})
        with assembly.delivering(settings, type(runtime.metrics)(), stop), working(daemon):
            drop(tmp_path, "a.png", png(1))
            assert until(lambda: len(receiver.got) == 2)
    assert [list(message) for message in receiver.messages] == [list(message) for message in written]


def test_the_columns_of_the_page_are_those_of_the_table(tmp_path, weights):
    assembly.open_database(load_settings(write_config(tmp_path, weights), {})).close()
    columns = [row[1] for row in left(tmp_path, "PRAGMA table_info(outbox)")]
    assert re.findall(r"^\| `(\w+)` \|", PAGE.split("## Table `outbox`")[1], re.MULTILINE) == columns
