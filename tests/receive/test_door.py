"""Who may send: by AE title, by address, and how many at once."""

import re
from ipaddress import ip_network

import pytest
import yaml
from pydicom.uid import UID

from fracture_watch.assembly import door
from fracture_watch.config import ReceiveSettings, Settings
from fracture_watch.imaging.codecs import SYNTAXES
from fracture_watch.receive.door import STORAGE_CLASSES, Door, Peer, Reason
from tests.conftest import REPOSITORY

PEERS = (
    Peer("PACS", ip_network("10.1.2.3")),
    Peer("CR", ip_network("10.1.4.0/24")),
    Peer("SIX", ip_network("fd00::/8")),
)
OPEN, CLOSED = Door("US", (), 2), Door("US", PEERS, 2)


@pytest.mark.parametrize(
    ("door", "address", "known"),
    [
        (OPEN, "127.0.0.1", True),
        (OPEN, "::1", True),
        (OPEN, "::ffff:127.0.0.1", True),
        (OPEN, "10.1.2.3", False),
        (CLOSED, "10.1.2.3", True),
        (CLOSED, "::ffff:10.1.2.3", True),
        (CLOSED, "10.1.4.77", True),
        (CLOSED, "fd00::1%eth0", True),
        (CLOSED, "10.1.2.4", False),
        (CLOSED, "127.0.0.1", False),
    ],
)
def test_without_peers_this_machine_is_known_and_with_peers_they_alone(door, address, known):
    assert door.knows(address) is known


@pytest.mark.parametrize(
    ("door", "called", "calling", "address", "count", "reason"),
    [
        (OPEN, "US", "ANY", "127.0.0.1", 0, None),
        (OPEN, "THEM", "ANY", "127.0.0.1", 0, Reason.CALLED),
        (OPEN, "us", "ANY", "127.0.0.1", 0, Reason.CALLED),
        (OPEN, "US", "ANY", "127.0.0.1", 1, None),
        (OPEN, "US", "ANY", "127.0.0.1", 2, Reason.ASSOCIATIONS),
        (CLOSED, "US", "PACS", "10.1.2.3", 0, None),
        (CLOSED, "US", "PACS", "10.1.4.5", 0, Reason.CALLING),
        (CLOSED, "US", "OTHER", "10.1.2.3", 0, Reason.CALLING),
        (CLOSED, "THEM", "OTHER", "10.1.2.3", 0, Reason.CALLING),
    ],
)
def test_an_association_is_refused_for_a_reason(door, called, calling, address, count, reason):
    found = door.refusal(called, calling, address, count)
    assert (found and found.reason) is reason


PAGE = (REPOSITORY / "docs" / "dicom.md").read_text(encoding="utf-8")


def test_the_page_names_what_is_taken_and_nothing_else():
    rows = re.findall(r"^\| ([^|]+?) \| (1\.2\.[\d.]+) \|", PAGE, re.MULTILINE)
    assert [uid for _, uid in rows] == ["1.2.840.10008.1.1", *STORAGE_CLASSES, *SYNTAXES]
    for name, uid in rows[1 : 1 + len(STORAGE_CLASSES)]:
        assert UID(uid).name == name


def test_the_page_names_every_reason_and_every_status():
    assert {reason for reason in Reason if f"`{reason}`" not in PAGE} == set()
    source = (REPOSITORY / "fracture_watch" / "receive" / "receiver.py").read_text(encoding="utf-8")
    statuses = set(re.findall(r"0x([0-9A-F]{4})\b", source))
    assert statuses == set(re.findall(r"^\| ([0-9A-F]{4}) \|", PAGE, re.MULTILINE))


def test_the_pages_settings_are_settings():
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    chosen = Settings.model_validate(yaml.safe_load(example)).dicom.receive
    assert set(yaml.safe_load(example)["dicom"]["receive"]) == set(ReceiveSettings.model_fields)
    built = door(chosen)
    assert built.refusal("FRACTURE_WATCH", "CR_ROOM_2", "10.1.4.9", 0) is None
    assert built.refusal("FRACTURE_WATCH", "PACS", "10.1.4.9", 0).reason is Reason.CALLING
