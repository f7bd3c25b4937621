"""A Dask scheduler and workers as processes of their own, to be killed."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from fracture_watch.engine.desk import Computed
from fracture_watch.outcomes import Rejected
from fracture_watch.records import Facts
from tests.conftest import REPOSITORY

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Cluster:
    """One scheduler at an address that stays, and workers with one thread each."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._port = port
        self._log = (folder / "cluster.log").open("ab")

    def start(self, workers: int, *options: str, **environment: str) -> None:
        """Start the scheduler, and wait until so many workers have come."""
        self.scheduler = self._run(
            "scheduler", "--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard", **environment
        )
        for _ in range(workers):
            self.add_worker(*options)
        with Client(self.address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)

    def add_worker(self, *options: str) -> None:
        """One more; without a nanny unless the options say otherwise."""
        chosen = options or ("--no-nanny",)
        self.workers.append(self._run("worker", self.address, "--nthreads", "1", "--no-dashboard", *chosen))

    def kill_worker(self) -> None:
        """SIGKILL for one."""
        worker = self.workers.pop(0)
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def stop(self) -> None:
        """Kill all of it, with what the workers started."""
        for process in (self.scheduler, *self.workers):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                process.wait()
        self.workers.clear()

    def _run(self, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        threads = dict.fromkeys(_THREADS, "1")
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *command], stdout=self._log, stderr=self._log, start_new_session=True,
            env=os.environ | threads | {"PYTHONPATH": str(REPOSITORY)} | environment,
        )  # fmt: skip


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a plain client reads; nothing where there is no database yet."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []


def until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", seconds: float = 90) -> None:
    """Wait for something that a process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@contextmanager
def frugal(threads: int) -> Iterator[Any]:
    """Computes without a model: nothing is an image, and one name is the end of the worker."""
    yield _refuse


def _refuse(batch: Any) -> Computed:
    for source in batch:
        if source.path.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if source.path.name == "odd":
            raise ZeroDivisionError(source.path.name)
    return Computed([Rejected("not_an_image", source.path.name, None, Facts()) for source in batch], {})
