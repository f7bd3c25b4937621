"""What a peer sends, taken in as it comes: pynetdicom's upper layer and DIMSE, held to limits."""

import logging
import struct
import time
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, cast

from pydicom.dataset import Dataset
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket

from fracture_watch.errors import Corrupt
from fracture_watch.receive.door import Reason, Tally
from fracture_watch.receive.landing import Arriving, Landing

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import C_ECHO, C_STORE, DimsePrimitiveType
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.presentation import PresentationContext

log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", module=r"pydicom\.")  # they quote what a peer sent, on standard error


IMPLEMENTATION_CLASS_UID = "2.25.180671097374911842031076810862290685618"
# Without our version, on purpose: the same object, sent again after an update, has to be the same bytes.
IMPLEMENTATION_VERSION_NAME = "FRACTURE_WATCH"
MOST_PDU_BYTES = 131_072  # what we ask for, PS3.8 D.1
_LARGEST_PDU = 1 << 20  # what we bear: some senders do not care, and the length field allows 4 GiB
_PDU_SECONDS = 30.0
_LONGEST_COMMAND = 16_384
_NO_DATA_SET = 0x0101
_C_STORE, _C_ECHO = 0x0001, 0x0030


class Violation(Exception):
    """What came is not what was agreed on; the association is aborted."""


