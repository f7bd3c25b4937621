"""Times as the database and every export write them: UTC, ISO 8601, microseconds."""

import datetime


def now() -> str:
    """The time."""
    return as_utc(datetime.datetime.now(datetime.UTC))


def utc_of(text: str) -> str:
    """An ISO 8601 date or time, written like ``now``; without an offset it is taken as UTC.

    Raises
    ------
    ValueError
        If it is none, or in no year that can be written.
    """
    try:
        time = datetime.datetime.fromisoformat(text)
        return as_utc(time if time.tzinfo else time.replace(tzinfo=datetime.UTC))
    except OverflowError as error:
        raise ValueError(str(error)) from error


def as_utc(time: datetime.datetime) -> str:
    """A time with an offset, written like ``now``."""
    return time.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
