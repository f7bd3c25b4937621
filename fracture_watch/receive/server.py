"""Connections and what they come to: pynetdicom's server, with our own bounds around each association."""

import logging
import socket
import socketserver
from dataclasses import dataclass
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from fracture_watch.receive.door import Door, Reason, Tally
from fracture_watch.receive.landing import Landing
from fracture_watch.receive.storing import BoundedSocket, Machine, Storing

log = logging.getLogger(__name__)
_MORE_CONNECTIONS = 16  # beside those of associations: for those that are to be told why they are none


@dataclass(slots=True, eq=False)
class Session:
    """A connection, and what it came to."""

    assoc: Association
    address: str
    admitted: bool = False
    rejected: bool = False
    objects: int = 0
    size: int = 0

    @property
    def storing(self) -> Storing:
        """What takes in its objects."""
        return cast(Storing, self.assoc.dimse)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return not self.assoc.is_alive() and not self.assoc.dul.is_alive()

    @property
    def is_open(self) -> bool:
        """Whether it is an association that nobody has ended."""
        ended = self.assoc.is_released or self.assoc.is_aborted
        return self.admitted and not ended and self.assoc.is_alive()

    @property
    def caller(self) -> str:
        """The AE title that it gave."""
        return str(self.assoc.requestor.primitive.calling_ae_title)  # type: ignore[union-attr]

    def hang_up(self) -> None:
        """Close the connection; whoever reads from it wakes up."""
        plain = self.assoc.dul.socket and self.assoc.dul.socket.socket
        if plain:
            try:
                plain.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already


class ConnectionHandler(RequestHandler):
    """Makes an association of a connection, with our own bounds around it."""

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        server = cast(Server, self.server)
        assoc.dul.socket = BoundedSocket(cast(AssociationSocket, assoc.dul.socket))
        assoc.dul.state_machine = Machine(assoc.dul)
        assoc.dimse = Storing(assoc, server.landing, server.tally)
        assoc.dul.daemon = True  # or a peer could keep the process from ending
        server.sessions[assoc] = Session(assoc, self.client_address[0])
        return assoc


class Server(AssociationServer):
    """Accepts connections, forgets those that are over."""

    door: Door
    landing: Landing
    tally: Tally
    request_queue_size = 64

    def __init__(self, *args: Any, parts: tuple[Door, Landing, Tally], **kwargs: Any) -> None:
        self.door, self.landing, self.tally = parts
        self.sessions: dict[Association, Session] = {}
        super().__init__(*args, **kwargs)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is worth a thread."""
        address = str(client_address[0])
        if not self.door.knows(address):
            advice = "only dicom.receive.peers may send" if self.door.peers else "dicom.receive.peers is empty"
            log.warning("%s: connection refused: no peer has this address; %s", address, advice)
            self.tally.refused(Reason.ADDRESS)
            return False
        if len(self.sessions) >= self.door.most_associations + _MORE_CONNECTIONS:
            log.warning("%s: connection refused: %d are open", address, len(self.sessions))
            self.tally.refused(Reason.CONNECTIONS)
            return False
        return True

    def service_actions(self) -> None:
        """Part of the loop of the base: ten times a second, and after every connection."""
        for assoc, session in list(self.sessions.items()):
            if session.is_over:
                del self.sessions[assoc]
                self._end(session)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What goes wrong with one connection is that connection's."""
        log.exception("a connection from %s could not be served", client_address[0])

    def shut(self) -> None:
        """Accept nothing more."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def _end(self, session: Session) -> None:
        session.storing.discard()
        if session.admitted:
            how = "ended" if session.assoc.is_released else "broke off"
            text = "%s at %s: association %s: %d objects, %.1f MB"
            log.info(text, session.caller, session.address, how, session.objects, session.size / 1e6)
        elif not session.rejected:
            log.info("%s: a connection that came to no association", session.address)
            self.tally.refused(Reason.PROTOCOL)
