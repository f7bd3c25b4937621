"""Objects on their way: to real folders, and to real storage providers that answer, refuse, hang and break."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt

from fracture_watch.delivery.finding import object_uid
from fracture_watch.delivery.secondary_capture import capture
from fracture_watch.delivery.send import Archive, Folder, Node
from fracture_watch.delivery.shelf import Shelf
from fracture_watch.delivery.sr import report
from fracture_watch.outcomes import Delivery
from fracture_watch.records import Kind
from fracture_watch.times import now
from tests.delivery.objects import MODEL, finding, source
from tests.delivery.test_dicom_objects import PICTURE

CLASSES = (uid.Comprehensive3DSRStorage, uid.SecondaryCaptureImageStorage)
SECONDS = 2.0
RUNNING = threading.Event()  # never set: the program goes on


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "artefacts")


@pytest.fixture
def built(shelf):
    """Deliveries of both objects of one result."""
    content, evidence = source()
    found = finding(content)
    made = {Kind.SR: report(found, evidence), Kind.SC: capture(found, evidence, PICTURE.repeat(20, 0), painted=True)}
    for kind, data in made.items():
        shelf.put(kind, found.sha256, MODEL.id, data)
    row = {"sha256": found.sha256, "model_id": MODEL.id}
    return {kind: Delivery(f"d-{kind}", kind, "dicom:x", 0, now(), row) for kind in made}


@contextmanager
def provider(*handlers, classes=CLASSES, syntaxes=ALL_TRANSFER_SYNTAXES, **settings):
    entity = AE(ae_title="ARCHIVE")
    for key, value in settings.items():
        setattr(entity, key, value)
    for sop_class in classes:
        entity.add_supported_context(sop_class, syntaxes)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def node(port, host="127.0.0.1"):
    return Node(host, port, "ARCHIVE", "US")


def test_an_archive_gets_both_objects_as_they_were_built(shelf, built):
    got = []

    def store(event):
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        got.append((event.assoc.requestor.ae_title, dataset))
        return 0x0000

    with provider((evt.EVT_C_STORE, store)) as port:
        assert [Archive(node(port), shelf, RUNNING).send(delivery) for delivery in built.values()] == [None, None]
    assert [caller for caller, _ in got] == ["US", "US"]
    for (_, dataset), delivery in zip(got, built.values(), strict=True):
        kept = dcmread(shelf.of(delivery.kind, delivery.subject))
        syntaxes = {d.file_meta.TransferSyntaxUID for d in (dataset, kept)}
        assert syntaxes <= {uid.JPEGBaseline8Bit} or syntaxes <= {
            uid.ExplicitVRLittleEndian,
            uid.ImplicitVRLittleEndian,
        }
        assert dataset == kept


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0x0116, 0x0111])
def test_stored_is_stored_with_a_warning_and_if_it_was_there(shelf, built, status):
    with provider((evt.EVT_C_STORE, lambda _: status)) as port:
        assert Archive(node(port), shelf, RUNNING).send(built[Kind.SR]) is None


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0xA700, "it answered 0xA700: Refused: Out of Resources"),
        (0xA900, "it answered 0xA900: Data Set Does Not Match SOP Class"),
        (0xC123, "it answered 0xC123: Cannot Understand"),
        (0x0124, "it answered 0x0124: Refused: Not Authorised"),
        (0x7777, "it answered 0x7777: a status that no standard names"),
    ],
)
def test_what_is_refused_is_said_in_the_standards_words(shelf, built, status, said):
    with provider((evt.EVT_C_STORE, lambda _: status)) as port:
        assert Archive(node(port), shelf, RUNNING).send(built[Kind.SR]).casefold() == said.casefold()


def test_an_archive_without_jpeg_gets_plain_pixels_under_the_same_uid(shelf, built):
    got = []

    def store(event):
        got.append(event.dataset)
        return 0x0000

    with provider((evt.EVT_C_STORE, store), syntaxes=[uid.ImplicitVRLittleEndian]) as port:
        assert Archive(node(port), shelf, RUNNING).send(built[Kind.SC]) is None
    [dataset] = got
    row = built[Kind.SC].subject
    assert dataset.SOPInstanceUID == object_uid(Kind.SC, row["sha256"], row["model_id"])
    assert dataset.PhotometricInterpretation == "RGB"
    assert len(dataset.PixelData) == dataset.Rows * dataset.Columns * 3


def test_an_archive_that_takes_no_such_objects_says_which(shelf, built):
    with provider(classes=[uid.CTImageStorage]) as port:
        assert Archive(node(port), shelf, RUNNING).send(built[Kind.SR]) == (
            "it takes none of our SOP classes: allow Comprehensive 3D SR and Secondary Capture there"
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"require_calling_aet": ["OTHER"]}, "does not know our AE title: tell it calling_ae_title"),
        ({"require_called_aet": True, "ae_title": "OTHER"}, "does not go by that AE title: change ae_title"),
    ],
)
def test_a_refused_association_says_what_to_change(shelf, built, settings, said):
    with provider(**settings) as port:
        assert said in Archive(node(port), shelf, RUNNING).send(built[Kind.SR])


def test_one_that_is_down_is_said_to_be_out_of_reach(shelf, built):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert f"cannot be reached at 127.0.0.1:{port}" in Archive(node(port), shelf, RUNNING).send(built[Kind.SR])


def test_a_name_that_nobody_knows_is_said(shelf, built):
    said = Archive(node(104, "no.such.host.invalid"), shelf, RUNNING).send(built[Kind.SR])
    assert said == "the host name no.such.host.invalid is not known: is it spelled right?"


def bounded(archive, delivery):
    began = time.monotonic()
    said = archive.send(delivery)
    assert time.monotonic() - began < 3 * SECONDS + 5
    assert said == f"it ended the association or did not answer within {SECONDS:g} s"


def test_one_that_accepts_connections_and_says_nothing_costs_bounded_time(shelf, built):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        bounded(Archive(node(listening.getsockname()[1]), shelf, RUNNING, SECONDS), built[Kind.SR])


def test_one_that_never_answers_a_store_costs_bounded_time(shelf, built):
    released = threading.Event()
    with provider((evt.EVT_C_STORE, lambda _: released.wait(30) or 0)) as port:
        bounded(Archive(node(port), shelf, RUNNING, SECONDS), built[Kind.SR])
        released.set()


def test_one_that_stops_reading_costs_bounded_time(shelf, built):
    released = threading.Event()

    def stall(event):
        if type(event.pdu).__name__ == "P_DATA_TF":
            released.wait(30)

    before = threading.active_count()
    with provider((evt.EVT_PDU_RECV, stall)) as port:
        bounded(Archive(node(port), shelf, RUNNING, SECONDS), built[Kind.SC])
        released.set()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_at_the_end_of_the_program_what_hangs_is_left_and_no_thread_stays(shelf, built):
    released, stop, asked = threading.Event(), threading.Event(), threading.Event()

    def hang(_):
        asked.set()
        released.wait(30)
        return 0

    before = threading.active_count()
    with provider((evt.EVT_C_STORE, hang)) as port, ThreadPoolExecutor(1) as sender:
        said = sender.submit(Archive(node(port), shelf, stop).send, built[Kind.SR])
        assert asked.wait(10)
        stop.set()
        assert said.result(8) == "it had not answered when the program ended"
        released.set()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_one_that_breaks_off_in_the_middle_is_tried_again(shelf, built):
    def abort(event):
        event.assoc.abort()
        return 0

    with provider((evt.EVT_C_STORE, abort)) as port:
        bounded(Archive(node(port), shelf, RUNNING, SECONDS), built[Kind.SR])


def test_a_folder_gets_them_whole_under_their_uids(tmp_path, shelf, built):
    place = tmp_path / "out"
    place.mkdir()
    for _ in range(2):  # again, and nothing changes
        assert [Folder(place, shelf).send(delivery) for delivery in built.values()] == [None, None]
    found = {dcmread(path).SOPInstanceUID: path.name for path in place.iterdir()}
    assert len(found) == 2
    assert all(name == f"{instance}.dcm" for instance, name in found.items())


def test_a_folder_that_is_not_there_is_never_made(tmp_path, shelf, built):
    place = tmp_path / "share"
    assert Folder(place, shelf).send(built[Kind.SR]) == f"{place} is not there: mount it, or make it"
    assert not place.exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path, shelf, built):
    place = tmp_path / "out"
    place.mkdir()
    row = built[Kind.SR].subject
    (place / f".{object_uid(Kind.SR, row['sha256'], row['model_id'])}.dcm.part").mkdir()  # root writes everywhere else
    assert Folder(place, shelf).send(built[Kind.SR]) == f"{place} cannot be written: Is a directory"


def test_an_object_that_somebody_removed_is_said(tmp_path, shelf, built):
    shelf.of(Kind.SR, built[Kind.SR].subject).unlink()
    for channel in (Folder(tmp_path, shelf), Archive(node(1), shelf, RUNNING)):
        assert "gone from filing.artefacts_dir" in channel.send(built[Kind.SR])
