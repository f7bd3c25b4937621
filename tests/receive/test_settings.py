"""The section ``dicom.receive``, and what ``doctor`` says of it."""

import socket
import subprocess
import sys

import pytest
import yaml
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from fracture_watch import assembly
from fracture_watch.cli.partners import _receiver
from fracture_watch.config import load_settings
from fracture_watch.delivery.metrics import Metrics
from fracture_watch.errors import InvalidSettings
from tests.orthanc import free_port


def loaded(folder, receive, **sections):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"dicom": {"receive": receive}, **sections}), encoding="utf-8")
    return load_settings(path, {})


def test_it_is_off_by_default_and_on_with_defaults_where_it_is_empty(tmp_path):
    assert loaded(tmp_path, None).dicom.receive is None
    chosen = loaded(tmp_path, {}).dicom.receive
    assert (chosen.ae_title, chosen.host, chosen.port, chosen.peers) == ("FRACTURE_WATCH", "127.0.0.1", 11112, ())


@pytest.mark.parametrize(
    ("receive", "said"),
    [
        ({"host": "0.0.0.0"}, "dicom.receive: host 0.0.0.0 is reachable from other machines, so peers must list"),
        ({"ae_title": "SEVENTEEN_LETTERS"}, "dicom.receive.ae_title: must be an AE title"),
        ({"ae_title": "BACK\\SLASH"}, "must be an AE title"),
        ({"ae_title": "  "}, "must be an AE title"),
        ({"ae_title": "ÄE"}, "must be an AE title"),
        ({"port": 70000}, "dicom.receive.port: Input should be less than or equal to 65535"),
        ({"peers": [{"ae_title": "A", "address": "pacs.example"}]}, "peers.0.address: must be an IP address, or a"),
        ({"peers": [{"ae_title": "A"}]}, "peers.0.address: Field required"),
        ({"peers": [{"aet": "A", "address": "::1"}]}, "peers.0.aet: unknown key"),
        ({"max_associations": 0}, "max_associations: Input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_work_is_refused_by_key(tmp_path, receive, said):
    with pytest.raises(InvalidSettings) as caught:
        loaded(tmp_path, receive)
    assert said in caught.value.detail


@pytest.mark.parametrize("glob", ["*.dcm", "dicom", "2*", "1.2*"])
def test_an_ignored_name_that_objects_would_have_is_refused(tmp_path, glob):
    settings = loaded(tmp_path, {"port": 0}, inbox={"ignore": [glob]})
    with pytest.raises(InvalidSettings, match=r"inbox\.ignore"), assembly.receiving(settings, Metrics()):
        pass


@pytest.mark.parametrize("title", ["../../etc", ".hidden", "@eaDir", "A.part", "A.tmp", "A/B", "A B", "IGNORED"])
def test_a_hostile_title_names_a_folder_that_is_watched(tmp_path, title):
    settings = loaded(tmp_path, {"port": 0}, inbox={"ignore": ["IGN*"]})
    inbox = settings.inbox.path
    folder = assembly.receiving_folder(settings, title)
    assert folder.parent.parent == inbox / "dicom"
    assert assembly.tree(settings, inbox).counts(folder / "1.2.3-0123456789ab.dcm")


def test_without_folders_objects_lie_in_the_inbox_itself(tmp_path):
    settings = loaded(tmp_path, {"port": 0}, inbox={"recursive": False})
    assert assembly.receiving_folder(settings, "CR1") == settings.inbox.path


def doctor(settings):
    [found] = _receiver(settings)
    return found.ok, found.detail


def test_doctor_says_whether_it_could_listen_and_who_does(tmp_path):
    assert doctor(loaded(tmp_path, None)) == (True, "off: nothing is received by DICOM")
    settings = loaded(tmp_path, {"port": free_port(), "peers": [{"ae_title": "CR", "address": "10.0.0.0/8"}]})
    port = settings.dicom.receive.port
    assert doctor(settings) == (True, f"FRACTURE_WATCH on 127.0.0.1:{port} from CR at 10.0.0.0/8; the port is free")
    with assembly.receiving(settings, Metrics()):
        ok, detail = doctor(settings)
        assert ok
        assert "; received by process " in detail
        (tmp_path / "other").mkdir()
        ok, detail = doctor(loaded(tmp_path / "other", {"port": port}))
        assert not ok
        assert f"127.0.0.1:{port} cannot be used: Address already in use" in detail


def test_a_second_receiver_of_an_inbox_is_refused(tmp_path):
    settings = loaded(tmp_path, {"port": 0})
    with (
        assembly.receiving(settings, Metrics()),
        pytest.raises(InvalidSettings, match="its receiver"),
        assembly.receiving(settings, Metrics()),
    ):
        pass


def test_a_port_that_is_taken_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = loaded(tmp_path, {"port": taken.getsockname()[1]})
        with pytest.raises(InvalidSettings, match="Address already in use"), assembly.receiving(settings, Metrics()):
            pass


def test_without_the_section_nothing_is_received(tmp_path):
    with (
        pytest.raises(InvalidSettings, match=r"dicom\.receive is not set"),
        assembly.receiving(loaded(tmp_path, None), Metrics()),
    ):
        pass
    with assembly.received_if_wanted(loaded(tmp_path, None), Metrics()) as look:
        assert look() is None


def test_without_the_extra_it_says_what_to_install(tmp_path):
    loaded(tmp_path, {"port": 0})
    code = "import sys; sys.modules['pynetdicom'] = None; from fracture_watch.cli import main; main()"
    words = ["receive", "--config", str(tmp_path / "config.yaml")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the package pynetdicom is missing: pip install 'fracture-watch[pacs]'" in done.stderr


@pytest.mark.parametrize(("host", "address"), [("::1", "[::1]"), ("localhost", "127.0.0.1")])
def test_it_listens_on_either_loopback(tmp_path, host, address):
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    with assembly.receiving(loaded(tmp_path, {"host": host, "port": 0}), Metrics()) as receiver:
        assert receiver.status.address == f"{address}:{receiver.port}"
        entity = AE(ae_title="SCU")
        entity.add_requested_context(Verification)
        assoc = entity.associate(host, receiver.port, ae_title="FRACTURE_WATCH")
        assert assoc.send_c_echo().Status == 0x0000
        assoc.release()
