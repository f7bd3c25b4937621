"""Who may send DICOM objects, and where to."""

from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from fracture_watch.config.base import AeTitle, Float, Int, Section
from fracture_watch.records import LOOPBACK


def _network(address: str) -> str:
    try:
        return str(ip_network(address, strict=False))
    except ValueError:
        raise ValueError("must be an IP address, or a network such as 10.1.2.0/24; names are not looked up") from None


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
