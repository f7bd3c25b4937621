"""The section ``dicom``: what goes to other DICOM systems."""

from pydantic import Field, model_validator

from fracture_watch.config.base import Float, Section
from fracture_watch.config.destinations import DestinationSettings


class DicomSettings(Section):
    """Where results go as DICOM objects, and how patient we are with those places."""

    destinations: tuple[DestinationSettings, ...] = ()
    give_up_days: Float = Field(3.0, gt=0, le=365)

    @model_validator(mode="after")
    def _told_apart(self) -> "DicomSettings":
        names = [destination.name for destination in self.destinations]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{names.count(name)} destinations are called {name}; give each a name of its own")
        return self
