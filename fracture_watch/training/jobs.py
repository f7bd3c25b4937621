"""Several long tasks, one after another here or at the same time in processes of their own."""

import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from joblib import Parallel, delayed

from fracture_watch.errors import WrongUse


def done(tasks: Sequence[Callable[[], Any]], jobs: int) -> list[Any]:
    """What the tasks give, in their order; with one job they are done here.

    Raises
    ------
    WrongUse
        If a process was killed.
    """
    here = os.getpid()

    def do(task: Callable[[], Any]) -> Any:
        if os.getpid() != here:
            _end_with(here)
        return task()

    try:
        return list(Parallel(min(jobs, len(tasks)), batch_size=1)(delayed(do)(task) for task in tasks))
    except BrokenProcessPool as error:
        raise WrongUse(
            f"--jobs {jobs}: one of the processes was ended from outside, perhaps for want of memory; repeat the "
            "command, if need be with fewer jobs: it goes on where it was"
        ) from error


@functools.cache  # once a process
def _end_with(parent: int) -> None:
    """Leave when ``parent`` has, which may have been killed: a repeated call would meet this process at its files."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
