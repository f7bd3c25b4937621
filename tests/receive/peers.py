"""Those who send: pynetdicom as an SCU, and a receiver for them in this process."""

import io
import time
from contextlib import contextmanager

from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, _config, build_context

from fracture_watch.delivery.metrics import Metrics
from fracture_watch.imaging.codecs import SYNTAXES
from fracture_watch.receive.door import STORAGE_CLASSES, Door
from fracture_watch.receive.landing import Landing
from fracture_watch.receive.receiver import Patience, Receiver
from fracture_watch.receive.storing import file_meta
from tests.dicoms import DX

_config.STORE_SEND_CHUNKED_DATASET = True  # data sets go out as the bytes that they are
US = "FRACTURE_WATCH"


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


class House:
    """An inbox with a receiver in front of it."""

    def __init__(self, inbox, receiver, metrics):
        self.inbox, self.receiver, self.metrics = inbox, receiver, metrics

    @property
    def port(self):
        return self.receiver.port

    def received(self):
        """What is there under a name that the watcher would look at."""
        return sorted(path for path in self.inbox.rglob("*.dcm") if not path.name.startswith("."))

    def unfinished(self):
        return [path for path in self.inbox.rglob("*") if path.name.endswith(".part")]

    def count(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"fracture_watch_dicom_{name}_total", labels) or 0


@contextmanager
def receiving(inbox, *, most_bytes=1 << 30, min_free=0, peers=(), most=10, folder=None, quoting=True, **patience):
    inbox.mkdir(exist_ok=True)
    metrics, patience = Metrics(), {"idle": 30.0} | patience
    landing = Landing(inbox, most_bytes, min_free, folder or (lambda sender: inbox / "dicom" / sender))
    receiver = Receiver(
        ("127.0.0.1", 0),
        Door(US, tuple(peers), most),
        landing,
        SYNTAXES,
        Patience(**patience),
        metrics,
        quoting=quoting,
    )
    with receiver:
        yield House(inbox, receiver, metrics)


@contextmanager
def association(port, *contexts, called=US, calling="SCU", source=None):
    """An association for these (SOP class, transfer syntaxes); by default of everything that is taken."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    wanted = [build_context(storage, list(syntaxes)) for storage, syntaxes in contexts]
    wanted = wanted or [build_context(storage, syntax) for storage in STORAGE_CLASSES[:2] for syntax in SYNTAXES]
    address = {"bind_address": (source, 0)} if source else {}
    assoc = entity.associate("127.0.0.1", port, contexts=wanted, ae_title=called, **address)
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def send(assoc, folder, content):
    """The status with which a file's data set was answered; ``None`` if it was not."""
    path = folder / "outgoing.dcm"
    path.write_bytes(content)
    return assoc.send_c_store(path).get("Status")


def send_one(port, folder, content, **how):
    meta = dcmread(io.BytesIO(content), stop_before_pixels=True).file_meta
    context = UID(meta.MediaStorageSOPClassUID), [UID(meta.TransferSyntaxUID)]
    with association(port, context, **how) as assoc:
        return send(assoc, folder, content)


def data_set(content):
    """What stands behind the File Meta Information."""
    file = io.BytesIO(content)
    length = int.from_bytes(content[140:144], "little")
    assert content[132:140] == b"\x02\x00\x00\x00UL\x04\x00"
    file.seek(144 + length)
    return file.read()


class Archive:
    """A PACS that sends again what was not answered with success, as long as it takes."""

    def __init__(self, folder, contents):
        self.contents = list(contents)
        self.acknowledged = []  # numbers, in their order
        self._folder = folder

    def send(self, port, seconds=120):
        """Everything that was not acknowledged yet; whether that came to an end in time."""
        deadline = time.monotonic() + seconds
        while self.left() and time.monotonic() < deadline:
            with association(port, (DX, [ExplicitVRLittleEndian])) as assoc:
                if not assoc.is_established:
                    time.sleep(0.05)
                    continue
                for number in self.left():
                    if not assoc.is_established or send_safely(assoc, self._folder, self.contents[number]) != 0x0000:
                        break
                    self.acknowledged.append(number)
        return not self.left()

    def left(self):
        done = set(self.acknowledged)
        return [number for number in range(len(self.contents)) if number not in done]


def send_safely(assoc, folder, content):
    try:
        return send(assoc, folder, content)
    except (RuntimeError, ValueError):  # the association went while it was asked
        return None


def stored(content):
    """What a receiver makes of a file: its data set behind our File Meta Information."""
    meta = dcmread(io.BytesIO(content), stop_before_pixels=True).file_meta
    head = file_meta(meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    return head + data_set(content)
