"""The section ``dicom``: what is exchanged with other DICOM nodes."""

from pydantic import Field

from fracture_watch.config.base import Float, Section
from fracture_watch.config.destinations import Destinations
from fracture_watch.config.receiving import ReceiveSettings


class DicomSettings(Section):
    """What comes in, off where it is null; where results go as DICOM objects, and how patient we are with those."""

    receive: ReceiveSettings | None = None
    destinations: Destinations = ()
    give_up_days: Float = Field(3.0, gt=0, le=365)
