"""What ``doctor`` finds of those that results go to, and that DICOM objects come from; nothing is sent."""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from fracture_watch.cli.checks import Check, tried

if TYPE_CHECKING:
    from fracture_watch.config import Settings
    from fracture_watch.results.outbox import Standing

    Waits: TypeAlias = Mapping[str, Standing]  # by destination


def partners(settings: "Settings") -> Iterator[Check]:
    """Webhooks, DICOM destinations and the receiver, and what waits for any of them."""
    waits, lost = _undelivered(settings)
    yield from _webhooks(settings, waits)
    yield from _receiver(settings)
    yield from _destinations(settings, waits)
    yield from _undeliverable(settings, waits, lost)


def _webhooks(settings: "Settings", waits: "Waits") -> Iterator[Check]:
    """Who is told of results, and what they were not told."""
    from fracture_watch import assembly

    hooks = {assembly.hook_name(hook): hook for hook in settings.webhooks.hooks}
    if not hooks:
        yield Check("webhook", "webhooks.hooks", True, "nobody is told of results")
    for name, hook in hooks.items():
        state = waits.get(name)
        told = f"{' and '.join(hook.events)}, {' or '.join(hook.predictions) or 'whatever came of it'}"
        open_to_all = "" if hook.url.startswith("https:") else "; over http, which anybody on the way can read"
        yield Check("webhook", name, not (state and state.failing), f"told of {told}{_waiting(state)}{open_to_all}")


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

    yield tried("dicom", "dicom.receive", listens)


def _destinations(settings: "Settings", waits: "Waits") -> Iterator[Check]:
    """Where DICOM objects go, and what did not get there."""
    from fracture_watch import assembly

    if not settings.dicom.destinations:
        yield Check("dicom", "dicom.destinations", True, "no DICOM objects are made")
        return

    def installed() -> str:
        assembly.require_extra("dicom.destinations")
        return "what makes DICOM objects is installed"

    yield tried("dicom", "dicom.destinations", installed)
    for destination in settings.dicom.destinations:
        name = assembly.destination_name(destination)
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


def _undeliverable(settings: "Settings", waits: "Waits", lost: "Waits") -> Iterator[Check]:
    """What waits for a destination that is not in the settings any more, and what was given up."""
    from fracture_watch import assembly

    known = {assembly.hook_name(hook) for hook in settings.webhooks.hooks}
    known |= {assembly.destination_name(destination) for destination in settings.dicom.destinations}
    for name in sorted(set(waits) - known):
        kind, what, where = _kind_of(name)
        days = assembly.orphan_days(settings)
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


def _waiting(state: "Standing | None") -> str:
    if state is None:
        return "; nothing waits"
    text = f"; {state.waiting} deliveries wait, the first since {state.since[:19]}Z"
    return f"{text}; the last attempt was in vain: {state.last_error}" if state.failing else text


def _undelivered(settings: "Settings") -> "tuple[Waits, Waits]":
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
