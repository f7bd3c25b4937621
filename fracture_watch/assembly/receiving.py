"""Settings -> what receives DICOM objects."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from re import sub
from typing import TYPE_CHECKING

from fracture_watch.assembly.storage import make_folder, tree
from fracture_watch.config import ReceiveSettings, Settings
from fracture_watch.errors import InvalidSettings
from fracture_watch.intake.claim import claimed as claimed_by
from fracture_watch.receive.door import Door, Look, Peer, Reason
from fracture_watch.texts import how_to_install

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.receive.receiver import Receiver

_FOLDER = "dicom"


def receiver_lock(settings: Settings) -> Path:
    """Held by the receiver that writes into the inbox."""
    return settings.inbox.path / ".fracture_watch.receive.lock"


def received_if_wanted(settings: Settings, metrics: "Metrics") -> "AbstractContextManager[Look]":
    """Receive while the context lasts, where the settings say so; what it gives tells of the receiver."""
    return _looked_at(settings, metrics) if settings.dicom.receive else nullcontext(lambda: None)


@contextmanager
def receiving(settings: Settings, metrics: "Metrics") -> "Iterator[Receiver]":
    """Receive while the context lasts.

    Raises
    ------
    InvalidSettings
        If that is off or cannot work.
    """
    chosen = settings.dicom.receive
    if chosen is None:
        raise InvalidSettings(
            "dicom.receive is not set, so nothing says who may send; `receive: {}` below `dicom:` takes what this "
            "machine sends to port 11112, docs/dicom.md says more"
        )
    make_folder("inbox.path", settings.inbox.path)
    with (
        claimed_by(receiver_lock(settings), f"inbox.path: {settings.inbox.path} (its receiver)"),
        _made(settings, chosen, metrics) as receiver,
    ):
        yield receiver


def try_receiving(settings: Settings) -> None:
    """Do nothing, if a receiver could start now.

    Raises
    ------
    InvalidSettings
        Why it could not.
    """
    from fracture_watch.delivery.metrics import Metrics

    if settings.dicom.receive:
        _made(settings, settings.dicom.receive, Metrics()).try_address()


@contextmanager
def _looked_at(settings: Settings, metrics: "Metrics") -> Iterator[Look]:
    with receiving(settings, metrics) as receiver:
        metrics.watch("dicom_associations", "DICOM associations that are open.", lambda: receiver.status.associations)
        yield lambda: receiver.status


def _made(settings: Settings, chosen: ReceiveSettings, metrics: "Metrics") -> "Receiver":
    try:
        from fracture_watch.receive.receiver import Patience, Receiver
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"dicom.receive is set, and the package {error.name} is missing: {how_to_install('pacs')}"
        ) from error
    from fracture_watch.imaging.codecs import SYNTAXES
    from fracture_watch.receive.landing import Landing

    for reason in Reason:
        metrics.refuse_for(reason)
    inbox, folder_of = settings.inbox, partial(receiving_folder, settings)
    folder_of(chosen.ae_title)  # before anything is received, be sure that it is seen
    return Receiver(
        ("127.0.0.1" if chosen.host == "localhost" else chosen.host, chosen.port),
        door(chosen),
        Landing(inbox.path, inbox.max_file_mb << 20, settings.filing.min_free_mb << 20, folder_of),
        SYNTAXES,
        Patience(chosen.idle_seconds),
        metrics,
        quoting=settings.privacy.identifiers == "keep",
    )


def door(chosen: ReceiveSettings) -> Door:
    """Who may send."""
    peers = tuple(Peer(peer.ae_title, ip_network(peer.address)) for peer in chosen.peers)
    return Door(chosen.ae_title, peers, chosen.max_associations)


def receiving_folder(settings: Settings, sender: str) -> Path:
    """Where the objects of an AE title, which may hold anything, are put: a folder a day, so that none grows for years.

    Where folders are not watched it is the inbox itself.

    Raises
    ------
    InvalidSettings
        If the watcher would leave alone what is put there.
    """
    inbox, ignores = settings.inbox.path, tree(settings, settings.inbox.path).ignores
    day = datetime.now(UTC).date().isoformat()
    ignored = next(filter(ignores, (_FOLDER, day, "1.2.3-0123456789ab.dcm")), None)
    if ignored:
        raise InvalidSettings(
            f"inbox.ignore: a name such as {ignored} is left alone, so what is received by DICOM would never be "
            "processed; take that glob out, or dicom.receive"
        )
    if not settings.inbox.recursive:
        return inbox
    name = sub(r"[^A-Za-z0-9_-]", "_", sender)
    return inbox / _FOLDER / day / ("_" if ignores(name) else name)
