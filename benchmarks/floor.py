"""The floor under ``make bench``: the fastest known time of every step of one file, each measured alone, summed.

What one core does is divided by the cores; inference is measured with all cores at once, at its best batch size.
"""

import hashlib
import io
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import get_frame

from fracture_watch.allocator import keep_freed_memory
from fracture_watch.imaging import codecs
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.reader import open_image
from fracture_watch.imaging.streams import Frame
from fracture_watch.model import load_classifier
from fracture_watch.model.preprocess import Small

_BATCHES = 1, 4, 16  # files
_COMMIT = 16  # rows
_TABLE = np.arange(65536, dtype=np.uint32).astype(np.uint8)


def floor(path: Path, weights: Path, runtime: str, cores: int, repeats: int = 7) -> dict[str, float]:
    """Milliseconds of every step of one file, and their sum over the cores as ``floor``."""
    keep_freed_memory()  # as the daemon and its workers do
    content = path.read_bytes()
    pixels = open_image(content, Limits(), Scope()).pixels(0)
    model = load_classifier(weights, device="cpu", runtime="openvino" if runtime == "openvino" else "torch")
    tensor = model.card.preprocessor(pixels)
    steps: dict[str, Callable[[], Any]] = {
        "read": path.read_bytes,
        "hash": lambda: hashlib.sha256(content).digest(),
        "decode and table": _decoding(path, content, pixels),
        "resize": partial(Small(model.card.preprocessor), pixels),
    }
    found = {name: _fastest(step, repeats) for name, step in steps.items()}
    one_core = sum(found.values())
    stacks = [np.stack([tensor] * count) for count in _BATCHES]
    found["inference, all cores"] = min(_fastest(partial(model.view_logits, x), repeats) / len(x) for x in stacks)
    found["commit"] = _commit(repeats)
    return found | {"floor": one_core / cores + found["inference, all cores"] + found["commit"]}


def _decoding(path: Path, content: bytes, pixels: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """The codec alone and one pass through a table; of native pixels the pass is all there is."""
    if path.suffix != ".dcm":
        return lambda: np.asarray(Image.open(path).convert("L"))
    ds = pydicom.dcmread(io.BytesIO(content))
    syntax = ds.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        stored = np.frombuffer(ds.PixelData, np.uint16).reshape(pixels.shape)
        return lambda: _TABLE.take(stored)
    encoded = get_frame(ds.PixelData, 0, number_of_frames=1)
    frame = Frame(ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.BitsAllocated)
    return lambda: _TABLE.take(codecs.decode(encoded, syntax, frame))


def _commit(repeats: int) -> float:
    """A row's share of a group commit, on disk when it returns."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, closing(sqlite3.connect(f"{name}/x.db")) as database:
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE r (a, b, c, d)")

        def commit() -> None:
            with database:
                database.executemany(
                    "INSERT INTO r VALUES (?, ?, ?, ?)", [("f" * 80, "s" * 64, 0.5, "x" * 400)] * _COMMIT
                )

        return _fastest(commit, repeats) / _COMMIT


def _fastest(step: Callable[[], Any], repeats: int) -> float:
    step()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.quantiles(times, n=4)[0] * 1000  # the lower quartile: alone on the machine, but no lucky one
