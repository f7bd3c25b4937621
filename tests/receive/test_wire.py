"""Whatever comes in at the port: it costs its own connection, leaves nothing in the inbox, and the next is served."""

import io
import resource
import socket
import struct
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dimse_messages import C_STORE_RQ, N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from fracture_watch.receive import storing
from fracture_watch.receive.door import STORAGE_CLASSES
from tests.dicoms import DX, dicom
from tests.receive.peers import association, receiving, send_one, until

PIXELS = np.zeros((32, 32), np.uint16)
CONTEXT = DX, [ExplicitVRLittleEndian]
ECHO = Verification, [ExplicitVRLittleEndian]


def pdv(control, content, context_id=1):
    item = struct.pack(">LBB", len(content) + 2, context_id, control) + content
    return struct.pack(">BBL", 4, 0, len(item)) + item


def store_command(uid="1.2.3.4", sop_class=DX, **changes):
    request = C_STORE()
    request.MessageID, request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = 1, sop_class, "1.2.3.4"
    request.Priority, request.DataSet = 2, io.BytesIO(b"\0" * 8)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for keyword, value in ({"AffectedSOPInstanceUID": uid} | changes).items():
        if value is None:
            delattr(message.command_set, keyword)
        else:
            message.command_set[keyword]._value = value  # what no validation would let through
    return encode(message.command_set, True, True)


def event_report():
    report = N_EVENT_REPORT()
    report.MessageID, report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = 1, DX, "1.2.3"
    report.EventTypeID = 1
    message = N_EVENT_REPORT_RQ()
    message.primitive_to_message(report)
    return encode(message.command_set, True, True)


def wire(assoc):
    return assoc.dul.socket.socket


def served(house, folder):
    """The next peer is served, and what came before left nothing."""
    assert send_one(house.port, folder, dicom(PIXELS)) == 0x0000
    assert until(lambda: house.unfinished() == [])
    assert [path.name.partition("-")[0] for path in house.received()] == [
        dcmread(io.BytesIO(dicom(PIXELS))).SOPInstanceUID
    ]


VIOLATIONS = {
    "a data set that no command announced": [pdv(2, b"data")],
    "a command in the middle of a data set": [pdv(3, store_command()), pdv(0, b"data"), pdv(3, store_command())],
    "a command that does not end": [pdv(1, bytes(10_000)), pdv(1, bytes(10_000))],
    "a command that is none": [pdv(3, b"\xff" * 200)],
    "an empty command": [pdv(3, b"")],
    "an empty value": [struct.pack(">BBLLB", 4, 0, 5, 1, 1)],
    "a presentation context that was not accepted": [pdv(3, store_command(), 99)],
    "a data set in another context": [pdv(3, store_command()), pdv(0, b"data", 3)],
    "another SOP class": [pdv(3, store_command(sop_class=STORAGE_CLASSES[0]))],
    "the verification class": [pdv(3, store_command(sop_class=Verification))],
    "a store on the verification context": [pdv(3, store_command(sop_class=Verification), 3), pdv(2, bytes(1000), 3)]
    * 3,
    "an event report": [pdv(3, event_report())] * 50,
    "a store without a data set": [pdv(3, store_command(CommandDataSetType=0x0101))],
    "a command of no known kind": [pdv(3, store_command(CommandField=0x7777))],
    "a request without a number": [pdv(3, store_command(MessageID=None)), pdv(2, b"data")],
    "two requests at once": [pdv(3, store_command()), pdv(2, b"data")] * 20,
    "an object that does not end": [pdv(3, store_command())] + [pdv(0, bytes(100_000))] * 5,
    "an unknown PDU": [b"\x47\x45\x54\x20\x2f\x20"],
    "a PDU of 4 GiB": [struct.pack(">BBL", 4, 0, 0xFFFFFFFF), bytes(100_000)],
    "a value longer than its PDU": [struct.pack(">BBLLBB", 4, 0, 6, 1_000_000, 1, 3)],
    "half a PDU, and silence": [struct.pack(">BBL", 4, 0, 1000) + bytes(10)],
    "half an object, and a hang-up": [pdv(3, store_command()), pdv(0, bytes(1000))],
}


