"""The only room that names concrete classes: Settings -> running parts."""

from fracture_watch.assembly.deliveries import delivering, destination_of, subscriptions
from fracture_watch.assembly.model import Runtime, check_model, cores, limits, load_model, runtime
from fracture_watch.assembly.remote import card_in_force, dask_engine
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
)
from fracture_watch.assembly.work import (
    Scanner,
    check_completeness,
    daemon,
    inbox,
    outdated,
    polling_reason,
    scanner,
    service,
    website,
)

__all__ = [
    "Runtime",
    "Scanner",
    "card_in_force",
    "check_completeness",
    "check_model",
    "claimed",
    "cores",
    "daemon",
    "dask_engine",
    "database_path",
    "delivering",
    "destination_of",
    "filing",
    "inbox",
    "inbox_lock",
    "limits",
    "load_model",
    "lock_of",
    "open_database",
    "outdated",
    "places",
    "polling_reason",
    "privacy",
    "recorded_as",
    "runtime",
    "scanner",
    "service",
    "subscriptions",
    "tree",
    "website",
]
