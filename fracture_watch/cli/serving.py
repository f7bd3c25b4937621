"""``run``, ``watch``, ``serve``: what goes on until it is told to stop."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fracture_watch.cli.common import DEFAULT_CONFIG, Config, settings_from
from fracture_watch.errors import InvalidSettings

if TYPE_CHECKING:
    from fracture_watch.assembly import Runtime
    from fracture_watch.config import Settings
    from fracture_watch.daemon import Daemon

log = logging.getLogger("fracture_watch")
_STOP_SECONDS = 30.0  # after SIGTERM what is in hand is finished; past this it is released, unrecorded
_THREADS = 16


def run(config: Config = DEFAULT_CONFIG) -> None:
    """Start the watcher and the web service in one process."""
    _start(config, watching=True, serving=True)


def watch(config: Config = DEFAULT_CONFIG) -> None:
    """Start the watcher alone."""
    _start(config, watching=True, serving=False)


def serve(config: Config = DEFAULT_CONFIG) -> None:
    """Start the web service alone."""
    _start(config, watching=False, serving=True)


def receive(config: Config = DEFAULT_CONFIG) -> None:
    """Start the DICOM receiver alone, which puts objects into the inbox."""
    settings = settings_from(config)
    stop = _stop_on_signals()
    from fracture_watch import assembly
    from fracture_watch.delivery.metrics import Metrics

    with assembly.receiving(settings, Metrics()):
        stop.wait()
    log.info("stopped")


def _start(config: Path, *, watching: bool, serving: bool) -> None:
    settings = settings_from(config)
    if watching and settings.engine.kind != "local":
        raise InvalidSettings(
            f"engine.kind: {settings.engine.kind} is for `scan`. A watcher decodes where its inbox is, so that a file "
            "is in its place seconds after it came; set it to local, or have several watchers, each with its own inbox"
        )
    stop = _stop_on_signals()
    from fracture_watch import assembly

    with assembly.runtime(settings) as running:
        assembly.check_model(running.classifier)
        with (
            closing(assembly.open_database(settings)) as database,
            assembly.claimed(settings) if watching else nullcontext(),
        ):
            database.check()
            watcher = assembly.daemon(settings, running, database) if watching else None
            # Whoever watches delivers: the inbox's lock keeps a second one from sending everything twice.
            sending = assembly.delivering(settings, running.metrics, stop) if watching else nullcontext()
            # Only the whole program receives, so that one file of settings does for `receive` beside `watch`.
            received = assembly.received_if_wanted(settings, running.metrics) if watching and serving else nullcontext()
            with sending, received as receiver:
                app = assembly.website(settings, running, database, watcher, receiver) if serving else None
                with _served(app, settings):
                    _work(settings, running, watcher, stop)
    log.info("stopped")


def _work(settings: "Settings", running: "Runtime", watcher: "Daemon | None", stop: threading.Event) -> None:
    facts = running.classifier.card.facts
    log.info("model %s %s (%s); research use only, not a medical device", facts.name, facts.version, facts.id)
    if watcher is None:
        stop.wait()
        return
    log.info("drop radiographs into %s; results are recorded in %s", settings.inbox.path, settings.database.shown)
    watcher.run(stop)


def _stop_on_signals() -> threading.Event:
    """SIGTERM and Ctrl-C ask to stop; if that takes too long, the process ends, which loses nothing."""
    stop = threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():
            return
        stop.set()
        timer = threading.Timer(_STOP_SECONDS, _release)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop


def _release() -> None:
    """Leave what is in hand: it is not recorded yet, so the next start does it."""
    log.error("what is in hand takes longer than %g s; it is left for the next start", _STOP_SECONDS)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


@contextmanager
def _served(app: object, settings: "Settings") -> Iterator[None]:
    if app is None:
        yield
        return
    from waitress.server import create_server

    from fracture_watch.errors import InvalidSettings

    web = settings.web
    try:
        server = create_server(
            app,
            # One address: "localhost" would be two listeners where IPv6 is on.
            host="127.0.0.1" if web.host == "localhost" else web.host,
            port=web.port,
            threads=_THREADS,
            # Up to twice the limit, the answer is our JSON; beyond that the server ends it while reading.
            max_request_body_size=web.max_upload_mb << 21,
        )
    except OSError as error:
        raise InvalidSettings(
            f"web.port: {web.host}:{web.port} cannot be used: {error.strerror or error}; another program may have it. "
            "Set web.port to a free one, or to 0 for any"
        ) from error
    threading.Thread(target=server.run, name="web", daemon=True).start()
    host = f"[{server.effective_host}]" if ":" in server.effective_host else server.effective_host
    log.info("the page is http://%s:%s/", host, server.effective_port)
    try:
        yield
    finally:
        server.close()
