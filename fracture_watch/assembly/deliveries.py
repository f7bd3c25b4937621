"""Settings -> who is told of what, and the threads that tell them."""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fracture_watch.assembly.destinations import object_channels, object_subscriptions
from fracture_watch.assembly.storage import open_database, watcher_of
from fracture_watch.config import HookSettings, Settings
from fracture_watch.errors import DatabaseUnavailable
from fracture_watch.records import Kind
from fracture_watch.results.outbox import Outbox, Standing, Subscription
from fracture_watch.times import as_utc

if TYPE_CHECKING:
    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.delivery.outbox import Channel, Sender

log = logging.getLogger(__name__)
_JOIN_SECONDS = 5.0  # for what is under way; what is not noted by then is sent again


def hook_name(hook: HookSettings) -> str:
    """How the database names a hook."""
    return f"webhook:{hook.known_as}"


def subscriptions(settings: Settings) -> tuple[Subscription, ...]:
    """Who is to be told of results."""
    quiet = settings.webhooks.study_quiet_seconds
    hooks = tuple(
        Subscription(hook_name(hook), frozenset(map(Kind, hook.events)), frozenset(hook.predictions), quiet)
        for hook in settings.webhooks.hooks
    )
    return hooks + object_subscriptions(settings)


@contextmanager
def delivering(settings: Settings, metrics: "Metrics", stop: threading.Event) -> Iterator[None]:
    """Deliver what waits, in threads and with connections that nobody else has, until ``stop`` or the end."""
    with closing(open_database(settings)) as database:
        outbox = Outbox(database, watcher_of(settings))
        senders = _senders(settings, outbox, metrics, stop)
        _watch_outbox(metrics, outbox, senders)
        _forget_orphans(settings, outbox, senders)
        threads = [
            threading.Thread(target=sender.run, args=(stop,), name=name, daemon=True)
            for name, sender in senders.items()
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            deadline = time.monotonic() + _JOIN_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))


def _senders(settings: Settings, outbox: Outbox, metrics: "Metrics", stop: threading.Event) -> "dict[str, Sender]":
    from fracture_watch.delivery.outbox import Patience, Sender

    channels = (
        (settings.webhooks.give_up_days, _hook_channels(settings)),
        (settings.dicom.give_up_days, object_channels(settings, stop)),
    )
    return {
        name: Sender(name, outbox, channel, Patience(give_up=days * 86_400), metrics)
        for days, group in channels
        for name, channel in group.items()
    }


def _hook_channels(settings: Settings) -> "dict[str, Channel]":
    from fracture_watch import __version__
    from fracture_watch.delivery.webhook import Webhook

    chosen, agent = settings.webhooks, f"fracture-watch/{__version__}"
    return {hook_name(hook): Webhook(hook.url, chosen.secret_of(hook), agent) for hook in chosen.hooks}


def orphan_days(settings: Settings) -> float:
    """How long something waits for somebody who is gone from the settings: as long as for one who is down."""
    return max(settings.webhooks.give_up_days, settings.dicom.give_up_days)


def _forget_orphans(settings: Settings, outbox: Outbox, configured: Collection[str]) -> None:
    oldest = datetime.now(UTC) - timedelta(days=orphan_days(settings))
    count = 0
    with suppress(DatabaseUnavailable):  # the next start does it
        count = outbox.forget_orphans(configured, as_utc(oldest))
    if count:
        log.warning("%d deliveries were given up: what they were for is not in the settings any more", count)


def _watch_outbox(metrics: "Metrics", outbox: Outbox, configured: Iterable[str]) -> None:
    def standings() -> list[Standing]:
        try:
            return outbox.standings()
        except DatabaseUnavailable:
            return []  # other metrics say so

    def waiting() -> dict[str, float]:
        return {standing.destination: standing.waiting for standing in standings() if standing.waiting}

    def given_up() -> dict[str, float]:
        return {standing.destination: standing.given_up for standing in standings() if standing.given_up}

    zeros = dict.fromkeys(configured, 0.0)
    metrics.watch_by("outbox_waiting", "Deliveries that wait.", "destination", lambda: zeros | waiting())
    metrics.watch_by("outbox_given_up", "Deliveries that were given up.", "destination", lambda: zeros | given_up())
