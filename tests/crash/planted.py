"""Bugs to plant into a daemon, so that the suite shows that it sees what it is there to see."""

import os
import shutil


def moves_first():
    from fracture_watch.results.store import Store

    record = Store.record

    def moved_first(self, entries):
        for source, _, path in entries:
            path.parent.mkdir(parents=True, exist_ok=True)
            source.path.rename(path)
        return record(self, entries)

    Store.record = moved_first


def forgets():
    """Neither what was committed but not filed, nor what was dealt with in its place, is looked up."""
    from fracture_watch.results.store import Store

    Store.unfiled = lambda self, inbox: []
    Store.unchanged = lambda self, sources: set()


def copies_with(*steps):
    def plant():
        from fracture_watch.intake import moving

        def copied(source, target):
            temporary = target.with_name(f".{target.name}.part")
            done = {
                "fsync file": lambda: _fsync(temporary if temporary.exists() else target),
                "rename": lambda: temporary.replace(target),
                "fsync folder": lambda: _fsync(target.parent),
                "unlink": source.unlink,
            }
            with source.open("rb") as reader, temporary.open("wb") as writer:
                shutil.copyfileobj(reader, writer)
            shutil.copystat(source, temporary)
            for step in steps:
                done[step]()
            return True

        moving._copied = copied

    return plant


def _fsync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


WRONG_ORDERS = {
    "copy-not-synced": copies_with("rename", "fsync folder", "unlink"),
    "copy-synced-late": copies_with("rename", "fsync file", "fsync folder", "unlink"),
    "folder-not-synced": copies_with("fsync file", "rename", "unlink"),
    "folder-synced-early": copies_with("fsync file", "fsync folder", "rename", "unlink"),
    "source-removed-early": copies_with("fsync file", "rename", "unlink", "fsync folder"),
}
BUGS = {"moves-first": moves_first, "forgets": forgets, **WRONG_ORDERS}
