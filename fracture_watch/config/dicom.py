"""The section ``dicom``: what goes to other DICOM systems."""

from pydantic import Field

from fracture_watch.config.base import Float, Section
from fracture_watch.config.destinations import Destinations


class DicomSettings(Section):
    """Where results go as DICOM objects, and how patient we are with those places."""

    destinations: Destinations = ()
    give_up_days: Float = Field(3.0, gt=0, le=365)
