"""``doctor``: whether this machine can do the work, and why not."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, Config, Json, say, say_json

if TYPE_CHECKING:
    from fracture_watch.config import Settings
    from fracture_watch.results.outbox import Standing

_PATIENCE = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: whether it is well, and what is to be said of it."""

    part: str
    name: str
    ok: bool
    detail: str


def doctor(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Look at codecs, model, database, folders, disk and receivers; nothing is started and nothing is changed."""
    from fracture_watch.config import load_settings

    settings = load_settings(config)
    checks = [
        check
        for look in (
            _codecs,
            _model,
            _database,
            _folders,
            _daemon,
            _workers,
            _engine,
            _webhooks,
            _receiver,
            _destinations,
            _undeliverable,
        )
        for check in look(settings)
    ]
    if as_json:
        say_json({"checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _codecs(settings: "Settings") -> Iterator[Check]:
    from fracture_watch.imaging.probes import probe

    for found in probe():
        detail = found.decoder if found.problem is None else f"{found.decoder}: {found.problem}"
        yield Check("codec", found.syntax, found.problem is None, detail)


def _model(settings: "Settings") -> Iterator[Check]:
    def loaded() -> str:
        import torch

        from fracture_watch import assembly, golden

        classifier = assembly.load_model(settings)
        known = golden.require(classifier)
        card = classifier.card
        facts = f"{card.name} {card.version} ({card.facts.id}), threshold {card.threshold.value}"
        images = "golden images agree" if known else "its card has no golden images to compare with"
        return f"{facts}; {images}; torch {torch.__version__} with {torch.get_num_threads()} threads"

    yield _tried("model", str(settings.model.weights), loaded)


def _database(settings: "Settings") -> Iterator[Check]:
    from fracture_watch import assembly
    from fracture_watch.results.database import look_at

    def looked_at() -> str:
        path = assembly.database_path(settings)
        return look_at(settings.database.url) if path is None or path.exists() else writable(path)

    yield _tried("database", settings.database.shown, looked_at)


def _folders(settings: "Settings") -> Iterator[Check]:
    from fracture_watch import assembly

    inbox, filing = settings.inbox, settings.filing

    def watched() -> str:
        why = assembly.polling_reason(settings)
        if why:
            return f"{writable(inbox.path)}; listed every second, because {why}"
        return f"{writable(inbox.path)}; watched by events, listed every {inbox.rescan_seconds:g} s"

    yield _tried("folder", "inbox.path", watched)
    for key in ("processed_dir", "quarantine_dir", "artefacts_dir"):
        path: Path = getattr(filing, key)
        yield _tried("folder", f"filing.{key}", partial(writable, path))

    def room() -> str:
        assembly.filing(settings).require_room()
        return f"at least {filing.min_free_mb} MiB free on every disk that is written to"

    yield _tried("disk", "filing.min_free_mb", room)


def _daemon(settings: "Settings") -> Iterator[Check]:
    from fracture_watch import assembly
    from fracture_watch.intake.claim import holder

    watcher = holder(assembly.inbox_lock(settings))
    yield Check("daemon", str(settings.inbox.path), True, f"watched by {watcher}" if watcher else "no watcher runs now")


def _workers(settings: "Settings") -> Iterator[Check]:
    import torch

    from fracture_watch import assembly

    cores, imaging = assembly.cores(), settings.imaging
    chosen = "as imaging.workers says" if imaging.workers else "one a core; imaging.workers changes that"
    yield Check(
        "workers",
        "imaging.workers",
        True,
        f"{_some(imaging.workers or cores, 'decoding process', 'es')} on {_some(cores, 'core')} ({chosen}), "
        f"{imaging.memory_mb} MiB and {imaging.timeout_seconds:g} s a file; run and serve start {assembly.ADHOC} more "
        "with the first file that somebody waits for, at /predict or on a page; classification takes "
        f"{_some(torch.get_num_threads(), 'thread')} beside them and sleeps while it waits, so that both together use "
        "the cores and neither blocks the other",
    )


def _some(count: int, what: str, plural: str = "s") -> str:
    return f"{count} {what}{'' if count == 1 else plural}"


def _engine(settings: "Settings") -> Iterator[Check]:
    """Where ``scan`` computes; a cluster's workers are asked what a scan would ask them."""
    from fracture_watch import assembly

    def connected() -> str:
        with assembly.dask_engine(settings, assembly.card_in_force(settings), (), patience=_PATIENCE) as engine:
            return f"{engine.describe()}; every worker has the same versions and weights"

    if settings.engine.kind == "local":
        yield Check("engine", "engine.kind", True, "local: scan computes in its own process")
    else:
        yield _tried("engine", str(settings.engine.address), connected)


def _webhooks(settings: "Settings") -> Iterator[Check]:
    """Who is told of results, and what they were not told; nothing is sent."""
    from fracture_watch import assembly

    hooks = {assembly.destination_of(hook): hook for hook in settings.webhooks.hooks}
    waits, _ = _undelivered(settings)
    if not hooks:
        yield Check("webhook", "webhooks.hooks", True, "nobody is told of results")
    for name, hook in hooks.items():
        state = waits.get(name)
        told = f"{' and '.join(hook.events)}, {' or '.join(hook.predictions) or 'whatever came of it'}"
        open_to_all = "" if hook.url.startswith("https:") else "; over http, which anybody on the way can read"
        yield Check("webhook", name, not (state and state.failing), f"told of {told}{_waiting(state)}{open_to_all}")


def _destinations(settings: "Settings") -> Iterator[Check]:
    """Where DICOM objects go, and what did not get there; nothing is sent."""
    from fracture_watch import assembly

    waits, _ = _undelivered(settings)
    if not settings.dicom.destinations:
        yield Check("dicom", "dicom.destinations", True, "no DICOM objects are made")
        return

    def installed() -> str:
        assembly.require_extra("dicom.destinations")
        return "what makes DICOM objects is installed"

    yield _tried("dicom", "dicom.destinations", installed)
    for destination in settings.dicom.destinations:
        name = assembly.name_of(destination)
        state, place = waits.get(name), destination.folder
        missing = bool(place and not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)))
        node = f"{destination.ae_title} at {destination.host}:{destination.port}"
        which = " or ".join(destination.predictions) or "any answer"
        told = f"{' and '.join(destination.objects)} to {place or node}, {which}"
        gone = (
            "; the folder is not there, or cannot be written to: mount it, make it, or change its owner"
            if missing
            else ""
        )
        yield Check("dicom", name, not (missing or (state and state.failing)), f"{told}{_waiting(state)}{gone}")


