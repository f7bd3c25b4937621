"""Findings and sources for objects, and the judges of what is built."""

import hashlib
import io
import subprocess
from pathlib import Path

import numpy as np
from pydicom import dcmread

from fracture_watch.delivery.finding import Finding
from fracture_watch.imaging.evidence import evidence
from fracture_watch.imaging.limits import Limits
from fracture_watch.records import Label, ModelFacts, Prediction
from tests.conftest import needs
from tests.dicoms import dicom

MODEL = ModelFacts("tiny", "1.2.3", "0123456789abcdef")
PIXELS = (np.add.outer(np.arange(120), np.arange(90)) * 8 % 4096).astype(np.uint16)
AT = "2026-01-31T08:15:30.123456Z"
# What dciodvfy says of every object: its edition of the standard is older than Device UID in this module, and of
# private coding schemes it knows none.
EXPECTED = (
    "Unrecognized defined term <99FWATCH> for value 1 of attribute <Coding Scheme Designator>",
    "Attribute is not present in standard DICOM IOD - (0x0018,0x1002) UI Device UID",
    "Dicom dataset contains attributes not present in standard DICOM IOD - this is a Standard Extended SOP Class",
)


def prediction(probability=0.8734512345678901, threshold=0.1469, frame=0, model=MODEL):
    label = Label.FRACTURED if probability >= threshold else Label.NOT_FRACTURED
    return Prediction(label, probability, threshold, model, frame)


def finding(content: bytes, *, at: str = AT, **what) -> Finding:
    return Finding(hashlib.sha256(content).hexdigest(), prediction(**what), at, "0.1.0")


def source(content: bytes | None = None, **elements):
    content = dicom(PIXELS, **elements) if content is None else content
    return content, evidence(content, Limits())


def read(content: bytes):
    return dcmread(io.BytesIO(content))


def verdict(content: bytes, folder: Path) -> tuple[list[str], list[str]]:
    """What dciodvfy finds: errors and warnings."""
    needs("dciodvfy")
    path = folder / "judged.dcm"
    path.write_bytes(content)
    said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr.splitlines()
    found = [line.strip() for line in said]
    return (
        [line for line in found if line.startswith("Error")],
        [line.removeprefix("Warning - ") for line in found if line.startswith("Warning")],
    )
