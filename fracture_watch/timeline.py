"""What happened to a file, in order, with reasons, and what happens next; also why one is still in the inbox."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracture_watch.intake.claim import holder
from fracture_watch.intake.completeness import Completeness
from fracture_watch.intake.tree import Tree
from fracture_watch.records import Kind, Status
from fracture_watch.results.rows import as_path
from fracture_watch.results.trail import Trail


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened: when (UTC, ISO 8601; ``None``: now), to which row, what, and why."""

    at: str | None
    result: int | None
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Inbox:
    """What is needed to say what becomes of a file in it; ``nameless``: names of files are recorded nowhere."""

    tree: Tree
    lock: Path
    settle_seconds: float
    give_up_seconds: float
    check: Callable[[Path], Completeness]
    nameless: bool = False


def timeline(trail: Trail, inbox: Inbox, wanted: str | None = None) -> list[Step]:
    """Every step that is recorded, oldest first, and then what is true now; empty where the thing is unknown.

    ``wanted``, where it is given, may be the path of a file that is there now.
    """
    steps = [step for row in trail.files for step in _of_file(row)]
    steps += [Step(row["at"], row["file_id"], row["what"], row["detail"]) for row in trail.events]
    deliveries = [_of_delivery(row) for row in trail.deliveries]
    steps += [step for step in deliveries if step.at]
    steps.sort(key=lambda step: step.at or "")
    if wanted is not None:
        path = Path(os.path.normpath(as_path(wanted).absolute()))
        if os.path.lexists(path):
            steps += _now_there(path, inbox, filed={row["filed_path"] for row in trail.files})
        elif not steps and path.is_relative_to(inbox.tree.root):
            steps.append(_not_there(path, inbox))
    steps += [step for step in deliveries if not step.at]
    return steps + _next(trail.files)


def _not_there(path: Path, inbox: Inbox) -> Step:
    """That nothing is recorded of a path at which nothing lies."""
    if inbox.nameless:
        why = "names are not recorded (privacy.identifiers); ask by a copy of the file, its SHA-256 or its result's id"
        return Step(None, None, "not known", f"there is no {path}, and {why}")
    return Step(None, None, "never seen", f"there is no {path}, and nothing of that name was received")


def _of_file(row: Any) -> Iterator[Step]:
    yield Step(row["received_at"], row["id"], "received", row["source_path"])
    if row["status"] == Status.STALLED:
        return
    yield Step(row["completed_at"], row["id"], row["status"], _reason(row))


def _of_delivery(row: Any) -> Step:
    """That somebody was told, or when that is tried again; ``doctor`` says more of the destination."""
    named = {Kind.STUDY: f"study {row['study_uid']}", Kind.RESULT: f"result {row['file_id']}"}
    what = named.get(row["kind"]) or f"{row['kind'].upper()} of result {row['file_id']}"
    told = f"{what} to {row['destination']} ({row['delivery_id']})"
    why = f"; attempt {row['attempts']} was in vain: {row['last_error']}" if row["last_error"] else ""
    if row["delivered_at"]:
        return Step(row["delivered_at"], row["file_id"], "delivered", f"{told} at attempt {row['attempts']}")
    if row["next_attempt_at"]:
        return Step(None, row["file_id"], "to be delivered", f"{told} at {row['next_attempt_at'][:19]}Z{why}")
    return Step(None, row["file_id"], "not delivered", f"{told}, and given up{why}")


def _reason(row: Any) -> str:
    notes = f"; notes: {row['notes']}" if row["notes"] else ""
    model = f"{row['model_name']} {row['model_version']}"
    if row["status"] == Status.CLASSIFIED:
        chance = f"probability {row['probability']:.3f}, threshold {row['threshold']:.3f}"
        return f"{row['prediction']}, {chance}, by {model} ({row['model_id']}){notes}"
    if row["status"] == Status.DUPLICATE:
        original = f"result {row['duplicate_of']}" if row["duplicate_of"] else "a result that was removed"
        return f"the same bytes as {original}, by {model}{notes}"
    return f"{row['code']}: {row['detail']}"


def _now_there(path: Path, inbox: Inbox, filed: set[str | None]) -> Iterator[Step]:
    """Why a file that lies there is still there."""
    if not path.is_relative_to(inbox.tree.root):
        yield Step(None, None, "is there", f"{path}, {path.lstat().st_size} bytes")
        return
    rule = _rule(path, inbox.tree)
    if rule:
        yield Step(None, None, "ignored", rule)
        return
    watcher = holder(inbox.lock)
    if watcher is None:
        yield Step(None, None, "waiting", f"no watcher runs on {inbox.tree.root}; start one with `fracture-watch run`")
    elif {str(path), inbox.tree.source(path, path.lstat()).name} & filed:
        yield Step(None, None, "stays", "its result is recorded, and it stays in the inbox")
    else:
        yield Step(None, None, "waiting", f"{_waiting_for(path, inbox)}; watched by {watcher}")


def _rule(path: Path, tree: Tree) -> str | None:
    """The rule by which a path in the inbox is left alone."""
    parts = path.relative_to(tree.root).parts
    names = [name for name in parts if tree.ignores(name)]
    if names:
        return f"the name {names[0]!r} is one of those that are left alone: dotfiles, unfinished copies, inbox.ignore"
    if not tree.recursive and len(parts) > 1:
        return "it lies in a folder of the inbox, and inbox.recursive is false"
    for part in (path, *path.parents):
        if part == tree.root:
            break
        if part.is_symlink():
            return f"{part} is a symbolic link, and those are never followed"
    mode = path.lstat().st_mode
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "it is no regular file"


def _waiting_for(path: Path, inbox: Inbox) -> str:
    if path.is_dir():
        return "it is a folder; ask for a file in it"
    try:
        whole = inbox.check(path)
    except OSError as error:
        return f"it cannot be read ({error.strerror}), and is tried until it fails as unreadable"
    if whole is Completeness.INCOMPLETE:
        return (
            "it ends before its own declared end; it is processed when it is whole, and as it is "
            f"{inbox.give_up_seconds:g} s after it was first seen (inbox.give_up_seconds)"
        )
    return (
        f"it is processed once it was unchanged for {inbox.settle_seconds:g} s (inbox.settle_seconds) and its turn "
        "comes; /readyz and the log say whether intake is paused"
    )


def _next(files: Iterable[Any]) -> list[Step]:
    """What the latest row of each path leads to."""
    latest = {row["source_path"]: row for row in files}
    return [Step(None, row["id"], "next", _outlook(row)) for row in latest.values()]


def _outlook(row: Any) -> str:
    place = row["filed_path"]
    there = bool(place) and os.path.lexists(as_path(place))
    where = f"it lies in {place}" if there else f"it is not in {place} any more" if place else "its file is not kept"
    if place and not Path(place).is_absolute():
        where = "it stayed where it was found, and that is not recorded (privacy.identifiers)"
    if row["status"] == Status.STALLED:
        return "it is processed when its writer is done"
    if not row["filed"]:
        return f"its result is recorded; it is moved to {place} by the watcher, at the latest when that starts again"
    if row["status"] in (Status.FAILED, Status.REJECTED) and there:
        return f"nothing by itself: {where}; `fracture-watch retry {row['id']}` puts it back into the inbox"
    return f"nothing: {where}"