def _undeliverable(settings: "Settings") -> Iterator[Check]:
    """What waits for a destination that is not in the settings any more, and what was given up."""
    from fracture_watch import assembly

    known = {assembly.destination_of(hook) for hook in settings.webhooks.hooks}
    known |= {assembly.name_of(destination) for destination in settings.dicom.destinations}
    waits, lost = _undelivered(settings)
    for name in sorted(set(waits) - known):
        kind, what, where = _kind_of(name)
        days = settings.webhooks.give_up_days if kind == "webhook" else settings.dicom.give_up_days
        advice = f"no such {what} is in {where}; put it back, or they are given up at a start after {days:g} days"
        yield Check(kind, name, False, f"{waits[name].waiting} deliveries wait, and {advice}")
    for name, state in lost.items():
        detail = f"{state.given_up} deliveries were given up, the first of {state.since[:19]}Z: {state.last_error}"
        yield Check(_kind_of(name)[0], f"{name} (given up)", True, detail)


def _kind_of(name: str) -> tuple[str, str, str]:
    """The part that a destination belongs to, what it is called, and which setting lists those."""
    if name.startswith("dicom:"):
        return "dicom", "destination", "dicom.destinations"
    return "webhook", "hook", "webhooks.hooks"


def _receiver(settings: "Settings") -> Iterator[Check]:
    """Whether DICOM objects can be received, and whose."""
    chosen = settings.dicom.receive
    if chosen is None:
        yield Check("dicom", "dicom.receive", True, "off: nothing is received by DICOM")
        return

    def listens() -> str:
        from fracture_watch import assembly
        from fracture_watch.intake.claim import holder

        peers = assembly.door(chosen).peers
        who = ", ".join(f"{peer.ae_title} at {peer.network}" for peer in peers) or "anybody on this machine"
        where = f"{chosen.ae_title} on {chosen.host}:{chosen.port} from {who}"
        running = holder(assembly.receiver_lock(settings))
        if not running:
            assembly.try_receiving(settings)
        return f"{where}; {f'received by {running}' if running else 'the port is free'}"

    yield _tried("dicom", "dicom.receive", listens)


def _waiting(state: "Standing | None") -> str:
    if state is None:
        return "; nothing waits"
    text = f"; {state.waiting} deliveries wait, the first since {state.since[:19]}Z"
    return f"{text}; the last attempt was in vain: {state.last_error}" if state.failing else text


def _undelivered(settings: "Settings") -> "tuple[dict[str, Standing], dict[str, Standing]]":
    """What waits and what was given up, by destination; a database that cannot be read is another check's finding."""
    from fracture_watch.errors import FractureWatchError
    from fracture_watch.results.outbox import standings

    path = settings.database.path
    try:
        found = standings(settings.database.url) if path is None or path.exists() else []
    except FractureWatchError:
        found = []
    waits = {state.destination: state for state in found if state.waiting}
    return waits, {state.destination: state for state in found if state.given_up}


def _tried(part: str, name: str, look: Callable[[], str]) -> Check:
    """What ``look`` says; what stops it is the finding."""
    from fracture_watch.errors import FractureWatchError

    try:
        return Check(part, name, True, look())
    except FractureWatchError as error:
        return Check(part, name, False, error.detail)
    except OSError as error:
        return Check(part, name, False, f"{error.filename}: {error.strerror}")


def writable(folder: Path) -> str:
    """Where it is and how much room it has; a folder that is not there yet is made at the first start."""
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(13, "is no folder that can be written to; change its owner or the setting", str(place))
    free = shutil.disk_usage(place).free / 1e9
    return f"{folder}{'' if place == folder else ' can be made'}, {free:,.1f} GB free"


def _show(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fracture_watch.texts import printable

    table = Table("", "part", "what", "finding", box=None)
    for check in checks:
        mark = Text("ok", "green") if check.ok else Text("FAIL", "bold red")
        table.add_row(mark, check.part, Text(check.name), Text(printable(check.detail)))
    Console(width=None if Console().is_terminal else 160).print(table)
    broken = sum(not check.ok for check in checks)
    say("Everything is well." if not broken else f"{broken} of {len(checks)} checks found something.")