@pytest.mark.parametrize("pdus", VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_was_not_agreed_on_ends_its_association_alone(tmp_path, request, pdus):
    with receiving(tmp_path / "inbox", most_bytes=200_000) as house:
        with association(house.port, CONTEXT, ECHO) as assoc, association(house.port, CONTEXT) as bystander:
            assert assoc.is_established
            plain = wire(assoc)
            with suppress(OSError):  # it is ended while we speak
                for pdu in pdus:
                    plain.sendall(pdu)
                if "hang-up" not in request.node.name and "silence" not in request.node.name:
                    assert until(lambda: not assoc.is_established, 10)
                plain.shutdown(socket.SHUT_WR)
            assert until(lambda: not assoc.is_established, 10)
            assert bystander.is_established
        assert until(lambda: house.receiver.status.associations == 0)
        for path in house.received():  # of two requests at once, the first may have been answered in time
            path.unlink()
        served(house, tmp_path)


@pytest.mark.parametrize("uid", ["../../../etc/x", "1.2/../3", "..", "1.2\\3", "é.1", ""])
def test_what_is_no_uid_is_refused_or_ends_the_association_and_names_no_file(tmp_path, uid):
    (tmp_path / "in").mkdir()
    with receiving(tmp_path / "in" / "inbox") as house:
        with association(house.port, CONTEXT) as assoc:
            wire(assoc).sendall(pdv(3, store_command(uid=uid)) + pdv(2, b"data"))
            time.sleep(0.3)
        assert house.received() == []
        served(house, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"in", "outgoing.dcm"}


def test_a_stop_waits_no_longer_than_it_says_for_who_does_not_go_on(tmp_path):
    with receiving(tmp_path / "inbox", stop=1.0) as house:
        threads = threading.active_count()
        with association(house.port, CONTEXT) as assoc:
            wire(assoc).sendall(pdv(3, store_command()) + struct.pack(">BBL", 4, 0, 100))
            assert until(house.unfinished)
            began = time.monotonic()
            house.receiver.__exit__(None, None, None)
            assert 1 <= time.monotonic() - began < 4
            assert until(lambda: not assoc.is_established)
        assert until(lambda: threading.active_count() < threads)
        assert house.unfinished() == house.received() == []


def test_what_is_no_dicom_is_shown_out(tmp_path):
    with receiving(tmp_path / "inbox", request=1.5) as house:
        for junk in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            bytes(1000),
            b"\x01\x00\xff\xff\xff\xff",
            b"",
        ):
            with socket.create_connection(("127.0.0.1", house.port)) as plain:
                plain.sendall(junk)
                plain.shutdown(socket.SHUT_WR)
                plain.settimeout(20)
                assert plain.recv(1) in (b"", b"\x07")  # nothing, or an A-ABORT
        served(house, tmp_path)


def test_who_connects_and_says_nothing_holds_no_more_than_a_place(tmp_path):
    idle = []
    with receiving(tmp_path / "inbox", most=2, request=1.5) as house:
        try:
            before = threading.active_count()
            for _ in range(40):
                idle.append(socket.create_connection(("127.0.0.1", house.port)))
                idle[-1].sendall(b"\x01")  # the first byte of a request, and never the second
            assert until(lambda: house.count("refused", reason="connections") >= 20)
            assert threading.active_count() - before <= 2 * (2 + 16)
        finally:
            for plain in idle:
                plain.close()
        assert until(lambda: threading.active_count() <= before + 1, 20)
        assert until(lambda: has_room(house), 20)
        served(house, tmp_path)


def has_room(house):
    with association(house.port) as assoc:
        return assoc.is_established


class Plain:
    """As much of an AssociationSocket as is needed to take its place."""

    def __init__(self, plain):
        self.socket = plain


def test_a_pdu_that_trickles_ends_in_time():
    left, right = socket.socketpair()
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.1):
            right.send(b"x")

    feeder = threading.Thread(target=trickle)
    feeder.start()
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            storing.BoundedSocket(Plain(left), seconds=0.5).recv(1000)
        assert time.monotonic() - began < 3
    finally:
        stop.set()
        feeder.join()
        left.close()
        right.close()


def test_a_large_object_takes_no_memory(tmp_path):
    """150 MB through a process that has that much already would not show; the peak of this one may not grow by it."""
    with receiving(tmp_path / "inbox") as house, association(house.port, CONTEXT) as assoc:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        chunk = pdv(0, bytes(120_000))
        wire(assoc).sendall(pdv(3, store_command()))
        for _ in range(1250):
            wire(assoc).sendall(chunk)
        wire(assoc).sendall(pdv(2, b""))
        assert until(house.received, 30)
        assert house.received()[0].stat().st_size > 150_000_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB
