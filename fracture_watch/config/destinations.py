"""Where results go as DICOM objects: a folder, or an archive."""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fracture_watch.config.base import AeTitle, ConfigPath, Int, Section


class DestinationSettings(Section):
    """A folder, or an archive's host, port and AE title; which objects it gets, and of which predictions.

    An empty list of predictions accepts any. ``name`` tells destinations apart in log, database and metrics.
    """

    name: str = Field(pattern=r"^[\w.:-]{1,64}$")
    folder: ConfigPath | None = None
    host: str | None = Field(None, min_length=1)
    port: Int | None = Field(None, ge=1, le=65535)
    ae_title: AeTitle | None = None
    calling_ae_title: AeTitle = "FRACTURE_WATCH"
    objects: tuple[Literal["sr", "sc"], ...] = Field(("sr", "sc"), min_length=1)
    predictions: tuple[Literal["fractured", "not fractured"], ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        node = (self.host, self.port, self.ae_title)
        if self.folder is None and None in node:
            raise ValueError("name either a folder, or the host, port and ae_title of an archive")
        if self.folder is not None and node != (None, None, None):
            raise ValueError("name a folder or an archive, not both; two destinations can have both")
        return self


def _told_apart(destinations: tuple[DestinationSettings, ...]) -> tuple[DestinationSettings, ...]:
    for name, count in Counter(destination.name for destination in destinations).items():
        if count > 1:
            raise ValueError(f"{count} destinations are called {name}; give each a name of its own")
    return destinations


Destinations = Annotated[tuple[DestinationSettings, ...], AfterValidator(_told_apart)]


def require_names(destinations: tuple[DestinationSettings, ...], identifiers: str) -> None:
    """Refuse, as a ``ValueError``, objects that would name somebody who is to stay unnamed, or belong to nobody."""
    if destinations and identifiers != "keep":
        raise ValueError(
            "dicom.destinations want privacy.identifiers: keep. An archive files an object by its patient and study, "
            f"which {identifiers} withholds; take out the destinations, or keep identifiers"
        )
