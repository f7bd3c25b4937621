"""A daemon with a few results, asked over real HTTP."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import png, write_config
from tests.dicoms import dicom
from tests.test_end_to_end import Process, names

PIXELS = (np.add.outer(np.arange(200), np.arange(150)) * 8 % 4096).astype(np.uint16)
PATIENT, STUDY = "PAT-4711", "1.2.826.0.1.3680043.8.498.1"


@dataclass(frozen=True)
class Live:
    """Where it answers, and its folder with ``inbox``, ``processed`` and ``quarantine``."""

    url: str
    process: Process

    @property
    def folder(self) -> Path:
        return self.process.folder

    def drop(self, name: str, content: bytes) -> int:
        """Put a file into the inbox, wait until it is filed, and return the id of its result."""
        (self.folder / "inbox" / name).write_bytes(content)
        question = f"SELECT id FROM results WHERE status <> 'stalled' AND source_path LIKE '%/inbox/{name}'"
        [(number,)] = self.process.until(lambda: self.process.rows(question))
        self.process.until(lambda: name not in names(self.folder / "inbox"))
        return number


@pytest.fixture(scope="session")
def live(tmp_path_factory, weights):
    """Two DICOM files of one study, a picture and its copy, a text, and half a file; all have their results."""
    folder = tmp_path_factory.mktemp("live")
    write_config(folder, weights, inbox={"give_up_seconds": 1.0}, web={"max_upload_mb": 1})
    process = Process(folder)
    try:
        process.ready()
        running = Live(process.page(), process)
        hand = {"PatientID": PATIENT, "StudyInstanceUID": STUDY}
        running.drop("hand.dcm", dicom(PIXELS, seed=1, **hand))
        (folder / "inbox" / "half.dcm").write_bytes(dicom(PIXELS + 2, seed=3)[:-1000])
        running.drop("hand-2.dcm", dicom(PIXELS + 1, seed=2, **hand))
        running.drop("picture.png", png(1))
        running.drop("copy.png", png(1))
        running.drop("notes.txt", b"no radiograph")
        process.until(lambda: process.rows("SELECT 1 FROM results WHERE code = 'truncated'"))
        yield running
    finally:
        process.kill()
