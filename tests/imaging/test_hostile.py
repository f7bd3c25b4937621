"""Whatever arrives ends as classified, rejected or failed with the right code, and costs nobody else anything.

The cases and what may come of each stand in the modules ``hostile_*``. All go through real workers
with small limits; one pool takes them all, so that it has to recover again and again.

``FRACTURE_WATCH_FUZZ=5000`` tries so many mutated files instead of 300.
"""

import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fracture_watch.imaging.workers import Plan, WorkerPool
from fracture_watch.outcomes import Outcome
from fracture_watch.pipeline import Pipeline
from fracture_watch.records import SourceFile, Upload
from tests.conftest import REPOSITORY
from tests.imaging import hostile, hostile_dicom, hostile_elements, hostile_raster, hostile_streams, hostile_tiff
from tests.imaging.hostile import ABORTS, ALLOWED, CLASSIFIED, DIES, HANGS, Case, OneAnswer, marked, mutations, sound

GROUPS: dict[str, list[Case]] = {}
for module in (hostile_dicom, hostile_streams, hostile_elements, hostile_raster, hostile_tiff):
    GROUPS |= module.groups()
EVERY = [(group, case) for group, cases in GROUPS.items() for case in cases]
MUTATIONS = int(os.environ.get("FRACTURE_WATCH_FUZZ", "300"))
MEMORY_MB = 512


@contextmanager
def decoding(
    plan: Plan, workers: int = 2, timeout_seconds: float = 10.0, memory_mb: int = MEMORY_MB
) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as paths:
        paths.syspath_prepend(REPOSITORY)  # what a spawned worker unpickles it must be able to import
        with closing(WorkerPool(plan, workers, timeout_seconds, memory_mb)) as pool:
            yield Pipeline(pool, OneAnswer())


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with decoding(hostile.PLAN) as running:
        yield running


@pytest.fixture(scope="module")
def impatient() -> Iterator[Pipeline]:
    with decoding(hostile.ANY_MODALITY, timeout_seconds=3.0) as running:
        yield running


def code_of(outcome: Outcome) -> str:
    return getattr(outcome, "code", CLASSIFIED)


@pytest.fixture(scope="module")
def outcomes(pipeline: Pipeline) -> Callable[[str], dict[str, Outcome]]:
    """The outcomes of a group, which went as one batch with a sound file before and one behind."""
    known: dict[str, dict[str, Outcome]] = {}

    def _outcomes(group: str) -> dict[str, Outcome]:
        if group not in known:
            hostiles = [Upload(case.name, case.make()) for case in GROUPS[group]]
            batch = [Upload("first", sound(1)), *hostiles, Upload("last", sound(2))]
            known[group] = dict(zip([upload.name for upload in batch], pipeline.run(batch), strict=True))
        return known[group]

    return _outcomes


def test_there_are_many_cases_and_each_has_a_name_of_its_own():
    assert len(EVERY) >= 100
    assert len({(group, case.name) for group, case in EVERY}) == len(EVERY)
    print(f"{len(EVERY)} hostile files in {len(GROUPS)} groups")


@pytest.mark.parametrize(("group", "case"), EVERY, ids=[f"{group}: {case.name}" for group, case in EVERY])
def test_a_hostile_file_ends_with_the_right_code(outcomes, group: str, case: Case):
    outcome = outcomes(group)[case.name]
    assert code_of(outcome) in case.expected, outcome
    assert outcome.sha256
    assert all(count is None or 0 <= count < 2**31 for count in (outcome.facts.rows, outcome.facts.columns))
    if code_of(outcome) != CLASSIFIED:
        assert 10 < len(outcome.detail) < 1000, outcome.detail
        assert "\n" not in outcome.detail


@pytest.mark.parametrize("group", GROUPS)
def test_the_sound_files_around_hostile_ones_are_classified(outcomes, group: str):
    assert [code_of(outcomes(group)[name]) for name in ("first", "last")] == [CLASSIFIED] * 2


def test_mutated_real_files_end_with_a_code(impatient):
    """Most are still readable somehow. None may be our mistake, and none may take a worker with it unsaid."""
    came, wrong = Counter(), []
    for first in range(0, MUTATIONS, 100):
        files = mutations(min(100, MUTATIONS - first), 7_000_000 + first)
        batch = [Upload(name, content) for name, content in files] + [Upload("sound", sound(3))]
        results = [code_of(outcome) for outcome in impatient.run(batch)]
        came.update(results[:-1])
        wrong += [upload.name for upload, code in zip(batch, results, strict=True) if code not in ALLOWED]
        assert results[-1] == CLASSIFIED
    print(dict(came))
    assert wrong == []
    assert came.total() == MUTATIONS
    assert len(came) >= 4  # the mutations reach more than one check
    assert came["decoder_crashed"] == 0, "see which: it is a defect of a codec that should be refused before"


# ---------------------------------------------------------------- neighbours


@pytest.mark.parametrize(
    ("wish", "code"),
    [(DIES, "decoder_crashed"), (ABORTS, "decoder_crashed"), (HANGS, "timeout")],
    ids=["killed", "aborts", "hangs"],
)
def test_who_is_in_flight_beside_a_dying_worker_is_neither_lost_nor_blamed(impatient, wish: int, code: str):
    """Both workers have work all the time, and one of them dies twice in the middle of it."""
    deaths = (9, 10)
    contents = [marked(wish) if n in deaths else sound(100 + n) for n in range(24)]
    results = impatient.run([Upload(str(n), content) for n, content in enumerate(contents)])
    assert [code_of(result) for result in results] == [code if n in deaths else CLASSIFIED for n in range(24)]
    assert [result.facts.patient_id for n, result in enumerate(results) if n not in deaths] == [
        f"P{100 + n}" for n in range(24) if n not in deaths
    ]


