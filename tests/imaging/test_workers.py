import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fracture_watch import errors, imaging
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.workers import Plan, WorkerPool, prepare
from fracture_watch.records import SourceFile, Upload
from tests.dicoms import dicom

REPOSITORY = Path(__file__).parents[2]
# The first pixel of a file tells the worker what shall become of it.
SOUND, EXITS, DIES, HANGS, SWALLOWS, TELLS = 1, 2, 3, 4, 5, 6


def misbehave(pixels):
    """What a codec may do to its process."""
    wish = int(pixels[0, 0])
    if wish == EXITS:
        os._exit(3)
    if wish == DIES:
        os.kill(os.getpid(), signal.SIGSEGV)
    if wish == HANGS:
        time.sleep(600)
    if wish == SWALLOWS:
        np.ones(1 << 30, np.uint8)
    if wish == TELLS:
        return np.array([[name in sys.modules for name in ("numpy", "torch", "torchvision", "timm")]], np.uint8)
    return pixels


def small(pixels):
    return misbehave(pixels), pixels[::2, ::2]


PLAN = Plan(small, Limits(max_frames=2), Scope(modalities=frozenset({"DX"})))


def upload(wish: int, **elements) -> Upload:
    pixels = np.full((4, 4), wish, np.uint8)
    return Upload(f"{wish}.dcm", dicom(pixels, WindowCenter=128, WindowWidth=256, **elements))


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    # What a spawned worker unpickles it must be able to import.
    with pytest.MonkeyPatch.context() as paths:
        paths.syspath_prepend(REPOSITORY)
        workers = WorkerPool(PLAN, workers=2, timeout_seconds=3.0, memory_mb=512)
        yield workers
        workers.close()


def test_a_worker_returns_small_pictures_and_facts(pool):
    source = upload(SOUND, seed=4)
    prepared = pool.submit(source).result()
    assert prepared.sha256 == hashlib.sha256(source.content).hexdigest()
    assert prepared.tensor.tolist() == [[[1] * 4] * 4]
    assert [preview.tolist() for preview in prepared.previews] == [[[1, 1], [1, 1]]]
    assert (prepared.facts.patient_id, prepared.notes) == ("P4", ())


def test_a_worker_that_is_killed_while_it_answers_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(imaging.workers, "_START_SECONDS", 8.0)
    monkeypatch.syspath_prepend(REPOSITORY)
    before = set(multiprocessing.active_children())
    workers = WorkerPool(PLAN, workers=2, timeout_seconds=1.0, memory_mb=2048)
    try:
        assert workers.submit(upload(SOUND)).result()
        long = workers.run(partial(bytes, 400_000_000))
        time.sleep(0.2)  # by now it is on its way through the pipe that all workers share
        sizes = {process: _resident_pages(process.pid) for process in set(multiprocessing.active_children()) - before}
        os.kill(max(sizes, key=sizes.__getitem__).pid, signal.SIGKILL)
        sound = [workers.submit(upload(SOUND)) for _ in range(3)]
        assert [decoding.result().tensor.tolist() for decoding in sound] == [[[[1] * 4] * 4]] * 3
        with suppress(errors.FractureWatchError):  # on a slow machine it takes longer than it may
            assert len(long.result()) == 400_000_000
    finally:
        workers.close()


