"""The only room that names concrete classes: Settings -> running parts."""

from fracture_watch.assembly.deliveries import delivering, destination_of, subscriptions
from fracture_watch.assembly.destinations import exporting, name_of, require_extra
from fracture_watch.assembly.model import Runtime, check_model, cores, limits, load_model, runtime
from fracture_watch.assembly.receiving import (
    door,
    received_if_wanted,
    receiver_lock,
    receiving,
    receiving_folder,
    try_receiving,
)
from fracture_watch.assembly.storage import (
    claimed,
    database_path,
    filing,
    inbox_lock,
    lock_of,
    open_database,
    places,
    privacy,
    recorded_as,
    tree,
    watcher_of,
)
from fracture_watch.assembly.work import check_completeness, daemon, inbox, outdated, polling_reason, service, website

__all__ = [
    "Runtime",
    "check_completeness",
    "check_model",
    "claimed",
    "cores",
    "daemon",
    "database_path",
    "delivering",
    "destination_of",
    "door",
    "exporting",
    "filing",
    "inbox",
    "inbox_lock",
    "limits",
    "load_model",
    "lock_of",
    "name_of",
    "open_database",
    "outdated",
    "places",
    "polling_reason",
    "privacy",
    "received_if_wanted",
    "receiver_lock",
    "receiving",
    "receiving_folder",
    "recorded_as",
    "require_extra",
    "runtime",
    "service",
    "subscriptions",
    "tree",
    "try_receiving",
    "watcher_of",
    "website",
]
