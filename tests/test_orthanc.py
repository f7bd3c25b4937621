"""The Orthanc that other tests use is a whole PACS: it stores, and answers over DICOMweb."""

import subprocess

import numpy as np
import requests

from tests.conftest import needs
from tests.dicoms import dicom
from tests.orthanc import PLUGIN, orthanc


def test_it_stores_and_is_asked(tmp_path):
    needs("Orthanc", "echoscu")
    content = dicom(np.zeros((16, 16), np.uint16), PatientID="P1")
    with orthanc(tmp_path / "pacs", aet="PACS") as pacs:
        subprocess.run(["echoscu", "-aec", "PACS", "127.0.0.1", str(pacs.dicom_port)], check=True, timeout=30)
        stored = pacs.post("/instances", content)
        assert stored["Status"] == "Success"
        assert pacs.get("/instances") == [stored["ID"]]
        if PLUGIN.exists():
            [study] = requests.get(f"{pacs.dicomweb}/studies", timeout=30).json()
            assert study["00100020"]["Value"] == ["P1"]
