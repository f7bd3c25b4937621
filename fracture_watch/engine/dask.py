"""Batches on the workers of a Dask scheduler: they compute, this process keeps what they return."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from distributed import Client, KilledWorker
from distributed.client import ClosedClientError

from fracture_watch.engine.desk import Computed, Desk, DeskMissing, Opening, Task
from fracture_watch.errors import (
    DecoderCrashed,
    DecodersUnavailable,
    EngineUnavailable,
    FractureWatchError,
    Internal,
    InvalidSettings,
)
from fracture_watch.outcomes import Failed, Outcome
from fracture_watch.records import SourceFile
from fracture_watch.stages import Measure

log = logging.getLogger(__name__)
_ANSWER_SECONDS = 10.0  # for a scheduler that is there
_TICK_SECONDS = 5.0
_AHEAD = 2  # batches for each thread of a worker: one that it works on, and one that it need not wait for
_MOST_AHEAD = 256  # batches; with more threads than half of that, recording is what takes the time
_RETRIES = 2  # of a batch whose worker was stopped while it ran
# DeskMissing: a client goes over to another scheduler at the same address by itself, and says nothing.
_LOST = (CancelledError, ClosedClientError, DeskMissing, OSError)


class DaskEngine:
    """Runs batches on a cluster. A worker or the scheduler that dies costs time, never a result.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://host:8786``.
    opening : function
        Picklable. Makes, on a worker and for so many of its threads, what computes batches there.
    keep : function
        Puts a picture in its place.
    patience : float
        Seconds to wait for a scheduler, or for a first worker, that is gone.

    Raises
    ------
    InvalidSettings
        If no scheduler answers, or it has no workers.
    """

    def __init__(self, address: str, opening: Opening, keep: Callable[[Path, bytes], None], patience: float) -> None:
        self._address = address
        self._desk = Desk(opening)
        self._keep = keep
        self._patience = patience
        self._tick = min(_TICK_SECONDS, patience)
        self._name = f"fracture_watch-{uuid.uuid4()}"  # of the desk, on the workers
        self._changing = threading.Lock()
        self._closing = False
        self._gone: EngineUnavailable | None = None
        self._threads, self._counted, self._last_worker = 0, 0.0, time.monotonic()
        try:
            self._client = self._connected()
        except OSError as error:
            raise InvalidSettings(
                f"engine.address: no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, "
                "or set engine.kind to local"
            ) from error
        self._waiting = ThreadPoolExecutor(_MOST_AHEAD + 1, "dask")

    @property
    def ahead(self) -> int:
        """Two batches for every thread that the workers have now: as workers come and go, so does what is in flight."""
        if time.monotonic() - self._counted > self._tick:
            with suppress(*_LOST):
                self._count()
        return min(max(1, self._threads) * _AHEAD, _MOST_AHEAD)

    def describe(self) -> str:
        """The cluster in words, with the page on which it can be watched."""
        threads = self._client.nthreads()
        try:
            page = f"dashboard {self._client.dashboard_link}"
        except KeyError:  # the scheduler was started without it
            page = "no dashboard"
        return f"{self._address}: {len(threads)} workers with {sum(threads.values())} threads, {page}"

    def ask(self, question: Callable[[], str | None]) -> dict[str, str]:
        """What each worker has to say; those that have nothing are left out.

        Raises
        ------
        InvalidSettings
            If there are no workers.
        """
        if not self._client.nthreads():
            log.info("the Dask scheduler at %s has no workers yet; waiting up to %g s", self._address, self._patience)
        with suppress(TimeoutError):
            self._client.wait_for_workers(1, timeout=self._patience)
        answers = self._client.run(question, on_error="return")
        if not answers:
            raise InvalidSettings(
                f"engine.address: the Dask scheduler at {self._address} has had no workers for {self._patience:g} s; "
                f"start some: dask worker {self._address} --no-nanny"
            )
        said = {worker: _text(answer) for worker, answer in answers.items() if answer is not None}
        return dict(sorted(said.items()))

    def submit(self, batch: Sequence[SourceFile], measure: Measure) -> Future[list[Outcome]]:
        """Send ``batch`` to the scheduler, which gives it to a worker."""
        return self._waiting.submit(self._bring, batch, measure)

    def close(self) -> None:
        """Leave the cluster; what is in flight is given up."""
        self._closing = True
        with suppress(*_LOST):
            self._client.close(timeout=self._tick)
        with (
            suppress(*_LOST, ValueError),  # ValueError: another scheduler, which never had the desk
            Client(self._address, timeout=min(_ANSWER_SECONDS, self._patience), set_as_default=False) as client,
        ):
            client.unregister_worker_plugin(self._name)
        self._waiting.shutdown(cancel_futures=True)

    def _bring(self, batch: Sequence[SourceFile], measure: Measure) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with measure("compute"):
            parts = self._parts(batch)
        with measure("draw"):
            for part in parts:
                outcomes += part.outcomes
                for path, picture in part.pictures.items():
                    self._keep(path, picture)
        return outcomes

    def _parts(self, batch: Sequence[SourceFile]) -> list[Computed]:
        """Of the whole batch; where it cannot be had, of one file after the other, so that one names the culprit."""
        try:
            return [self._computed(batch)]
        except FractureWatchError:
            raise
        except KilledWorker as error:
            code, why = DecoderCrashed.code, f"each of {error.allowed_failures + 1} Dask workers died at this file"
        except Exception as error:
            log.exception("a batch of %d files failed on its Dask worker in a way that is no file's fault", len(batch))
            code, why = Internal.code, f"a defect in this program ({type(error).__name__})"
        if len(batch) > 1:
            log.warning("a batch of %d files could not be computed; they are tried one by one", len(batch))
            return [part for source in batch for part in self._parts([source])]
        return [Computed([Failed(code, f"{why}; the worker's log may say why")], {})]

    def _computed(self, batch: Sequence[SourceFile]) -> Computed:
        """What a worker makes of it, sent as often as it takes; raises what the worker raises."""
        while True:
            client = self._client
            try:
                answer = self._answer(client, batch)
            except _LOST:
                self._reconnect(client)
                continue
            if isinstance(answer, Computed):
                return answer
            raise answer

    def _answer(self, client: Client, batch: Sequence[SourceFile]) -> Computed | Exception:
        """What a worker returns or raises; raises where the scheduler is lost or another, or its last worker is."""
        name = f"fracture_watch-{uuid.uuid4()}"  # Dask shows and logs it
        future = client.submit(Task(self._name, batch), key=name, retries=_RETRIES, pure=False)
        while True:
            try:
                computed: Computed = future.result(timeout=self._tick)
                return computed
            except Exception as error:
                if future.status == "error" and not isinstance(error, DeskMissing):
                    return error
                if not isinstance(error, TimeoutError):
                    raise
                self._require_workers(client)

    def _require_workers(self, client: Client) -> None:
        """Notice when nobody is left who could do it."""
        if client.nthreads():
            self._last_worker = time.monotonic()
            return
        without = time.monotonic() - self._last_worker
        log.warning("the Dask scheduler at %s has had no workers for %.0f s", self._address, without)
        if without > self._patience:
            raise EngineUnavailable(
                f"the Dask scheduler at {self._address} has had no workers for {self._patience:g} s; start some and "
                "run the same command again: it goes on with what is not recorded"
            )

    def _reconnect(self, lost: Client) -> None:
        """Wait for the scheduler, or another one at its address; whoever comes first does it for all."""
        with self._changing:
            if self._closing:
                raise DecodersUnavailable("the connection to the Dask scheduler is closing with the program")
            if self._gone:
                raise self._gone
            if self._client is not lost:
                return
            log.warning("the Dask scheduler at %s is lost; waiting up to %g s for it", self._address, self._patience)
            with suppress(*_LOST, TimeoutError):
                lost.close(timeout=self._tick)
            self._client = self._found_again()
            log.warning("the Dask scheduler at %s is back; what was in flight is sent again", self._address)

    def _found_again(self) -> Client:
        deadline = time.monotonic() + self._patience
        while not self._closing:
            try:
                return self._connected()
            except _LOST:
                if time.monotonic() > deadline:
                    break
                time.sleep(1)
        self._gone = EngineUnavailable(
            f"the Dask scheduler at {self._address} did not come back within {self._patience:g} s; start it and its "
            "workers, and run the same command again: it goes on with what is not recorded"
        )
        raise self._gone

    def _connected(self) -> Client:
        client = Client(self._address, timeout=min(_ANSWER_SECONDS, self._patience), set_as_default=False)
        client.register_plugin(self._desk, name=self._name)
        self._last_worker = time.monotonic()
        return client

    def _count(self) -> None:
        self._counted = time.monotonic()
        self._threads = sum(self._client.nthreads().values())
        if self._threads:
            self._last_worker = time.monotonic()


def _text(answer: object) -> str:
    return f"{type(answer).__name__}: {answer}" if isinstance(answer, BaseException) else str(answer)
