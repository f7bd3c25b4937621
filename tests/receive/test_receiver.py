"""The receiver, asked by pynetdicom and DCMTK over real sockets."""

import io
import logging
import subprocess
import threading

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MPEG2MPML, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fracture_watch import imaging
from fracture_watch.imaging.codecs import SYNTAXES
from fracture_watch.imaging.probes import sample
from fracture_watch.intake.completeness import Completeness, completeness
from fracture_watch.receive.door import STORAGE_CLASSES, Peer, Reason
from fracture_watch.receive.storing import file_meta
from fracture_watch.records import Format
from tests.conftest import needs
from tests.dicoms import DX, dicom
from tests.faults.test_systemic import ROOT, fill, small_disk
from tests.receive.peers import US, association, data_set, receiving, send, send_one, until

PIXELS = (np.arange(64 * 48) % 4096).astype(np.uint16).reshape(64, 48)


def dcmtk(command, port, *words, aec=US):
    return subprocess.run(
        [command, "-aec", aec, "127.0.0.1", str(port), *map(str, words)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def of_class(storage):
    content = dicom(PIXELS, SOPClassUID=storage)
    header = dcmread(io.BytesIO(content))
    header.file_meta.MediaStorageSOPClassUID = storage
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_data_set_arrives_byte_for_byte_in_every_transfer_syntax_that_is_decoded(tmp_path, syntax):
    content = sample(syntax)
    with receiving(tmp_path / "inbox") as house:
        assert send_one(house.port, tmp_path, content) == 0x0000
        [path] = house.received()
        found = path.read_bytes()
    assert data_set(found) == data_set(content)
    assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
    assert completeness(path, Format.DICOM) is Completeness.COMPLETE
    assert (imaging.read(path).pixels == imaging.read(content).pixels).all()


def test_the_file_meta_information_is_what_pydicom_makes_of_it(tmp_path):
    meta = dcmread(io.BytesIO(file_meta(DX, "1.2.3", ExplicitVRLittleEndian))).file_meta
    assert meta.MediaStorageSOPClassUID == DX
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    buffer = io.BytesIO()
    from pydicom.filewriter import write_file_meta_info

    length = meta.FileMetaInformationGroupLength
    write_file_meta_info(buffer, meta, enforce_standard=True)
    assert buffer.getvalue() == file_meta(DX, "1.2.3", ExplicitVRLittleEndian)[132:]
    assert length == len(buffer.getvalue()) - 12


def test_the_same_object_sent_again_is_the_same_bytes_whoever_sends_it(tmp_path):
    content = dicom(PIXELS)
    with receiving(tmp_path / "inbox") as house:
        for calling in ("CR1", "PACS"):
            assert send_one(house.port, tmp_path, content, calling=calling) == 0x0000
        one, other = house.received()
        assert one.read_bytes() == other.read_bytes()
        assert {one.parent.name, other.parent.name} == {"CR1", "PACS"}


def test_echo_and_store_with_dcmtk(tmp_path):
    needs("echoscu", "dcmsend", "storescu")
    contents = [dicom(PIXELS + n, seed=n) for n in range(3)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    with receiving(tmp_path / "inbox") as house:
        assert dcmtk("echoscu", house.port).returncode == 0
        assert dcmtk("dcmsend", house.port, *tmp_path.glob("*.dcm")).returncode == 0
        assert dcmtk("storescu", house.port, tmp_path / "0.dcm").returncode == 0
        found = house.received()
        assert [path.parent.name for path in found].count("DCMSEND") == 3
        pixels = {imaging.read(path).pixels.tobytes() for path in found}
        assert pixels == {imaging.read(content).pixels.tobytes() for content in contents}
        assert house.count("received") == 4
        assert house.count("received_bytes") == sum(path.stat().st_size for path in found)


# What DCMTK's SCUs offer beside the plain ones; HTJ2K they do not know yet.
OFFERED = {
    "-xe": ExplicitVRLittleEndian, "-xb": "1.2.840.10008.1.2.2", "-xi": ImplicitVRLittleEndian,
    "-xd": "1.2.840.10008.1.2.1.99", "-xy": "1.2.840.10008.1.2.4.50", "-xx": "1.2.840.10008.1.2.4.51",
    "-xs": "1.2.840.10008.1.2.4.70", "-xt": "1.2.840.10008.1.2.4.80", "-xu": "1.2.840.10008.1.2.4.81",
    "-xv": "1.2.840.10008.1.2.4.90", "-xw": "1.2.840.10008.1.2.4.91", "-xr": "1.2.840.10008.1.2.5",
}  # fmt: skip


@pytest.mark.parametrize(("option", "syntax"), OFFERED.items(), ids=OFFERED)
def test_storescu_with_every_transfer_syntax_that_it_knows(tmp_path, option, syntax):
    needs("storescu")
    content = sample(next(known for known in SYNTAXES if known == syntax))
    (tmp_path / "one.dcm").write_bytes(content)
    with receiving(tmp_path / "inbox") as house:
        done = dcmtk("storescu", house.port, option, tmp_path / "one.dcm")
        assert done.returncode == 0, done.stderr
        [path] = house.received()
    sent, found = dcmread(io.BytesIO(content)), dcmread(path)
    assert found.file_meta.TransferSyntaxUID == syntax
    assert (imaging.read(path).pixels == imaging.read(content).pixels).all()
    assert [e for e in found if e.keyword != "PixelData"] == [e for e in sent if e.keyword != "PixelData"]


def test_every_storage_class_is_taken_and_others_are_not(tmp_path):
    contexts = [(storage, [ExplicitVRLittleEndian]) for storage in (*STORAGE_CLASSES, CTImageStorage)]
    contexts += [(DX, [MPEG2MPML])]
    with receiving(tmp_path / "inbox") as house, association(house.port, *contexts) as assoc:
        assert [c.abstract_syntax for c in assoc.accepted_contexts] == list(STORAGE_CLASSES)
        assert [c.abstract_syntax for c in assoc.rejected_contexts] == [CTImageStorage, DX]
        for storage in STORAGE_CLASSES:
            assert send(assoc, tmp_path, of_class(storage)) == 0x0000
        found = [dcmread(path).file_meta.MediaStorageSOPClassUID for path in house.received()]
        assert sorted(found) == sorted(STORAGE_CLASSES)


def test_many_associations_at_once(tmp_path):
    statuses = []

    def sender(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        with association(house.port, calling=f"CR{number}") as assoc:
            statuses.extend(send(assoc, folder, dicom(PIXELS + n, seed=100 * number + n)) for n in range(10))

    with receiving(tmp_path / "inbox") as house:
        threads = [threading.Thread(target=sender, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0x0000] * 40
        assert len(house.received()) == 40
        assert house.unfinished() == []


def test_a_peer_is_known_by_title_and_address(tmp_path, caplog):
    from ipaddress import ip_network

    peers = [Peer("CR1", ip_network("127.0.0.1")), Peer("CR2", ip_network("127.0.0.2"))]
    with receiving(tmp_path / "inbox", peers=peers) as house:
        content = dicom(PIXELS)
        assert send_one(house.port, tmp_path, content, calling="CR1") == 0x0000
        assert send_one(house.port, tmp_path, content, calling="CR2", source="127.0.0.2") == 0x0000
        for calling, source in [("OTHER", None), ("CR2", None), ("CR1", "127.0.0.2")]:
            with association(house.port, calling=calling, source=source) as assoc:
                assert assoc.is_rejected
                assert assoc.acceptor.primitive.diagnostic == 3
        with association(house.port, calling="CR1", source="127.0.0.3") as assoc:
            assert not assoc.is_established
        assert house.count("refused", reason="calling_ae_title") == 3
        assert house.count("refused", reason="address") == 1
    assert "association of OTHER rejected: OTHER at 127.0.0.1 is not among dicom.receive.peers" in caplog.text
    assert "127.0.0.3: connection refused: no peer has this address" in caplog.text


def test_who_calls_somebody_else_is_told_so(tmp_path):
    with receiving(tmp_path / "inbox") as house, association(house.port, called="THEM") as assoc:
        assert assoc.is_rejected
        assert assoc.acceptor.primitive.diagnostic == 7
        assert house.count("refused", reason="called_ae_title") == 1


def test_more_associations_than_are_allowed_are_put_off_until_one_ends(tmp_path):
    with receiving(tmp_path / "inbox", most=2) as house:
        with association(house.port) as one, association(house.port) as two:
            assert one.is_established
            assert two.is_established
            assert until(lambda: house.receiver.status.associations == 2)
            with association(house.port) as three:
                assert three.is_rejected
                assert three.acceptor.primitive.result == 2  # transient: try again later
        assert until(lambda: house.receiver.status.associations == 0)
        with association(house.port) as four:
            assert four.is_established
        assert house.count("refused", reason="associations") == 1


@ROOT
def test_a_full_disk_is_answered_with_out_of_resources_and_forgotten_when_there_is_room(tmp_path):
    with small_disk(tmp_path / "inbox") as disk, receiving(disk) as house:
        content = dicom(PIXELS)
        with association(house.port) as assoc:
            ballast = fill(disk)
            assert send(assoc, tmp_path, content) == 0xA700
            assert house.received() == house.unfinished() == []
            ballast.unlink()
            assert send(assoc, tmp_path, content) == 0x0000
            big = dicom(np.zeros((1000, 1000), np.uint16))
            assert send(assoc, tmp_path, big) == 0xA700  # full while it comes
            assert send(assoc, tmp_path, dicom(PIXELS + 1, seed=2)) == 0x0000
        assert len(house.received()) == 2
        assert house.unfinished() == []
        assert house.count("refused", reason="no_room") == 2


def test_with_too_little_room_it_says_so_before_anybody_sends(tmp_path):
    with receiving(tmp_path / "inbox", min_free=1 << 60) as house:
        assert "filing.min_free_mb" in house.receiver.status.refusing
        assert send_one(house.port, tmp_path, dicom(PIXELS)) == 0xA700


def test_too_large_an_object_is_refused_and_the_next_one_is_taken(tmp_path):
    with receiving(tmp_path / "inbox", most_bytes=10_000) as house, association(house.port) as assoc:
        assert send(assoc, tmp_path, dicom(np.zeros((80, 80), np.uint16))) == 0xC001
        assert send(assoc, tmp_path, dicom(PIXELS)) == 0x0000
        assert house.count("refused", reason="too_large") == 1
        assert len(house.received()) == 1


def test_what_cannot_be_written_for_another_reason_has_another_status(tmp_path):
    inbox = tmp_path / "inbox"
    with receiving(inbox, folder=lambda sender: inbox / "x.txt" / sender) as house:
        (inbox / "x.txt").write_text("no folder")
        assert send_one(house.port, tmp_path, dicom(PIXELS)) == 0xC002
        assert house.unfinished() == []


def test_an_association_in_which_nothing_happens_ends(tmp_path):
    with receiving(tmp_path / "inbox", idle=1.0) as house, association(house.port) as assoc:
        assert assoc.is_established
        assert until(lambda: assoc.is_aborted, 10)
        assert until(lambda: house.receiver.status.associations == 0)


def test_where_identifiers_are_not_kept_the_log_names_no_object(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    uid = dcmread(io.BytesIO(dicom(PIXELS))).SOPInstanceUID
    for quoting in (True, False):
        caplog.clear()
        with receiving(tmp_path / "inbox", most_bytes=10_000, quoting=quoting) as house:
            assert send_one(house.port, tmp_path, dicom(PIXELS)) == 0x0000
            assert send_one(house.port, tmp_path, dicom(np.zeros((80, 80), np.uint16))) == 0xC001
        assert (uid in caplog.text) is quoting
        assert "received" in caplog.text


def test_the_log_tells_who_sent_what(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with receiving(tmp_path / "inbox") as house:
        send_one(house.port, tmp_path, dicom(PIXELS), calling="CR1")
        [path] = house.received()
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"CR1 at 127.0.0.1: received {path.name.rpartition('-')[0]}, " in caplog.text
    assert f"sha256 {digest}" in caplog.text
    assert "CR1 at 127.0.0.1: association ended: 1 objects" in caplog.text
    assert len(list(Reason)) == 10
