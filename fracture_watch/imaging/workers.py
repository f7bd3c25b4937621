"""Decoding in killable worker processes: a crash, a hang or a memory hog costs one file, never the daemon."""

import contextlib
import hashlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pebble import ProcessExpired, ProcessPool

from fracture_watch.allocator import keep_freed_memory
from fracture_watch.errors import DecoderCrashed, DecodersUnavailable, FractureWatchError, OutOfMemory, TimedOut
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.reader import load, open_image
from fracture_watch.records import Facts, Filed, Pixels, Prepared, Source, Upload

log = logging.getLogger(__name__)
Made = TypeVar("Made")
_KEPT = 64 << 20  # bytes: a large frame's words and their like; what is larger goes back, the limit counts it
_JOIN_SECONDS = 10.0
_LOOK_SECONDS = 1.0  # between looks at whether anything still moves
_START_SECONDS = 60.0  # for a worker to come up, at most
_ATTEMPTS = 3
_COPIES = 3  # of an upload that a worker holds while it receives it, and a little more


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker does with every file. ``small`` makes a frame's views and its preview, and is picklable."""

    small: Callable[[Pixels], tuple[Pixels, Pixels]]
    limits: Limits
    scope: Scope


def prepare(source: Source, plan: Plan) -> Prepared:
    """Read once, hash and decode those same bytes, make the small pictures. Runs in a worker.

    Raises
    ------
    FractureWatchError
        With whatever was known of the file by then.
    """
    sha256: str | None = None
    facts = Facts()
    try:
        content = source.content if isinstance(source, Upload) else load(source.path, plan.limits)
        sha256 = hashlib.sha256(content).hexdigest()
        image = open_image(content, plan.limits, plan.scope)
        facts = image.facts
        count = min(image.frames, plan.limits.max_frames)
        tensors, previews, shapes = zip(*(_small(image.pixels(frame), plan) for frame in range(count)), strict=True)
    except FractureWatchError as error:
        error.sha256 = sha256
        error.facts = error.facts if facts == Facts() else facts
        raise
    notes = image.notes
    if image.frames > 1:
        notes = (*notes, f"{count} of {image.frames} frames classified")
    return Prepared(sha256, np.stack(tensors), previews, shapes, facts, notes)


def _small(pixels: Pixels, plan: Plan) -> tuple[Pixels, Pixels, tuple[int, int]]:
    views, preview = plan.small(pixels)
    rows, columns = pixels.shape[:2]
    return views, preview, (rows, columns)


def draw(filed: Filed, limits: Limits, finish: Callable[[Pixels], bytes]) -> bytes | None:
    """Decode one frame of a filed file and make a picture of it; ``None`` if it is not the file that was filed.

    Runs in a worker.

    Raises
    ------
    FractureWatchError
    """
    content = load(filed.path, limits)
    if filed.sha256 not in (None, hashlib.sha256(content).hexdigest()):
        return None
    return finish(open_image(content, limits, Scope(), filed.greys).pixels(filed.frame))


