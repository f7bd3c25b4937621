"""Who may send, what is taken, and why something was refused."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol, TypeAlias

from pydicom import uid

Network: TypeAlias = IPv4Network | IPv6Network

# PS3.4 B.5. What is FOR PROCESSING is taken, too: its row says why it was rejected, a refusal would say it to nobody.
STORAGE_CLASSES: tuple[uid.UID, ...] = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    uid.XRayAngiographicImageStorage,
    uid.EnhancedXAImageStorage,
    uid.XRayRadiofluoroscopicImageStorage,
    uid.EnhancedXRFImageStorage,
)


class Reason(StrEnum):
    """Why a connection, an association or an object was refused."""

    ADDRESS = "address"  # no peer has it
    CONNECTIONS = "connections"  # more than could ever become associations
    CALLED = "called_ae_title"  # that is not ours
    CALLING = "calling_ae_title"  # that is no peer's, or another address's
    ASSOCIATIONS = "associations"  # as many as are allowed are open
    PROTOCOL = "protocol"  # what came is not what was agreed on, or no DICOM at all
    NO_ROOM = "no_room"  # the inbox's disk is full, read-only or gone
    TOO_LARGE = "too_large"  # more than inbox.max_file_mb
    INVALID = "invalid"  # no UID to go by
    UNWRITABLE = "unwritable"  # anything else that kept it from being written


class Tally(Protocol):
    """Whoever counts."""

    def received(self, size: int) -> None:
        """An object of so many bytes is in the inbox, and its sender is told so."""

    def refused(self, reason: str) -> None:
        """Something was not let in."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an association is rejected: for the log, and as PS3.8 9.3.4 says it (result, source, diagnostic)."""

    reason: Reason
    detail: str
    codes: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Peer:
    """A node that may send: its AE title, and the addresses it may have."""

    ae_title: str
    network: Network


@dataclass(frozen=True, slots=True)
class Door:
    """Lets in peers alone; where there are none, whoever calls from this machine.

    Parameters
    ----------
    ae_title : str
        The one by which we are called.
    peers : tuple of Peer
    most_associations : int
        That are open at once.
    """

    ae_title: str
    peers: tuple[Peer, ...]
    most_associations: int

    def knows(self, address: str) -> bool:
        """Whether anybody may come from this address."""
        found = _plain(address)
        return any(found in peer.network for peer in self.peers) if self.peers else found.is_loopback

    def refusal(self, called: str, calling: str, address: str, count: int) -> Refusal | None:
        """Why an association is not let in beside ``count`` others; ``None``: it is.

        Parameters
        ----------
        called, calling : str
            AE titles, without the spaces around them.
        address : str
        count : int
        """
        found = _plain(address)
        if self.peers and not any(peer.ae_title == calling and found in peer.network for peer in self.peers):
            detail = f"{calling} at {address} is not among dicom.receive.peers"
            return Refusal(Reason.CALLING, detail, (1, 1, 3))
        if called != self.ae_title:
            detail = f"it called {called}, but dicom.receive.ae_title is {self.ae_title}"
            return Refusal(Reason.CALLED, detail, (1, 1, 7))
        if count >= self.most_associations:
            detail = f"{count} associations are open, the most that dicom.receive.max_associations allows"
            return Refusal(Reason.ASSOCIATIONS, detail, (2, 3, 2))
        return None


@dataclass(frozen=True, slots=True)
class Listening:
    """A receiver as others see it: where it is, how many associations are open, and why objects are refused now."""

    ae_title: str
    address: str
    associations: int
    running: bool
    refusing: str | None


Look: TypeAlias = Callable[[], Listening | None]


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An IPv4 address as such, also where it came through an IPv6 socket."""
    found = ip_address(address.partition("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
