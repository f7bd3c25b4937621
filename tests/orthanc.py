"""Orthanc, a small free PACS, on loopback ports: the real counterpart of what speaks DICOM and DICOMweb here."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.conftest import needs

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Peer:
    """A DICOM node that Orthanc knows, under a name of its own choosing."""

    aet: str
    port: int
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Orthanc:
    """A running one. ``http`` is the root of its REST interface; DICOMweb is at ``dicomweb``."""

    aet: str
    dicom_port: int
    http: str
    folder: Path

    @property
    def dicomweb(self) -> str:
        return f"{self.http}/dicom-web"

    def get(self, path: str) -> Any:
        """What the REST interface answers, from JSON."""
        return self._answer("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """JSON there and back; bytes are sent as they are, as to ``/instances``."""
        return self._answer("POST", path, body)

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-5000:]

    def _answer(self, method: str, path: str, body: Any = None) -> Any:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        answer = requests.request(method, self.http + path, data=data, timeout=60)
        assert answer.ok, (method, path, answer.status_code, answer.text, self.log())
        return answer.json()


@contextmanager
def orthanc(
    folder: Path,
    dicom_port: int = 0,
    http_port: int = 0,
    peers: Mapping[str, Peer] | None = None,
    aet: str = "ORTHANC",
    **settings: Any,
) -> Iterator[Orthanc]:
    """Start Orthanc with an empty store below ``folder``, wait until it answers, and end it.

    Ports of 0 are any free ones; ``peers`` are its DicomModalities; ``settings`` are more of its own keys.
    """
    needs("Orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = dicom_port or free_port(), http_port or free_port()
    values: dict[str, Any] = {
        "Name": "test",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "Plugins": [str(PLUGIN)] if PLUGIN.exists() else [],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": aet,
        "DicomPort": dicom_port,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {name: [peer.aet, peer.host, peer.port] for name, peer in (peers or {}).items()},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True, "WadoRoot": "/wado"},
        "StableAge": 1,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(values | settings), encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(path)], stdout=log, stderr=log)
    running = Orthanc(aet, dicom_port, f"http://127.0.0.1:{http_port}", folder)
    try:
        _wait_for(running, process)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(running: Orthanc, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(f"{running.http}/system", timeout=2).raise_for_status()
            socket.create_connection(("127.0.0.1", running.dicom_port), 2).close()
            return
        except (OSError, requests.RequestException):
            time.sleep(0.05)
    raise AssertionError(f"Orthanc did not start: {running.log()}")