class WorkerPool:
    """A decoder that runs ``prepare`` and ``draw`` in worker processes.

    Parameters
    ----------
    plan : Plan
    workers : int
        Number of processes.
    timeout_seconds : float
        For one file; a worker that takes longer is killed.
    memory_mb : int
        How much a worker may allocate beyond what its imports take, in MiB.
    """

    def __init__(self, plan: Plan, workers: int, timeout_seconds: float, memory_mb: int) -> None:
        self._plan = plan
        self.timeout = timeout_seconds
        self.memory_mb = memory_mb
        self._workers = workers
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = self._started()
        self._pending: set[Future[Any]] = set()
        self._moved = time.monotonic()  # when the last task ended, or the first of those that are pending came

    def submit(self, source: Source) -> "Decoding[Prepared]":
        """Start decoding ``source``; raises as ``schedule`` does."""
        task = partial(prepare, source, self._plan)
        if isinstance(source, Upload) and _COPIES * len(source.content) > self.memory_mb << 20:
            # A worker that runs out of memory while it receives a task would stop the whole pool.
            refused: Future[Prepared] = Future()
            refused.set_exception(MemoryError())
            return Decoding(self, task, refused)
        return Decoding(self, task, self.schedule(task))

    def draw(self, filed: Filed, finish: Callable[[Pixels], bytes]) -> "Decoding[bytes | None]":
        """Start making a picture of a filed file; ``finish`` is picklable. Raises as ``schedule`` does."""
        return self.run(partial(draw, filed, self._plan.limits, finish))

    def run(self, task: Callable[[], Made]) -> "Decoding[Made]":
        """Start any other picklable task on one file. Raises as ``schedule`` does."""
        return Decoding(self, task, self.schedule(task))

    def close(self) -> None:
        """Kill the workers; what they had in hand is abandoned."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            _end(pool).join(_JOIN_SECONDS)

    def schedule(self, task: Callable[[], Made]) -> "Future[Made]":
        """Hand a task to a worker.

        Raises
        ------
        DecodersUnavailable
            If the pool was closed.
        """
        with self._lock:
            if self._pool is None:
                raise DecodersUnavailable("the decoding workers are stopping with the program")
            if not self._pool.active:  # a worker that is killed while it waits breaks the whole pool
                _end(self._pool)
                self._pool = self._started()
            if not self._pending:
                self._moved = time.monotonic()
            scheduled: Future[Made] = self._pool.schedule(task, timeout=self.timeout)
            self._pending.add(scheduled)
        scheduled.add_done_callback(self._ended)
        return scheduled

    def require_progress(self) -> None:
        """Replace a pool in which nothing moves, and cancel what it had in hand.

        All workers share a pipe; one that is killed while it sends leaves half a message, at which everybody waits.
        """
        with self._lock:
            pool, still = self._pool, time.monotonic() - self._moved
            if pool is None or still < self.timeout + _START_SECONDS:
                return
            self._pool, self._moved = self._started(), time.monotonic()
            abandoned, self._pending = self._pending, set()
        log.warning("the decoding workers have not answered for %.0f s; they are replaced", still)
        _end(pool)
        for future in abandoned:
            future.cancel()

    def _ended(self, future: "Future[Any]") -> None:
        self._pending.discard(future)
        self._moved = time.monotonic()

    def _started(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._workers,
            initializer=_start_worker,
            initargs=(self.memory_mb,),
            context=multiprocessing.get_context("spawn"),
        )


def _end(pool: ProcessPool) -> threading.Thread:
    """Kill a pool's workers.

    A kill in the middle of handing over a task may leave one of the pool's threads waiting for good: whoever joins the
    pool does so in a thread that ends with the process.
    """
    pool.stop()
    ending = threading.Thread(target=pool.join, daemon=True)
    ending.start()
    return ending


@dataclass(frozen=True, slots=True)
class Decoding(Generic[Made]):
    """A decoding under way."""

    _pool: WorkerPool
    _task: Callable[[], Made]
    _future: "Future[Made]"

    def result(self) -> Made:
        """Wait for it.

        Raises
        ------
        FractureWatchError
            What stopped it, crashes and limits included.
        """
        try:
            return self._answer(self._future)
        except (ProcessExpired, BrokenProcessPool, CancelledError):
            # Another file may have taken the worker with it, or somebody killed it. Alone, a file shows what it does.
            return self._alone()

    def _alone(self, attempts: int = _ATTEMPTS) -> Made:
        cause: Exception
        try:
            return self._answer(self._pool.schedule(self._task))
        except ProcessExpired as error:
            cause = error
        except (BrokenProcessPool, CancelledError) as error:
            if attempts > 1:  # the whole pool breaks for other reasons, too: at last that is held against the file
                return self._alone(attempts - 1)
            cause = error
        raise DecoderCrashed(
            f"the decoder process died twice on this file ({cause}); convert the file with another program and "
            "send that"
        ) from cause

    def _answer(self, future: "Future[Made]") -> Made:
        while not future.done():
            wait([future], _LOOK_SECONDS)  # it does not notice by itself that one was cancelled
            self._pool.require_progress()
        try:
            return future.result()
        except TimeoutError as error:
            raise TimedOut(
                f"decoding took more than {self._pool.timeout:g} s (imaging.timeout_seconds); raise it if such files "
                "are expected"
            ) from error
        except MemoryError as error:
            raise OutOfMemory(
                f"decoding needs more than {self._pool.memory_mb} MiB (imaging.memory_mb); raise it if such files are "
                "expected"
            ) from error


def _start_worker(memory_mb: int) -> None:
    """Limit memory, leave Ctrl-C to the parent, and keep what native codecs print out of the log."""
    keep_freed_memory(_KEPT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from PIL import Image

    from fracture_watch.imaging import dicom, raster  # noqa: F401  imported now, so that the limit is counted from here

    Image.MAX_IMAGE_PIXELS = None  # imaging.max_pixels counts here
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return  # no /proc (macOS), where RLIMIT_AS has no effect either
    limit = pages * resource.getpagesize() + memory_mb * 1024 * 1024
    with contextlib.suppress(ValueError):  # a lower hard limit is already in force
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