def _resident_pages(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def test_a_worker_never_imports_torch(pool):
    assert pool.submit(upload(TELLS)).result().tensor.tolist() == [[[1, 0, 0, 0]]]


@pytest.mark.parametrize(
    ("wish", "kind", "detail"),
    [
        (
            EXITS,
            errors.DecoderCrashed,
            "the decoder process died twice on this file (Abnormal termination); convert the "
            "file with another program and send that",
        ),
        (
            DIES,
            errors.DecoderCrashed,
            "the decoder process died twice on this file (Abnormal termination); convert the "
            "file with another program and send that",
        ),
        (
            HANGS,
            errors.TimedOut,
            "decoding took more than 3 s (imaging.timeout_seconds); raise it if such files are expected",
        ),
        (
            SWALLOWS,
            errors.OutOfMemory,
            "decoding needs more than 512 MiB (imaging.memory_mb); raise it if such files are expected",
        ),
    ],
    ids=["exits", "dies of a signal", "hangs", "swallows memory"],
)
def test_a_file_that_harms_its_worker_costs_itself_alone(pool, wish, kind, detail):
    wishes = [SOUND, wish, SOUND, SOUND]
    harmful, *sound = [pool.submit(upload(wishes[n])) for n in (1, 0, 2, 3)]
    assert [decoding.result().tensor.tolist() for decoding in sound] == [[[[1] * 4] * 4]] * 3
    with pytest.raises(kind) as caught:
        harmful.result()
    assert caught.value.detail == detail


def test_an_error_crosses_the_process_boundary_with_what_was_known(pool):
    source = upload(SOUND, seed=8, Modality="CT")
    with pytest.raises(errors.OutOfScope) as caught:
        pool.submit(source).result()
    assert caught.value.sha256 == hashlib.sha256(source.content).hexdigest()
    assert (caught.value.facts.patient_id, caught.value.facts.modality) == ("P8", "CT")


def test_a_file_that_is_no_image_still_has_a_digest():
    with pytest.raises(errors.NotAnImage) as caught:
        prepare(Upload("x", b"no image"), PLAN)
    assert caught.value.sha256 == hashlib.sha256(b"no image").hexdigest()


def test_facts_are_known_where_only_the_pixels_are_broken():
    content = dicom(np.zeros((4, 4), np.uint8), syntax="1.2.840.10008.1.2.4.50", encoded=[b"\xff\xd8\xff\xd9"])
    with pytest.raises(errors.Corrupt) as caught:
        prepare(Upload("x", content), PLAN)
    assert caught.value.facts.patient_id == "P1"


def test_a_missing_file_has_no_digest(tmp_path):
    with pytest.raises(errors.Unreadable) as caught:
        prepare(SourceFile(tmp_path / "gone", 1, 1, 1, "now"), PLAN)
    assert caught.value.sha256 is None


def test_a_file_on_disk_is_prepared_like_an_upload(tmp_path):
    source = upload(SOUND)
    path = tmp_path / "a.dcm"
    path.write_bytes(source.content)
    prepared = prepare(SourceFile(path, 1, 1, 1, "now"), PLAN)
    assert prepared.sha256 == hashlib.sha256(source.content).hexdigest()


def test_frames_up_to_the_limit_are_prepared_and_noted():
    content = dicom(np.full((3, 4, 4), SOUND, np.uint8), WindowCenter=128, WindowWidth=256)
    prepared = prepare(Upload("x", content), PLAN)
    assert prepared.tensor.shape == (2, 4, 4)
    assert prepared.notes == ("2 of 3 frames classified",)


def test_what_is_waiting_when_the_pool_closes_is_abandoned():
    with pytest.MonkeyPatch.context() as paths:
        paths.syspath_prepend(REPOSITORY)
        workers = WorkerPool(PLAN, workers=1, timeout_seconds=60.0, memory_mb=512)
        workers.submit(upload(SOUND)).result()
        workers.submit(upload(HANGS))
        time.sleep(0.2)
        begun = time.monotonic()
        workers.close()
    assert time.monotonic() - begun < 10


def test_workers_that_are_killed_while_they_wait_are_replaced(pool):
    pool.submit(upload(SOUND)).result()
    for child in _children():
        os.kill(child, signal.SIGKILL)
    time.sleep(0.5)
    assert pool.submit(upload(SOUND)).result().sha256


def test_a_closed_pool_says_that_nothing_can_be_processed():
    with pytest.MonkeyPatch.context() as paths:
        paths.syspath_prepend(REPOSITORY)
        workers = WorkerPool(PLAN, workers=1, timeout_seconds=3.0, memory_mb=512)
        workers.close()
    with pytest.raises(errors.DecodersUnavailable):
        workers.submit(upload(SOUND))


def _children() -> list[int]:
    """This process's workers: what multiprocessing spawned, without its resource tracker."""
    return [process.pid for process in multiprocessing.active_children() if process.pid]
