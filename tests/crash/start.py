"""Daemons that kill themselves, in two ways to start one.

``python -m tests.crash.start serve`` loads the program once and forks a daemon for each line that it reads, since
loading takes seconds and a kill is over in a fraction of one. Folder, settling, database, filing and heat maps of such
a daemon are the real ones, put together by the program's own assembly; it decodes in its own process (or, where asked,
in real workers), and calls bright pictures fractured.

``python -m tests.crash.start whole COMMAND...`` is the whole program, torch included, with nothing but the tap added;
``CRASH_JOURNAL`` and ``CRASH_AT`` say where the journal is and which crossing kills.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

from tests.crash.tap import Tap


class Brightness:
    """Calls bright pictures fractured."""

    def __init__(self, card):
        self.card = card

    def classify(self, prepared):
        return [self._answer(float(item.tensor.mean()) / 255) for item in prepared]

    def _answer(self, probability):
        import numpy as np

        from fracture_watch.records import Label, Prediction

        label = Label.FRACTURED if probability >= 0.5 else Label.NOT_FRACTURED
        return Prediction(label, probability, 0.5, self.card.facts, evidence=np.ones((1, 2, 2), np.float32))


class Here:
    """Decodes as a worker does, in this process."""

    def __init__(self, plan):
        self._plan = plan

    def submit(self, source):
        from fracture_watch.imaging.workers import prepare

        plan = self._plan

        class Decoding:
            def result(self):
                return prepare(source, plan)

        return Decoding()


def decoder(plan, workers):
    from fracture_watch.imaging.workers import WorkerPool

    return closing(WorkerPool(plan, workers, 30.0, 2048)) if workers else nullcontext(Here(plan))


def watch(order):
    """A daemon as ``fracture-watch watch`` is one, but for torch."""
    from fracture_watch import assembly
    from fracture_watch.assembly.model import Runtime, limits
    from fracture_watch.config import load_settings
    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.imaging.limits import Scope
    from fracture_watch.imaging.workers import Plan
    from fracture_watch.model.card import Card
    from fracture_watch.model.preprocess import Small
    from fracture_watch.pipeline import Pipeline
    from fracture_watch.viewing import Viewer
    from tests.crash.planted import BUGS

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = load_settings(Path(order["config"]), {})
    if order["bug"]:
        BUGS[order["bug"]]()
    Tap(order["journal"], order["at"]).install()
    card = Card.load(settings.model.weights)
    plan = Plan(Small(card.preprocessor), limits(settings), Scope(frozenset(), frozenset(), "reject"))
    with (
        decoder(plan, order["workers"]) as decoding,
        closing(assembly.open_database(settings)) as database,
        assembly.claimed(settings),
    ):
        pipeline = Pipeline(decoding, Brightness(card))
        viewer = Viewer(decoding, Brightness(card), card.preprocessor)
        running = Runtime(Brightness(card), decoding, pipeline, pipeline, viewer, Metrics())
        daemon = assembly.daemon(settings, running, database)
        daemon._pace = replace(daemon._pace, linger=0.1)  # or no emptied folder would go within a life
        daemon.run(stop)


def forked(order):
    """Fork a daemon with a session and a log of its own; returns its number."""
    number = os.fork()
    if number:
        return number
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for handle in (1, 2):
        os.dup2(log, handle)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        watch(order)
    except BaseException:  # noqa: BLE001  or the child would go on as a second server
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)
    os._exit(0)


def waited(number, seconds):
    """How process ``number`` ended, within so many seconds; ``None`` if it has not."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def serve():
    import logging

    import watchdog.observers.inotify  # noqa: F401  what a daemon loads is loaded once, here

    from fracture_watch.assembly import work  # noqa: F401
    from fracture_watch.delivery import metrics  # noqa: F401
    from fracture_watch.imaging import dicom, raster, workers  # noqa: F401
    from fracture_watch.model import heatmap  # noqa: F401
    from fracture_watch.results import store  # noqa: F401

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    for line in sys.stdin:
        order = json.loads(line)
        answer = waited(order["wait"], order["seconds"]) if "wait" in order else forked(order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def whole(arguments):
    sys.argv = ["fracture-watch", *arguments]
    Tap(os.environ["CRASH_JOURNAL"], os.environ.get("CRASH_AT", "")).install()
    from fracture_watch.cli import main

    main()


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else whole(sys.argv[2:])
