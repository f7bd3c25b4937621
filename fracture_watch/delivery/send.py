"""DICOM objects that were built -> a folder, or an archive by C-STORE (PS3.4 annex B)."""

import io
import logging
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from fracture_watch.delivery.finding import object_uid
from fracture_watch.delivery.shelf import Shelf
from fracture_watch.disk import write_whole
from fracture_watch.outcomes import Delivery

if TYPE_CHECKING:
    from pynetdicom.association import Association

_CONNECT_SECONDS, _SECONDS = 5.0, 30.0  # to reach an archive; for each of its answers
_LOOK_SECONDS, _GRACE_SECONDS = 0.5, 3.0  # until the end of the program is noticed, and then for what is under way
_PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_STORED = 0x0000
_ALREADY_THERE = 0x0111  # PS3.7 C.5.4, duplicate SOP Instance: it has what it was to have
_REJECTED = {  # PS3.8 9.3.4: source and reason -> what to do
    (1, 3): "it does not know our AE title: tell it calling_ae_title, or change that",
    (1, 7): "it does not go by that AE title: change ae_title",
}

# What it would log at every attempt is in the outbox, and the log has the first.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


class Folder:
    """Puts objects into a folder, named by their SOP Instance UID.

    Parameters
    ----------
    folder : Path
        Never made here: an empty mount point is no place for what belongs on the share.
    shelf : Shelf
    """

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self._folder = folder
        self._shelf = shelf

    def send(self, delivery: Delivery) -> str | None:
        """Write it, whole or not at all; again, it replaces itself."""
        content = _content(self._shelf, delivery)
        if content is None:
            return _GONE
        row = delivery.subject
        name = f"{object_uid(delivery.kind, row['sha256'], row['model_id'])}.dcm"
        if not self._folder.is_dir():
            return f"{self._folder} is not there: mount it, or make it"
        try:
            write_whole(self._folder / name, content)
        except OSError as error:
            return f"{self._folder} cannot be written: {error.strerror}"
        return None


@dataclass(frozen=True, slots=True)
class Node:
    """An archive: where it listens, its AE title, and ours."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str


class Archive:
    """Stores objects in a PACS. Each has its own association, so that one that is refused leaves the others alone.

    Parameters
    ----------
    node : Node
    shelf : Shelf
    stop : Event
        The end of the program: what is under way then gets a few seconds.
    seconds : float
        The most to wait for each answer, and for room to write.
    """

    def __init__(self, node: Node, shelf: Shelf, stop: threading.Event, seconds: float = _SECONDS) -> None:
        self._node = node
        self._shelf = shelf
        self._stop = stop
        self._seconds = seconds

    def send(self, delivery: Delivery) -> str | None:
        """Store it; ``None`` if the archive has it, with or without a warning, else what was wrong."""
        content = _content(self._shelf, delivery)
        if content is None:
            return _GONE
        attempt = _Attempt(self._seconds, self._stop)
        try:
            why = self._attempted(dcmread(io.BytesIO(content)), attempt)
        finally:
            attempt.over.set()
        return "it had not answered when the program ended" if why and self._stop.is_set() else why

    def _attempted(self, dataset: Dataset, attempt: "_Attempt") -> str | None:
        try:
            association = self._associated(dataset, attempt)
        except OSError:  # pynetdicom looks the name up before it begins
            return f"the host name {self._node.host} is not known: is it spelled right?"
        if not association.is_established:
            return self._why(association, attempt)
        try:
            return self._stored(association, dataset)
        finally:
            if association.is_established:
                association.release()

    def _associated(self, dataset: Dataset, attempt: "_Attempt") -> "Association":
        node, sop_class, syntax = self._node, dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID
        entity = AE(ae_title=node.calling_ae_title)
        entity.connection_timeout = _CONNECT_SECONDS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._seconds
        # One context a syntax: an archive takes one of each, and may not take ours.
        wanted = [build_context(sop_class, _PLAIN)]
        if syntax.is_compressed:
            wanted.insert(0, build_context(sop_class, syntax))
        return entity.associate(
            node.host, node.port, wanted, node.ae_title, evt_handlers=[(evt.EVT_CONN_OPEN, attempt.opened)]
        )

    def _stored(self, association: "Association", dataset: Dataset) -> str | None:
        accepted = {syntax for context in association.accepted_contexts for syntax in context.transfer_syntax}
        if dataset.file_meta.TransferSyntaxUID not in accepted and accepted.isdisjoint(_PLAIN):
            return f"it does not take {dataset.SOPClassUID.name}: allow that SOP class there"
        if dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.file_meta.TransferSyntaxUID not in accepted:
            dataset.decompress(generate_instance_uid=False)
        answer = association.send_c_store(dataset)
        if "Status" not in answer:
            return f"it ended the association or did not answer within {self._seconds:g} s"
        return _verdict(int(answer.Status))

    def _why(self, association: "Association", attempt: "_Attempt") -> str:
        node = self._node
        if not attempt.connected:
            return f"cannot be reached at {node.host}:{node.port}: does it run, and do firewalls let us through?"
        if association.is_rejected:
            primitive: Any = association.acceptor.primitive
            reason = primitive.result_source, primitive.diagnostic
            return f"it refused the association: {_REJECTED.get(reason, f'source {reason[0]}, reason {reason[1]}')}"
        if association.acceptor.primitive is not None and not association.accepted_contexts:
            return "it takes none of our SOP classes: allow Comprehensive 3D SR and Secondary Capture there"
        return f"it ended the association or did not answer within {self._seconds:g} s"


class _Attempt:
    """What is known of one attempt before there is an association, and its bounds."""

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self.connected = False
        self.over = threading.Event()
        self._limit = struct.pack("ll", int(seconds), 0)
        self._stop = stop

    def opened(self, event: evt.Event) -> None:
        """Bound every write: an archive that stops reading would hold the connection's thread for ever."""
        self.connected = True
        connection = event.assoc.dul.socket
        if connection and connection.socket:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, self._limit)
            threading.Thread(target=self._end_with_the_program, args=(connection.socket,), daemon=True).start()

    def _end_with_the_program(self, connection: socket.socket) -> None:
        """The connection's thread is none that the program ends without: it would wait for overdue answers."""
        while not self.over.wait(_LOOK_SECONDS):
            if self._stop.is_set() and not self.over.wait(_GRACE_SECONDS):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return


_GONE = "its file is gone from filing.artefacts_dir; `fracture-watch export` builds it anew where the image is kept"


def _content(shelf: Shelf, delivery: Delivery) -> bytes | None:
    try:
        return shelf.of(delivery.kind, delivery.subject).read_bytes()
    except FileNotFoundError:
        return None


def _verdict(status: int) -> str | None:
    """In the standard's words: what an archive adds of its own may be long, hostile or confidential."""
    kind, meaning = STORAGE_SERVICE_CLASS_STATUS.get(status, ("Failure", "a status that no standard names"))
    if status in (_STORED, _ALREADY_THERE) or kind == "Warning":
        return None
    return f"it answered 0x{status:04X}: {meaning or kind}"
