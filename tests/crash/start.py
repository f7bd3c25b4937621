"""A daemon that kills itself: ``python -m tests.crash.start CONFIG CROSSING [PLANTED]``.

Every call that a commit or a move is made of is crossed twice, before and after it. At the crossing of the given number
the process sends itself SIGKILL. Folder, settling, decoding worker, database and filing are the real ones, assembled by
the program's own assembly; only the network is left out, because loading it would take most of the time.

A planted bug (``moves-first``, ``forgets``) shows that the suite sees what it is there to see.
"""

import os
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path

from fracture_watch import assembly
from fracture_watch.assembly.model import Runtime, limits
from fracture_watch.config import load_settings
from fracture_watch.delivery.metrics import Metrics
from fracture_watch.imaging.limits import Scope
from fracture_watch.imaging.workers import Plan, WorkerPool
from fracture_watch.model.card import Card
from fracture_watch.model.preprocess import thumbnail
from fracture_watch.pipeline import Pipeline
from fracture_watch.records import Label, Prediction
from fracture_watch.results.store import Store
from fracture_watch.stages import Stages


class Brightness:
    """Calls bright pictures fractured."""

    def __init__(self, card):
        self.card = card

    def classify(self, prepared):
        shares = [float(item.tensor.mean()) / 255 for item in prepared]
        return [
            Prediction(Label.FRACTURED if p >= 0.5 else Label.NOT_FRACTURED, p, 0.5, self.card.facts) for p in shares
        ]


class Crossings:
    """Counts crossings, and dies at one."""

    def __init__(self, last):
        self._left = last

    def cross(self, name):
        self._left -= 1
        if self._left == 0:
            os.write(2, f"killed at {name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner, name):
        """Cross before and after each call, of the main thread only: the others are not what is tested."""
        call = getattr(owner, name)

        def crossing(*arguments, **options):
            if threading.current_thread() is not threading.main_thread():
                return call(*arguments, **options)
            self.cross(f"before {name}")
            found = call(*arguments, **options)
            self.cross(f"after {name}")
            return found

        setattr(owner, name, crossing)


def plant(bug):
    if bug == "moves-first":
        record = Store.record

        def moved_first(self, entries):
            for source, _, path in entries:
                path.parent.mkdir(parents=True, exist_ok=True)
                source.path.rename(path)
            return record(self, entries)

        Store.record = moved_first
    elif bug == "forgets":
        Store.unfiled = lambda self, inbox: []


def main(config, crossing, bug=""):
    settings = load_settings(Path(config), {})
    crossings = Crossings(int(crossing))
    plant(bug)
    card = Card.load(settings.model.weights)
    plan = Plan(card.preprocessor, thumbnail, limits(settings), Scope(frozenset(), frozenset(), "reject"))
    with (
        closing(WorkerPool(plan, 1, 30.0, 2048)) as decoder,
        closing(assembly.open_database(settings)) as database,
        assembly.claimed(settings),
    ):
        stages = Stages()
        pipeline = Pipeline(decoder, Brightness(card), (), stages.measure)
        running = Runtime(Brightness(card), pipeline, pipeline, stages, Metrics())
        daemon = assembly.daemon(settings, running, database)
        for name in ("link", "unlink", "replace", "rename", "fsync", "rmdir"):
            crossings.around(os, name)
        for name in ("record", "filed"):
            crossings.around(Store, name)
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        daemon.run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
