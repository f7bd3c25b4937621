"""``scan`` on a real scheduler and real workers, which are killed; held to what the local engine records."""

import itertools
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.engine.dask import DaskEngine
from fracture_watch.errors import EngineUnavailable, InvalidSettings
from fracture_watch.intake.tree import scan
from fracture_watch.outcomes import Failed, Rejected
from fracture_watch.pipeline import batches
from fracture_watch.records import SourceFile
from fracture_watch.service import in_place
from fracture_watch.times import now
from tests.conftest import png, write_config
from tests.dicoms import dicom
from tests.engine.cluster import Cluster, frugal, rows, until

PIXELS = (np.arange(120 * 90) % 4096).astype(np.uint16).reshape(120, 90)
COMPARED = (
    "source_path, status, code, detail, notes, sha256, patient_id, study_uid, frame, prediction, threshold, model_id"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two workers that can decode."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    started.start(2)
    yield started
    started.stop()


@pytest.fixture
def own_cluster(tmp_path) -> Iterator[Cluster]:
    """One to be started, and stopped, as the test likes."""
    mine = Cluster(tmp_path)
    yield mine
    mine.stop()


def archive(folder: Path, files: int) -> Path:
    """Mostly pictures; some DICOM, some not for the model, some broken."""
    for number in range(files):
        content = png(number)
        if number % 8 == 1:
            content = dicom(PIXELS + number, seed=number)
        elif number % 16 == 2:
            content = png(number)[:300]
        elif number % 16 == 3:
            content = dicom(PIXELS, seed=number, Modality="CT")
        path = folder / f"{number % 7}" / f"{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def started(folder: Path, files: Path) -> "subprocess.Popen[bytes]":
    """`scan` as a process of its own; its log is in ``err``."""
    command = [sys.executable, "-m", "fracture_watch", "scan", str(files), "--json"]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, env=environment)


def scanned(folder: Path, *roots: Path) -> Counter[str]:
    """How many files got which status by a whole scan in this process."""
    settings = load_settings(folder / "config.yaml", {})
    counts: Counter[str] = Counter()
    with assembly.scanner(settings, roots, retry=False) as scanner:
        sources = itertools.chain.from_iterable(scan(assembly.tree(settings, root)) for root in roots)
        for done in scanner.service.process(batches(sources, settings.model.batch_size), in_place):
            counts.update(str(item.outcome.status) for item in done.recorded)
            counts["skipped"] += len(done.batch) - len(done.recorded)
    return counts


def of(folder: Path, weights: Path, cluster: Cluster | None = None) -> Path:
    """A folder with a configuration of its own."""
    folder.mkdir()
    engine = {"kind": "dask", "address": cluster.address} if cluster else {"kind": "local"}
    write_config(folder, weights, engine=engine, model={"batch_size": 4})
    return folder


def same_results(one: Path, other: Path) -> None:
    """Row by row, whatever the order; probabilities to what single precision is worth."""
    read = [sorted(rows(f / "fracture_watch.db", f"SELECT {COMPARED} FROM results"), key=str) for f in (one, other)]
    assert read[0] == read[1]
    assert read[0]
    sql = "SELECT source_path, probability FROM results WHERE status = 'classified' ORDER BY source_path"
    found, expected = (dict(rows(folder / "fracture_watch.db", sql)) for folder in (one, other))
    assert found == pytest.approx(expected, abs=1e-5)
    pictures = [{p.name: p.read_bytes() for p in (f / "artefacts").rglob("*.png")} for f in (one, other)]
    assert pictures[0].keys() == pictures[1].keys()
    assert len(pictures[0]) == len(found)


def test_the_results_are_those_of_the_local_engine(tmp_path, weights, cluster, caplog):
    caplog.set_level(logging.INFO, "fracture_watch")
    files = archive(tmp_path / "archive", 48)
    here, there = of(tmp_path / "here", weights), of(tmp_path / "there", weights, cluster)
    counts = scanned(there, files)
    assert counts == {"classified": 42, "rejected": 3, "failed": 3, "skipped": 0}
    assert f"Dask scheduler {cluster.address}: 2 workers with 2 threads, dashboard http://127.0.0.1:" in caplog.text
    assert scanned(here, files) == counts
    same_results(there, here)

    # Repeats: in place they are skipped; elsewhere they are duplicates, of what is recorded and of each other.
    moved = tmp_path / "moved"
    shutil.copytree(files / "0", moved / "a")
    (moved / "a" / "new").write_bytes(png(1000))
    shutil.copytree(moved / "a", moved / "b")
    repeated = Counter(row[0] for row in rows(there / "fracture_watch.db", BELOW_0))
    twice = {status: 2 * repeated[status] for status in ("rejected", "failed")}
    expected = {"skipped": 48, "classified": 1, "duplicate": 2 * repeated["classified"] + 1} | twice
    assert scanned(there, moved, files) == Counter(expected)


BELOW_0 = "SELECT status FROM results WHERE source_path LIKE '%/archive/0/%'"


