"""The kernel's file events, as hints: which paths to look at, and when hints were lost and the listing must be read."""

import errno
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import CallbackId, InotifyEvent, Mask, WatchCallback, WatchDescriptor

log = logging.getLogger(__name__)
_MOST_HINTS = 16384
_USED_UP = (errno.ENOSPC, errno.EMFILE, errno.ENOMEM)
# Not that files are opened and read, which we do ourselves with every one of them.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


class Hints:
    """What the event thread tells the watching one; bounded, since the listing knows everything anyway."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Path, bool]] = queue.Queue(_MOST_HINTS)
        self._lost = threading.Event()
        self.blind: str | None = None  # why some of the folder sends no events, if so

    def put(self, path: Path, closed: bool) -> None:
        """Something happened to ``path``; ``closed``: its writer is done."""
        try:
            self._queue.put_nowait((path, closed))
        except queue.Full:
            self.lose()

    def lose(self) -> None:
        """A folder came, or hints were lost: only the listing can tell what is there."""
        self._lost.set()

    def miss(self, why: str) -> None:
        """Part of the folder sends no events."""
        if self.blind is None:
            log.warning("no file events from part of the inbox (%s): it is polled instead", why)
            self.blind = why

    def take(self) -> Iterator[tuple[Path, bool]]:
        """What there is by now."""
        while True:
            try:
                yield self._queue.get_nowait()
            except queue.Empty:
                return

    def were_lost(self) -> bool:
        """Whether the listing must be read; asked once, it is forgotten."""
        lost = self._lost.is_set()
        self._lost.clear()
        return lost


@contextmanager
def events(root: Path, recursive: bool, hints: Hints) -> Iterator[None]:
    """Feed ``hints`` while the context lasts.

    Raises
    ------
    OSError
        If the kernel cannot watch ``root``: for one, max_user_watches or max_user_instances is used up.
    """
    with _observer(hints) as observer:
        observer.schedule(_Handler(hints), str(root), recursive=recursive, event_filter=_EVENTS)
        observer.start()
        try:
            yield
        finally:
            observer.stop()
            observer.join()


@contextmanager
def _observer(hints: Hints) -> Iterator[BaseObserver]:
    if sys.platform != "linux":
        yield Observer()
        return
    from watchdog.observers.inotify import InotifyFullEmitter
    from watchdog.observers.inotify_c import InotifyConstants, InotifyFD

    class Kernel(InotifyFD):
        """watchdog's own logs that the kernel dropped events or has no watches left for a folder, and goes on."""

        def handle_event(self, event: "InotifyEvent") -> None:
            if event.mask & InotifyConstants.IN_Q_OVERFLOW:
                hints.lose()
            super().handle_event(event)

        def add_callback(
            self, path: bytes, mask: "Mask", callback: "WatchCallback", id_: "CallbackId"
        ) -> "WatchDescriptor":
            try:
                return super().add_callback(path, mask, callback, id_)
            except OSError as error:
                if error.errno in _USED_UP:  # else it is gone already, or the listing will say what is wrong with it
                    # /readyz says it to everybody, so it names no folder.
                    hints.miss(f"a folder cannot be watched: {error.strerror}; raise fs.inotify.max_user_watches")
                raise

    kernel = Kernel()
    kernel.start()
    try:
        # With full events, a file that is renamed in from elsewhere is moved, not created and yet to be written.
        yield BaseObserver(InotifyFullEmitter, inotify_fd=kernel)
    finally:
        kernel.stop()
        kernel.join()


class _Handler(FileSystemEventHandler):
    """Turns watchdog's events into hints, in its thread."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, DirCreatedEvent | DirMovedEvent):
            self._hints.lose()
        elif not event.is_directory:
            target = event.dest_path or event.src_path
            renamed_in = bool(event.dest_path)
            self._hints.put(Path(os.fsdecode(target)), closed=renamed_in or isinstance(event, FileClosedEvent))
