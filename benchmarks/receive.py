"""Receiving DICOM on loopback: `fracture-watch receive` beside DCMTK's `storescp` and Orthanc.

    python -m benchmarks.receive --files 100

The same objects (16-bit DX, uncompressed), the same sender (DCMTK's `storescu`, one association or several at once),
the same disk, one after the other, so many rounds; the best round of each counts. What success means differs: ours and
Orthanc (SyncStorageArea, its default) flush each object to disk before they answer, and Orthanc keeps an index of it;
`storescp` writes the file and leaves the flushing to the system.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import numpy as np
import yaml
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

AE_TITLE = "BENCH"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100, help="objects of each association")
    parser.add_argument("--pixels", type=int, default=1000, help="rows and columns of each")
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4], help="at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk that is measured; default: a temporary one")
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}; {asked.files} objects an association\n")
    print("| receiver | flushed before success | associations | objects/s | MB/s | of storescp's |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        for count in asked.associations:
            batches = [
                written(folder / f"{count}-{n}", asked.files, asked.pixels, 10 * count + n) for n in range(count)
            ]
            compare(folder, batches, asked.rounds)


def compare(folder: Path, batches: list[Path], rounds: int) -> None:
    """One line a receiver."""
    size = sum(path.stat().st_size for batch in batches for path in batch.iterdir())
    count = sum(1 for batch in batches for _ in batch.iterdir())
    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for name, start in RECEIVERS.items():
            target = folder / "target"
            with start(target) as port:
                seconds[name] = min(seconds.get(name, float("inf")), sent(port, batches))
            shutil.rmtree(target)
    for name, taken in seconds.items():
        flushed = "no" if name == "storescp" else "yes"
        rate, share = f"{count / taken:.0f} | {size / taken / 1e6:.0f}", seconds["storescp"] / taken
        print(f"| {name} | {flushed} | {len(batches)} | {rate} | {share:.2f} |", flush=True)


def written(folder: Path, count: int, side: int, seed: int) -> Path:
    """A folder of distinct objects."""
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 4096, (side, side), dtype=np.uint16)
    for number in range(count):
        dx, meta = Dataset(), FileMetaDataset()
        dx.SOPClassUID, dx.SOPInstanceUID = DigitalXRayImageStorageForPresentation, f"2.25.{seed + 1}{number:06}"
        dx.PatientID, dx.StudyInstanceUID, dx.SeriesInstanceUID = "BENCH", f"2.25.{seed + 1}", f"2.25.{seed + 1}.1"
        dx.Modality, dx.Rows, dx.Columns = "DX", side, side
        dx.SamplesPerPixel, dx.PhotometricInterpretation, dx.PixelRepresentation = 1, "MONOCHROME2", 0
        dx.BitsAllocated, dx.BitsStored, dx.HighBit, dx.PixelData = 16, 12, 11, pixels.tobytes()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dx.file_meta = meta
        dx.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def sent(port: int, batches: list[Path]) -> float:
    """Seconds until all senders have an answer for everything."""

    def send(batch: Path) -> None:
        subprocess.run(["storescu", "-aec", AE_TITLE, "127.0.0.1", str(port), "+sd", batch], check=True)

    with ThreadPoolExecutor(len(batches)) as pool:
        began = time.perf_counter()
        list(pool.map(send, batches))
        return time.perf_counter() - began


@contextmanager
def ours(target: Path) -> Iterator[int]:
    """`fracture-watch receive`."""
    port = free_port()
    target.mkdir()
    settings = {"dicom": {"receive": {"port": port, "ae_title": AE_TITLE}}, "filing": {"min_free_mb": 0}}
    (target / "config.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "fracture_watch", "receive", "--config", str(target / "config.yaml")]
    with running(command, port, target):
        yield port


@contextmanager
def storescp(target: Path) -> Iterator[int]:
    """DCMTK's, a process for each association, since otherwise it takes one at a time."""
    port = free_port()
    target.mkdir()
    with running(
        ["storescp", "--fork", "-aet", AE_TITLE, "-od", str(target), "-pdu", "131072", "+xa", str(port)], port, target
    ):
        yield port


@contextmanager
def orthanc(target: Path) -> Iterator[int]:
    """Orthanc with an empty store."""
    port = free_port()
    target.mkdir()
    settings = {
        "StorageDirectory": str(target / "store"), "IndexDirectory": str(target / "store"), "Plugins": [],
        "HttpServerEnabled": False, "DicomAet": AE_TITLE, "DicomPort": port, "SyncStorageArea": True,
    }  # fmt: skip
    (target / "orthanc.json").write_text(json.dumps(settings))
    with running(["Orthanc", str(target / "orthanc.json")], port, target):
        yield port


RECEIVERS: dict[str, Callable[[Path], AbstractContextManager[int]]] = {
    "storescp": storescp,
    "Orthanc": orthanc,
    "fracture-watch": ours,
}


@contextmanager
def running(command: list[str], port: int, target: Path) -> Iterator[None]:
    """A process that answers C-ECHO at ``port``."""
    with ExitStack() as stack:
        log = stack.enter_context((target / "log").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            echo = ["echoscu", "-q", "-aec", AE_TITLE, "127.0.0.1", str(port)]
            while subprocess.run(echo, check=False, capture_output=True).returncode:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not answer: {(target / 'log').read_text()}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