def attacked(folder: Path, files: Path, cluster: Cluster, *, worker: bool, scheduler: bool) -> str:
    """The log of a scan during which that much of the cluster died and was started again."""
    process = started(folder, files)
    database = folder / "fracture_watch.db"

    def recorded(least: int) -> bool:
        return len(rows(database, "SELECT id FROM results")) >= least

    if worker:
        until(lambda: recorded(4), process)
        cluster.kill_worker()
        cluster.add_worker()
    if scheduler:
        until(lambda: recorded(24), process)
        cluster.stop()
        cluster.start(2)
    assert process.wait(300) == 1, (folder / "err").read_text()
    return (folder / "err").read_text()


def test_a_worker_and_then_the_scheduler_are_killed_and_every_file_is_recorded_once(tmp_path, weights, cluster):
    files = archive(tmp_path / "archive", 96)
    folder = of(tmp_path / "there", weights, cluster)
    log = attacked(folder, files, cluster, worker=True, scheduler=True)
    assert "is lost; waiting up to 300 s for it" in log
    assert "is back" in log
    assert "Traceback" not in log
    recorded = rows(folder / "fracture_watch.db", "SELECT source_path FROM results")
    assert Counter(path for (path,) in recorded) == Counter(str(p) for p in files.rglob("*") if p.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_500_files_with_a_victim_midway_are_what_the_local_engine_makes_of_them(tmp_path, weights, cluster, victim):
    files = archive(tmp_path / "archive", 500)
    here, there = of(tmp_path / "here", weights), of(tmp_path / "there", weights, cluster)
    attacked(there, files, cluster, worker=victim == "worker", scheduler=victim == "scheduler")
    scanned(here, files)
    assert rows(there / "fracture_watch.db", "SELECT count(*), count(DISTINCT source_path) FROM results") == [
        (500, 500)
    ]
    same_results(there, here)


def named(*names: str) -> list[SourceFile]:
    return [SourceFile(Path("/archive") / name, 1, 1, number, now()) for number, name in enumerate(names)]


def answers(engine: DaskEngine, *names: str) -> list:
    return engine.submit(named(*names), lambda _: nullcontext()).result(60)


def kept_nothing(path: Path, picture: bytes) -> None:
    raise AssertionError(path)


def test_a_file_that_kills_every_worker_fails_alone(own_cluster):
    own_cluster.start(1, "--nanny", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    with closing(DaskEngine(own_cluster.address, frugal, kept_nothing, patience=30)) as engine:
        assert engine.ahead == 2
        before, guilty, after = answers(engine, "a", "deadly", "b")
        assert isinstance(guilty, Failed)
        assert (guilty.code, "1 Dask workers died" in guilty.detail) == ("decoder_crashed", True)
        assert [o.detail for o in (before, after) if isinstance(o, Rejected)] == ["a", "b"]
        [failed, well] = answers(engine, "odd", "c")
        assert (failed.code, well.code) == ("internal", "not_an_image")


def test_without_workers_or_scheduler_patience_ends(own_cluster):
    own_cluster.start(1)
    with closing(DaskEngine(own_cluster.address, frugal, kept_nothing, patience=3)) as engine:
        assert [outcome.detail for outcome in answers(engine, "a")] == ["a"]
        connected = engine._last_worker  # patience counts from when there last was one, not from the start
        until(lambda: engine.ahead and engine._last_worker > connected, own_cluster.scheduler)
        own_cluster.kill_worker()
        with pytest.raises(EngineUnavailable, match=r"no workers for 3 s.*run the same command again"):
            answers(engine, "a")
        with pytest.raises(InvalidSettings, match="no workers for 3 s; start some: dask worker tcp://"):
            engine.ask(str)
        own_cluster.stop()
        for _ in range(2):  # and nobody waits for it a second time
            with pytest.raises(EngineUnavailable, match="did not come back within 3 s"):
                answers(engine, "a")
        own_cluster.start(1)  # another scheduler, which does not know what is to be taken from its workers


def test_a_scheduler_that_took_anothers_place_between_batches_gets_the_desk_too(own_cluster):
    """The client goes over to it by itself, and nothing was in flight by which the loss would show."""
    own_cluster.start(1)
    with closing(DaskEngine(own_cluster.address, frugal, kept_nothing, patience=30)) as engine:
        assert [outcome.code for outcome in answers(engine, "a")] == ["not_an_image"]
        own_cluster.stop()
        own_cluster.start(1)
        until(lambda: engine._client.status == "running", own_cluster.scheduler)
        assert [outcome.code for outcome in answers(engine, "b", "c")] == ["not_an_image"] * 2


def test_an_address_where_nobody_is_is_named():
    with pytest.raises(InvalidSettings, match=r"engine\.address: no Dask scheduler answers at tcp://127.0.0.1:1 "):
        DaskEngine("tcp://127.0.0.1:1", frugal, kept_nothing, patience=1)
