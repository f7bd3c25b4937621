"""The section ``dicom``: what is exchanged with other DICOM nodes."""

from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from fracture_watch.config.base import Float, Int, Section
from fracture_watch.records import LOOPBACK


def _ae_title(title: str) -> str:
    """PS3.5 6.2: up to 16 characters of ASCII, of which spaces at either end do not count."""
    title = title.strip(" ")
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("must be an AE title: 1 to 16 ASCII characters, no backslash")
    return title


def _network(address: str) -> str:
    try:
        return str(ip_network(address, strict=False))
    except ValueError:
        raise ValueError("must be an IP address, or a network such as 10.1.2.0/24; names are not looked up") from None


AeTitle = Annotated[str, AfterValidator(_ae_title)]


class PeerSettings(Section):
    """A node that may send: its AE title, and its address or the network that it is in."""

    ae_title: AeTitle
    address: Annotated[str, AfterValidator(_network)]


class ReceiveSettings(Section):
    """The C-STORE SCP. Beyond loopback it wants to know its peers."""

    ae_title: AeTitle = "FRACTURE_WATCH"
    host: str = "127.0.0.1"
    port: Int = Field(11112, ge=0, le=65535)
    peers: tuple[PeerSettings, ...] = ()
    max_associations: Int = Field(10, ge=1, le=100)
    idle_seconds: Float = Field(60.0, ge=1, le=3600)

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.host not in LOOPBACK and not self.peers:
            raise ValueError(
                f"host {self.host} is reachable from other machines, so peers must list who may send, as in "
                "[{ae_title: PACS, address: 10.1.2.3}]"
            )
        return self


class DicomSettings(Section):
    """DICOM services; each is off where it is absent or null."""

    receive: ReceiveSettings | None = None