def test_every_file_of_a_batch_may_kill_its_worker(impatient):
    batch = [Upload(str(n), marked(DIES)) for n in range(3)]
    assert [code_of(outcome) for outcome in impatient.run([*batch, Upload("sound", sound())])] == [
        *["decoder_crashed"] * 3,
        CLASSIFIED,
    ]


def test_the_next_batch_is_not_harmed_by_workers_that_were_killed_between(impatient):
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.5)
    assert code_of(impatient.run([Upload("sound", sound())])[0]) == CLASSIFIED


def test_an_upload_that_a_worker_cannot_even_receive_costs_itself_alone():
    """Its process has no memory for the bytes, and dies before it could say which file it was given."""
    codes: list[str] = []

    def _send() -> None:
        with decoding(hostile.PLAN, memory_mb=64) as running:
            batch = [Upload("a", sound(1)), Upload("b", bytes(200 << 20)), Upload("c", sound(2))]
            codes.extend(map(code_of, running.run(batch)))

    sending = threading.Thread(target=_send, daemon=True)  # so that a pool that never answers does not hold the suite
    sending.start()
    sending.join(30)
    assert len(codes) == 3, "the batch was lost, or hangs"
    assert (codes[0], codes[2]) == (CLASSIFIED, CLASSIFIED)
    assert codes[1] in ("too_large", "out_of_memory", "decoder_crashed")


# ---------------------------------------------------------------- memory

_SAYS_ITS_SIZE = re.compile("bomb|60000|2\\^|nothing|65535|both|palette")
_MAY_SWALLOW = {"J2K precincts of 1 x 1"}  # its size is only known to the codec; the limit stops it
_LARGE = [case for _, case in EVERY if _SAYS_ITS_SIZE.search(case.name) and case.name not in _MAY_SWALLOW]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux: a process's peak is read there")
def test_what_declares_too_much_is_refused_before_memory_is_taken():
    """A worker's peak, file by file, far below its limit of 512 MiB."""
    assert len(_LARGE) > 50
    too_much, before = {}, set(multiprocessing.active_children())
    with decoding(hostile.PLAN, workers=1) as running:
        running.run([Upload("sound", sound())])
        [worker] = set(multiprocessing.active_children()) - before
        for case in _LARGE:
            content = case.make()
            began = _forget_peak(worker.pid)
            [outcome] = running.run([Upload(case.name, content)])
            grown = _status(worker.pid, "VmHWM") - began
            if grown > (160 << 20) + 4 * len(content):
                too_much[case.name] = f"{grown >> 20} MiB, {code_of(outcome)}"
            assert code_of(outcome) not in ("out_of_memory", "timeout", "decoder_crashed"), case.name
        assert worker.is_alive()  # it is still the one that was measured
    assert too_much == {}


def test_what_only_the_codec_can_know_is_stopped_by_the_limit(outcomes):
    for name in _MAY_SWALLOW:
        assert code_of(outcomes("bomb")[name]) in ("corrupt", "out_of_memory")


def _status(pid: int, key: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) * 1024


def _forget_peak(pid: int) -> int:
    """Start the peak anew (proc(5)); the present size."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return _status(pid, "VmRSS")


# ---------------------------------------------------------------- things that are no regular files


def source(path: Path) -> SourceFile:
    return SourceFile(path, 0, 0, 0, "2024-01-01T00:00:00.000000Z")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    """/dev/zero: a file without an end. Where nobody may make one, a link to it does as well."""
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))
        path.open("rb").close()  # a file system may be mounted so that devices on it do not open
    except PermissionError:
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _two_in_a_ring(path: Path) -> None:
    path.symlink_to(f"{path.name}-")
    path.with_name(f"{path.name}-").symlink_to(path.name)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _nothing(path: Path) -> None:
    path.with_name("gone").unlink(missing_ok=True)


_THINGS = {
    "a folder": (Path.mkdir, "unreadable"),
    "a FIFO that nobody writes": (_fifo, "unreadable"),
    "a device without an end": (_device, "unreadable"),
    "a socket": (_socket, "unreadable"),
    "a link to itself": (_loop, "unreadable"),
    "links in a ring": (_two_in_a_ring, "unreadable"),
    "a file of a tebibyte of holes": (_huge, "too_large"),
    "an empty file": (_empty, "corrupt"),
    "nothing": (_nothing, "unreadable"),
}


@pytest.mark.parametrize("name", _THINGS)
def test_what_is_no_readable_file_is_said_at_once(impatient, tmp_path, name: str):
    """The watcher passes these over; they come by name, or take a file's place after the listing."""
    make, code = _THINGS[name]
    path = tmp_path / "x.dcm"
    make(path)
    good = tmp_path / "good.dcm"
    good.write_bytes(sound())
    begun = time.monotonic()
    results = [code_of(outcome) for outcome in impatient.run([source(path), source(good)])]
    assert results == [code, CLASSIFIED]
    assert time.monotonic() - begun < 2.9  # and not by the time limit


def test_a_file_that_may_not_be_read_is_unreadable(tmp_path):
    """Root may read everything, so a child without its rights looks."""
    path = tmp_path / "x.dcm"
    path.write_bytes(sound())
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            from fracture_watch.imaging.workers import prepare

            prepare(source(path), hostile.PLAN)
        except BaseException as error:  # noqa: BLE001  a child must not go on with the suite
            os.write(writing, getattr(error, "code", repr(error)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"unreadable"
    os.waitpid(child, 0)
