"""Several real daemons on inboxes of their own, which write to one database."""

import hashlib
import os
import signal
from contextlib import closing, suppress

import numpy as np
import pytest

from fracture_watch.results.database import Database
from tests.conftest import png, write_config
from tests.databases import query
from tests.delivery.receiver import SECRET, Receiver
from tests.dicoms import dicom
from tests.test_daemon import drop, files
from tests.test_end_to_end import Process

STUDIES = ("1.2.3.1", "1.2.3.2", "1.2.3.3")


def contents():
    """Pictures, and films of three studies."""
    found = {f"{number}.png": png(number) for number in range(6)}
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 4096, (80, 60), dtype=np.uint16)
        study = STUDIES[number % 3]
        found[f"{number}.dcm"] = dicom(pixels, seed=number, BitsStored=12, StudyInstanceUID=study)
    return found


def waiting(folder):
    return [name for name in files(folder / "inbox") if not name.startswith(".")]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_two_daemons_that_get_the_same_files_classify_each_content_once(tmp_path, weights, url):
    receiver, folders, started = Receiver(), [tmp_path / "a", tmp_path / "b"], []
    hooks = {"hooks": [{"url": receiver.url, "name": "x"}], "secret": SECRET, "study_quiet_seconds": 1.0}
    for folder in folders:
        folder.mkdir()
        write_config(folder, weights, database={"url": url}, webhooks=hooks)
        (folder / "inbox").mkdir()
    try:
        with receiver.up(), closing(Database(url)) as database:
            started += [Process(folder, "run") for folder in folders]
            for process in started:
                process.ready()
            everything = contents()
            for name, content in everything.items():
                for folder, mine in zip(folders, (name, f"again/{name}"), strict=True):
                    drop(folder, mine, content)
            started[0].until(lambda: query(database, "SELECT count(*) AS n FROM file") == [{"n": 36}])
            # One dies with files that are recorded and not yet filed, perhaps; it finishes its own, and no others.
            os.kill(started[1].process.pid, signal.SIGKILL)
            started[1].kill()
            started[1] = Process(folders[1], "run")
            for process, folder in zip(started, folders, strict=True):
                process.until(lambda folder=folder: not waiting(folder))
                process.until(lambda: query(database, "SELECT count(*) AS n FROM file WHERE NOT filed") == [{"n": 0}])
            rows = query(database, "SELECT status, sha256, filed_path, watcher FROM file")
            due = "SELECT count(*) AS n FROM outbox WHERE next_attempt_at IS NOT NULL"
            started[0].until(lambda: query(database, due) == [{"n": 0}])
            studies = query(database, "SELECT study_uid, files, classified FROM studies ORDER BY study_uid")
            assert [process.stop() for process in started] == [0, 0]
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                process.kill()
    digests = sorted(hashlib.sha256(content).hexdigest() for content in everything.values())
    for status in ("classified", "duplicate"):
        assert sorted(row["sha256"] for row in rows if row["status"] == status) == digests
    assert sorted(files(folders[0] / "processed")) == sorted(everything)
    assert sorted(files(folders[1] / "processed")) == sorted(f"again/{name}" for name in everything)
    assert len({row["watcher"] for row in rows}) == 2
    for folder in folders:
        [name] = {row["watcher"] for row in rows if row["filed_path"].startswith(f"{folder}/")}
        assert (folder / "inbox/.fracture_watch.name").read_text().strip() == name
    counts = {row["study_uid"]: (row["files"], row["classified"]) for row in studies}
    assert {uid: counts[uid] for uid in STUDIES} == dict.fromkeys(STUDIES, (4, 4))
    assert len(counts) == 9
    results = [message["delivery"] for message in receiver.messages if message["event"] == "result"]
    assert len(set(results)) == 36
    assert len(results) - 36 in (0, 1)  # who dies between the answer and its note sends one again
