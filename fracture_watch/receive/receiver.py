"""The C-STORE SCP: listens, lets peers in, and answers each object when it is in the inbox for good."""

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from fracture_watch.errors import Corrupt, FractureWatchError, InvalidSettings, StorageUnavailable, TooLarge
from fracture_watch.receive.door import STORAGE_CLASSES, Door, Listening, Reason, Tally
from fracture_watch.receive.landing import Landing
from fracture_watch.receive.server import ConnectionHandler, Server, Session
from fracture_watch.receive.storing import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, MOST_PDU_BYTES

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import C_STORE

log = logging.getLogger(__name__)
# What they would log quotes what peers sent, whatever the settings say of privacy; what matters is logged here.
for _name in ("pynetdicom", "pydicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
_config.LOG_HANDLER_LEVEL = "none"

_SUCCESS, _NOT_AUTHORISED = 0x0000, 0x0124  # PS3.7 annex C
_REFUSALS: tuple[tuple[type[Exception], Reason, int], ...] = (  # the first that fits; PS3.4 B.2.3
    (StorageUnavailable, Reason.NO_ROOM, 0xA700),
    (TooLarge, Reason.TOO_LARGE, 0xC001),
    (Corrupt, Reason.INVALID, 0xC003),
    (Exception, Reason.UNWRITABLE, 0xC002),
)
_TICK_SECONDS = 0.1
_ADVICE = {
    errno.EADDRINUSE: "another program has the port. Set dicom.receive.port to a free one, or to 0 for any",
    errno.EACCES: "ports below 1024 are not for this user. Set dicom.receive.port to another one",
}
# For the sender's log, as ErrorComment of at most 64 characters; ours says more.
_COMMENTS = {
    Reason.NO_ROOM: "no room on the disk of the inbox, try again later",
    Reason.TOO_LARGE: "larger than inbox.max_file_mb",
    Reason.INVALID: "no valid SOP Instance UID",
    Reason.UNWRITABLE: "cannot be written, see the log of the receiver",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: of silence in an association, until one is asked for, and on leaving, to finish what is in hand."""

    idle: float
    request: float = 10.0
    stop: float = 10.0


class Receiver:
    """Receives while it is entered.

    Parameters
    ----------
    address : (str, int)
        Port 0 is any free one.
    door : Door
    landing : Landing
    syntaxes : sequence of str
        Transfer syntaxes, the one first that is liked best where a peer offers several.
    patience : Patience
    tally : Tally
    quoting : bool
        Whether the log may name objects by their UID.
    """

    def __init__(
        self,
        address: tuple[str, int],
        door: Door,
        landing: Landing,
        syntaxes: Sequence[str],
        patience: Patience,
        tally: Tally,
        *,
        quoting: bool = True,
    ) -> None:
        self._address = address
        self._door = door
        self._landing = landing
        self._syntaxes = list(syntaxes)
        self._patience = patience
        self._tally = tally
        self._quoting = quoting
        self._admitting = threading.Lock()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start to listen.

        Raises
        ------
        InvalidSettings
            If that is not possible.
        """
        left = self._landing.clear()
        if left:
            log.info("%d unfinished objects of an earlier receiver were removed; their senders were told nothing", left)
        server = self._made_server()
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(_TICK_SECONDS,), name="dicom", daemon=True)
        self._thread.start()
        who = ", ".join(f"{p.ae_title} at {p.network}" for p in self._door.peers) or "anybody on this machine"
        log.info("receiving DICOM as %s on %s from %s", self._door.ae_title, self._where, who)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Accept nothing more, answer what is in hand, and end."""
        if self._server is None:
            return
        self._server.shut()
        self._wait(self._let_go)
        for session in list(self._server.sessions.values()):
            session.hang_up()
        self._wait(lambda session: None, 2.0)
        self._server.service_actions()
        self._server = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1]) if self._server else self._address[1]

    @property
    def status(self) -> Listening:
        """A snapshot for other threads."""
        refusing = None
        try:
            self._landing.require_room()
        except StorageUnavailable as error:
            refusing = error.detail
        running = self._thread is not None and self._thread.is_alive()
        return Listening(self._door.ae_title, self._where, self._open(), running, refusing)

    def try_address(self) -> None:
        """Raise ``InvalidSettings`` where it could not listen."""
        self._made_server().server_close()

    @property
    def _where(self) -> str:
        host = self._address[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _made_server(self) -> Server:
        entity = AE(ae_title=self._door.ae_title)
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = MOST_PDU_BYTES
        entity.maximum_associations = 1_000_000  # the door counts them
        entity.acse_timeout = self._patience.request
        entity.network_timeout = self._patience.idle
        contexts = [build_context(storage, self._syntaxes) for storage in STORAGE_CLASSES]
        try:
            made = entity.make_server(
                self._address,
                contexts=[*contexts, build_context(Verification)],
                evt_handlers=[(evt.EVT_REQUESTED, self._admit), (evt.EVT_C_STORE, self._store)],
                server_class=Server,
                request_handler=ConnectionHandler,
                parts=(self._door, self._landing, self._tally),
            )
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0, "dicom.receive.host must be an address of this machine")
            reason = error.strerror or error
            raise InvalidSettings(f"dicom.receive: {self._where} cannot be used: {reason}; {advice}") from error
        return cast(Server, made)

    def _admit(self, event: evt.Event) -> None:
        """Answer a request for an association, if the answer is no."""
        assoc = event.assoc
        session = self._session(assoc)
        request: Any = assoc.requestor.primitive
        with self._admitting:
            refusal = self._door.refusal(
                str(request.called_ae_title), str(request.calling_ae_title), session.address, self._open()
            )
            session.admitted, session.rejected = refusal is None, refusal is not None
        if refusal is None:
            log.debug("%s at %s: association", session.caller, session.address)
            return
        log.warning("%s: association of %s rejected: %s", session.address, session.caller, refusal.detail)
        self._tally.refused(refusal.reason)
        assoc.acse.send_reject(*refusal.codes)
        assoc.kill()

    def _store(self, event: evt.Event) -> int | Dataset:
        """Answer an object."""
        session = self._session(event.assoc)
        arriving = session.storing.taken()
        if arriving is None:  # the association is being aborted, which nobody will answer
            return _NOT_AUTHORISED
        if not session.admitted:  # a defect in admitting must not let anybody in
            arriving.discard()
            return _NOT_AUTHORISED
        uid = str(cast("C_STORE", event.request).AffectedSOPInstanceUID)
        try:
            landed = self._landing.land(arriving, session.caller, uid)
        except Exception as error:  # noqa: BLE001  pynetdicom would answer a defect, too, and keep it to itself
            return self._refused(session, uid, error)
        session.objects += 1
        session.size += landed.size
        self._tally.received(landed.size)
        who = {"sender": session.caller, "address": session.address}
        what = {"bytes": landed.size, "sha256": landed.sha256}
        text = f"received{self._named(uid)}, {landed.size} bytes, sha256 {landed.sha256}"
        log.info("%s at %s: %s", *who.values(), text, extra={"facts": who | what})
        return _SUCCESS

    def _refused(self, session: Session, uid: str, error: Exception) -> Dataset:
        reason, status = next((reason, status) for kind, reason, status in _REFUSALS if isinstance(error, kind))
        detail = "a defect in this program"
        if isinstance(error, OSError):
            detail = f"it cannot be written to the inbox: {error.strerror or error}; see who may write there"
        elif isinstance(error, FractureWatchError):
            detail = error.detail
        text = "%s at %s: refused%s with status %04X: %s"
        defect = None if isinstance(error, OSError | FractureWatchError) else error
        log.error(text, session.caller, session.address, self._named(uid), status, detail, exc_info=defect)
        self._tally.refused(reason)
        answer = Dataset()
        answer.Status, answer.ErrorComment = status, _COMMENTS[reason]
        return answer

    def _named(self, uid: str) -> str:
        return f" {uid}" if self._quoting else ""

    def _session(self, assoc: "Association") -> Session:
        return cast(Server, assoc._server).sessions[assoc]

    def _open(self) -> int:
        return sum(session.is_open for session in list(self._server.sessions.values())) if self._server else 0

    def _let_go(self, session: Session) -> None:
        """An association is ended as soon as nothing of it is in hand."""
        if not session.is_open:
            session.hang_up()
        elif session.storing.is_idle:
            session.assoc.abort(block=False)

    def _wait(self, urge: Callable[[Session], None], seconds: float | None = None) -> None:
        """Until every connection is over, or for so long."""
        end = time.monotonic() + (self._patience.stop if seconds is None else seconds)
        while self._server and time.monotonic() < end:
            sessions = [session for session in list(self._server.sessions.values()) if not session.is_over]
            if not sessions:
                return
            for session in sessions:
                urge(session)
            time.sleep(0.02)
