"""How long a Dask worker keeps what it has loaded."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

from fracture_watch.engine.desk import Computed, Desk
from tests.test_daemon import until

IDLE = 0.6  # seconds


class Opening:
    """Something that is loaded, and when it was closed."""

    def __init__(self):
        self.closed_at = []

    @contextmanager
    def __call__(self, threads):
        yield lambda batch: time.sleep(batch) or Computed([], {})
        self.closed_at.append(time.monotonic())


def test_it_is_kept_for_its_time_after_the_last_of_several_batches():
    opening = Opening()
    desk = Desk(opening, IDLE)
    desk.setup(SimpleNamespace(state=SimpleNamespace(nthreads=2)))
    threads = [threading.Thread(target=desk.compute, args=[seconds]) for seconds in (0.0, 0.1, 0.2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.compute(IDLE / 2)
    ended = time.monotonic()
    assert until(lambda: opening.closed_at, 10)
    assert opening.closed_at[0] - ended > 0.9 * IDLE
    desk.compute(0.0)  # and is loaded anew
    desk.teardown(None)
    assert len(opening.closed_at) == 2
