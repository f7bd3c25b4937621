"""Settings -> what is built of results as DICOM objects, and where it goes."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fracture_watch.assembly.model import card_in_force, decoders, limits, runtime
from fracture_watch.config import DestinationSettings, Settings
from fracture_watch.delivery.shelf import Shelf
from fracture_watch.errors import InvalidSettings
from fracture_watch.records import OBJECTS, Kind, Label
from fracture_watch.results.outbox import Subscription
from fracture_watch.texts import how_to_install

if TYPE_CHECKING:
    from fracture_watch.delivery.outbox import Channel
    from fracture_watch.exporting import Exporter, Rebuilding
    from fracture_watch.model.preprocess import Preprocessor
    from fracture_watch.objects import Builders, Workshop

_EXTRA = ("highdicom", "pynetdicom")


def destination_name(destination: DestinationSettings) -> str:
    """How the database names a destination."""
    return f"dicom:{destination.name}"


def object_subscriptions(settings: Settings) -> tuple[Subscription, ...]:
    """Who is to get which objects."""
    return tuple(
        Subscription(destination_name(d), frozenset(map(Kind, d.objects)), frozenset(d.predictions))
        for d in settings.dicom.destinations
    )


def object_channels(settings: Settings, stop: threading.Event) -> "dict[str, Channel]":
    """How objects get to each destination.

    Raises
    ------
    InvalidSettings
        If what builds and sends them is not installed.
    """
    if not settings.dicom.destinations:
        return {}
    require_extra("dicom.destinations")
    from fracture_watch.delivery.send import Archive, Folder, Node

    kept = shelf(settings)
    channels: dict[str, Channel] = {}
    for d in settings.dicom.destinations:
        node = Node(str(d.host), d.port or 0, str(d.ae_title), d.calling_ae_title)
        channels[destination_name(d)] = Folder(d.folder, kept) if d.folder else Archive(node, kept, stop)
    return channels


def shelf(settings: Settings) -> Shelf:
    """Where objects are kept until their result goes."""
    return Shelf(settings.filing.artefacts_dir)


def workshop(settings: Settings, builders: "Builders", preprocessor: "Preprocessor") -> "Workshop | None":
    """What builds the objects that destinations want; ``None`` where there are no destinations.

    Raises
    ------
    InvalidSettings
        If what builds them is not installed.
    """
    if not settings.dicom.destinations:
        return None
    require_extra("dicom.destinations")
    return _workshop(settings, builders, preprocessor)


def require_extra(what: str) -> None:
    """Say at the start what is missing, and not at the first file.

    Raises
    ------
    InvalidSettings
    """
    missing = [package for package in _EXTRA if find_spec(package) is None]
    if missing:
        raise InvalidSettings(f"{what} needs {' and '.join(missing)}: {how_to_install('pacs')}")


@contextmanager
def exporting(settings: Settings, kind: Kind) -> "Iterator[Exporter]":
    """What finds the objects of results, and builds those that were not built; a model is loaded only where needed.

    Raises
    ------
    InvalidSettings
        If no object may be made, or what makes them is not installed.
    """
    from fracture_watch.exporting import Exporter

    if settings.privacy.identifiers != "keep":
        raise InvalidSettings(
            f"privacy.identifiers is {settings.privacy.identifiers}, and a DICOM object names its patient and study; "
            "where that is meant, set FRACTURE_WATCH__PRIVACY__IDENTIFIERS=keep for this one command"
        )
    require_extra("export")
    with ExitStack() as stack:
        yield Exporter(shelf(settings), lambda: stack.enter_context(_rebuilding(settings, kind)))


@contextmanager
def _rebuilding(settings: Settings, kind: Kind) -> "Iterator[Rebuilding]":
    from fracture_watch.exporting import Rebuilding

    if kind is Kind.SC:
        with runtime(settings, workers=1) as running:
            card, workers = running.classifier.card, running.workers
            yield Rebuilding(
                _workshop(settings, workers, card.preprocessor), workers, running.classifier, card.facts.id
            )
        return
    card = card_in_force(settings)
    with closing(decoders(settings, card, 1)) as pool:
        yield Rebuilding(_workshop(settings, pool, card.preprocessor), pool, None, card.facts.id)


def _workshop(settings: Settings, builders: "Builders", preprocessor: "Preprocessor") -> "Workshop":
    from fracture_watch import __version__
    from fracture_watch.model.heatmap import Illustrator
    from fracture_watch.objects import Workshop

    subscribed = object_subscriptions(settings)

    def wanted(label: Label) -> frozenset[Kind]:
        return frozenset(kind for kind in OBJECTS for s in subscribed if s.wants(kind, label))

    illustrator = Illustrator(preprocessor, settings.model.heatmaps)
    return Workshop(builders, shelf(settings), limits(settings), illustrator, wanted, __version__)
