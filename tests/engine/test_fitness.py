"""What is asked of every Dask worker, and what each refusal says."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from fracture_watch.assembly.model import card_in_force
from fracture_watch.assembly.remote import Plan, Sample, opened, unfit
from fracture_watch.config import load_settings
from fracture_watch.errors import InvalidModel, InvalidSettings
from fracture_watch.outcomes import Classified, Failed
from fracture_watch.records import ModelFacts, SourceFile
from fracture_watch.times import now
from tests.conftest import png, write_config

SECRET = "hunter2hunter2hunter2"


@pytest.fixture
def plan(tmp_path, weights) -> Plan:
    web, hooks = {"token": SECRET}, {"hooks": [{"url": "https://a.example/", "secret": SECRET}]}
    settings = load_settings(write_config(tmp_path, weights, web=web, webhooks=hooks), {})
    return Plan.of(settings, card_in_force(settings))


def test_a_plan_travels_without_secrets_that_no_worker_needs(plan):
    packed = pickle.dumps(plan)
    assert pickle.loads(packed) == plan
    assert SECRET.encode() not in packed


def test_a_worker_that_sees_the_same_is_fit(plan, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    assert unfit(plan, [Sample.of(tmp_path / "a.png")]) is None


def test_each_refusal_says_what_to_do(plan, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    seen = Sample.of(path)
    path.write_bytes(png(2))
    assert f"{path} is another file there" in unfit(plan, [seen])
    path.unlink()
    assert f"cannot read {path} (No such file or directory)" in unfit(plan, [seen])
    assert "mount" in unfit(plan, [seen])
    assert "it has fracture_watch 0.1.0 and torch" in unfit(replace(plan, torch="1.0"))
    assert "install the same versions" in unfit(replace(plan, ours="9"))
    assert "tiny.pth is another file there" in unfit(replace(plan, weights="0" * 64))


def _ask(plan: Plan, answers) -> None:
    answers.put(unfit(plan))


def test_a_daemon_process_is_told_how_to_be_started(plan):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_ask, args=(plan, answers), daemon=True)
    process.start()
    assert "--no-nanny" in answers.get(timeout=60)
    process.join()


def test_what_is_opened_computes_and_writes_nothing(plan, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    before = sorted(p.name for p in tmp_path.iterdir())
    sources = [SourceFile(path, 0, 0, 0, now()), SourceFile(tmp_path / "none", 0, 0, 0, now())]
    with opened(plan, 1) as compute:
        computed = compute(sources)
    here, gone = computed.outcomes
    assert isinstance(here, Classified)
    assert list(map(str, computed.pictures)) == [here.heatmap]
    assert isinstance(gone, Failed)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_another_model_on_a_worker_is_refused(plan):
    with pytest.raises(InvalidModel, match="start again"), opened(replace(plan, model=ModelFacts("a", "1", "0")), 1):
        pass


def test_a_worker_that_joins_later_is_looked_at_too(plan):
    with pytest.raises(InvalidSettings, match="joined later"), opened(replace(plan, ours="9"), 1):
        pass


def test_without_the_extra_it_is_named(tmp_path, weights):
    address = "tcp://127.0.0.1:1"
    write_config(tmp_path, weights, engine={"kind": "dask", "address": address})
    (tmp_path / "a.png").write_bytes(png(1))
    hidden = "import sys; sys.modules['distributed'] = None; from fracture_watch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "scan", "a.png"],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'fracture-watch[dask]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "watch"])
def test_watchers_refuse_it_at_once(tmp_path, weights, command):
    write_config(tmp_path, weights, engine={"kind": "dask", "address": "tcp://127.0.0.1:1"})
    done = subprocess.run(
        [sys.executable, "-m", "fracture_watch", command],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "engine.kind: dask is for `scan`" in done.stderr) == (2, True)