class BoundedSocket(AssociationSocket):
    """Neither waits for ever nor takes what nobody needs to send.

    Parameters
    ----------
    plain : AssociationSocket
        The one whose place it takes.
    seconds : float
        In which a PDU that began has to be there.
    """

    def __init__(self, plain: AssociationSocket, seconds: float = _PDU_SECONDS) -> None:
        vars(self).update(vars(plain))  # not the base's: it would announce the connection a second time
        self._seconds = seconds

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly so many bytes; fewer where the peer has closed.

        Raises
        ------
        OSError
            If that is more than a PDU may have, or does not come in time. pynetdicom then ends the connection.
        """
        if nr_bytes > _LARGEST_PDU:
            log.warning("%s: connection closed: a PDU of %d bytes", self.assoc.requestor.address, nr_bytes)
            self._shutdown_socket()  # else it would be open until the association is given up
            raise ConnectionError("the PDU is too large")
        content = bytearray(nr_bytes)
        view, count, end = memoryview(content), 0, time.monotonic() + self._seconds
        while self.socket is not None and count < nr_bytes:
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            got = self.socket.recv_into(view[count:])
            if not got:
                break
            count += got
        return content[:count]


class Machine(StateMachine):
    """The state machine of PS3.8 9.2; what it has no rule for ends the connection, not the thread with a traceback."""

    def do_action(self, event: str) -> None:
        """What is due after an event."""
        try:
            super().do_action(event)
        except Exception as error:  # noqa: BLE001  a peer can bring about nearly any of them
            log.debug("%s: connection ended: %r", self.dul.assoc.requestor.address, error)
            if self.dul.socket:
                self.dul.socket._shutdown_socket()
            self.dul.kill_dul()


class Storing(DIMSEServiceProvider):
    """Takes C-STORE and C-ECHO requests, one at a time, and writes data sets to disk while they come.

    pynetdicom calls ``receive_primitive`` in the thread that reads, and the handlers of its events, which call
    ``taken``, in the one that answers.

    Parameters
    ----------
    assoc : Association
    landing : Landing
    tally : Tally
    """

    def __init__(self, assoc: "Association", landing: Landing, tally: Tally) -> None:
        super().__init__(assoc)
        self._landing = landing
        self._tally = tally
        self._command = bytearray()
        self._store: DIMSEMessage | None = None  # whose data set is coming
        self._arriving: Arriving | None = None
        self._begun = self._answering = self._answered = 0  # requests

    @property
    def is_idle(self) -> bool:
        """Whether nothing is coming, and everything that came has its answer on the way."""
        return not self._command and self._begun == self._answered

    def taken(self) -> Arriving | None:
        """The object whose request is to be answered now."""
        arriving, self._arriving = self._arriving, None
        return arriving

    def discard(self) -> None:
        """The association is over: what has not come whole was never here."""
        arriving = self.taken()
        if arriving:
            arriving.discard()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in what one PDU brought."""
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._take(context_id, value)
        except Exception as error:  # noqa: BLE001  pydicom and pynetdicom raise many kinds on a hostile command
            self.discard()
            self._tally.refused(Reason.PROTOCOL)
            what = error if isinstance(error, Violation) else f"its command cannot be read: {type(error).__name__}"
            log.warning("%s: association aborted: %s", self.assoc.requestor.address, what)
            self.dul.event_queue.put("Evt19")  # an invalid PDU: A-ABORT, PS3.8 9.2.2

    def send_msg(self, primitive: "DimsePrimitiveType", context_id: int) -> None:
        """Send an answer."""
        self._answering += 1  # before it is sent: the peer may ask again as soon as it has it
        super().send_msg(primitive, context_id)
        self._answered += 1

    def _take(self, context_id: int, value: bytes) -> None:
        """One presentation data value: a control byte and a fragment, PS3.8 E.2."""
        if not value:
            raise Violation("an empty presentation data value")
        fragment, is_command, is_last = memoryview(value)[1:], value[0] & 1, value[0] & 2
        if is_command:
            if self._store:
                raise Violation("a command in the middle of a data set")
            self._command += fragment
            if len(self._command) > _LONGEST_COMMAND:
                raise Violation("a command that does not end")
            if is_last:
                self._begin(context_id)
            return
        if self._store is None or self._arriving is None or self._store.context_id != context_id:
            raise Violation("a data set that no command announced")
        self._arriving.write(fragment)
        if self._arriving.is_endless:
            raise Violation(f"an object of more than {self._arriving.size:,} bytes")
        if is_last:
            store, self._store = self._store, None
            self._ask(store)

    def _begin(self, context_id: int) -> None:
        message = DIMSEMessage()
        whole = P_DATA()
        whole.presentation_data_value_list.append((context_id, b"\x03" + bytes(self._command)))
        self._command.clear()
        message.decode_msg(whole)
        command, context = message.command_set, self._context(context_id)
        if command.CommandField not in (_C_STORE, _C_ECHO):
            raise Violation(f"the request {command.CommandField:#06x}, which nobody offered")
        if command.AffectedSOPClassUID != context.abstract_syntax:
            raise Violation("a SOP class other than that of its presentation context")
        if (command.CommandField == _C_ECHO) is not (context.abstract_syntax == Verification):
            raise Violation("a C-STORE on the context of a C-ECHO, or the other way round")
        if (command.CommandField == _C_STORE) is (command.CommandDataSetType == _NO_DATA_SET):
            raise Violation("a C-STORE without a data set, or a C-ECHO with one")
        if self._begun != self._answering:
            raise Violation("a request before the last one was answered")
        self._begun += 1
        if command.CommandField == _C_ECHO:
            self._ask(message)
            return
        self._store = message
        self._arriving = self._opened(command, str(context.transfer_syntax[0]))

    def _context(self, context_id: int) -> "PresentationContext":
        for context in self.assoc.accepted_contexts:
            if context.context_id == context_id:
                return context
        raise Violation("a presentation context that was not accepted")

    def _opened(self, command: Dataset, syntax: str) -> Arriving:
        uid = str(command.AffectedSOPInstanceUID)
        if not is_uid(uid):
            return self._landing.refuse(Corrupt("the SOP Instance UID of the request is none"))
        arriving = self._landing.begin(str(cast("A_ASSOCIATE", self.assoc.requestor.primitive).calling_ae_title))
        arriving.write(file_meta(str(command.AffectedSOPClassUID), uid, syntax))
        return arriving

    def _ask(self, message: DIMSEMessage) -> None:
        """Hand a request to the thread that answers; its data set is on disk, and what pynetdicom gets is empty."""
        message.data_set = BytesIO()
        request = cast("C_STORE | C_ECHO", message.message_to_primitive())
        if not request.is_valid_request:  # pynetdicom would leave it without an answer
            raise Violation("a request that lacks what PS3.7 9.3 wants in it")
        self.msg_queue.put((cast(int, message.context_id), request))


def is_uid(text: str) -> bool:
    """Whether a text can be a UID, which PS3.5 9.1 makes of digits and dots: as such it is a safe file name, too."""
    return 0 < len(text) <= 64 and set(text) <= set("0123456789.") and text[0] != "." and ".." not in text


def file_meta(sop_class: str, uid: str, syntax: str) -> bytes:
    """Preamble and File Meta Information (PS3.10 7.1): what stands in a file before the data set."""
    elements = (
        _element(0x0001, b"OB", b"\x00\x01")
        + _element(0x0002, b"UI", sop_class.encode("ascii"))
        + _element(0x0003, b"UI", uid.encode("ascii"))
        + _element(0x0010, b"UI", syntax.encode("ascii"))
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii"))
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii"))
    )
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 2, explicit VR little endian (PS3.5 7.1.2)."""
    value += (b" " if vr == b"SH" else b"\x00") * (len(value) % 2)
    length = struct.pack("<xxL" if vr == b"OB" else "<H", len(value))
    return struct.pack("<HH", 0x0002, number) + vr + length + value
