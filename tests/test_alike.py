"""The same files give the same rows, however many workers, how large the batches, and in what order."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.intake.tree import Tree, scan
from fracture_watch.pipeline import batches
from fracture_watch.results.queries import COLUMNS, Filter, results
from fracture_watch.service import in_place
from tests.conftest import png, write_config
from tests.dicoms import dicom

# What may differ: which row it is, when, and which of several equal files came first.
APART = {"id", "received_at", "completed_at", "status", "duplicate_of", "source_path", "filed_path", "heatmap_path"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures of several kinds and sizes, films of several frames, copies, and what is none or is broken."""
    folder = tmp_path_factory.mktemp("files")
    ramp = (np.add.outer(np.arange(300), np.arange(200)) * 8 % 4096).astype(np.uint16)
    contents = [png(seed, 60 + seed, 90) for seed in range(12)]
    contents += [
        dicom(ramp, seed=seed, BitsStored=12, WindowCenter=1000 + 100 * seed, WindowWidth=900) for seed in (1, 2)
    ]
    contents += [dicom(np.stack([ramp, ramp[::-1], ramp // 2]), seed=3, BitsStored=12), contents[3], contents[12]]
    contents += [b"no picture", dicom(ramp, seed=4)[:-999], dicom(None, seed=5), png(3)[:-30]]
    for number, content in enumerate(contents):
        (folder / f"{number:02}").write_bytes(content)
    return folder


def rows(home: Path, files: Path, weights: Path, workers: int, batch_size: int, reverse: bool) -> list[dict]:
    home.mkdir()
    path = write_config(home, weights, imaging={"workers": workers}, model={"batch_size": batch_size})
    settings = load_settings(path, {})
    sources = sorted(scan(Tree(files)), key=lambda source: source.path.name, reverse=reverse)
    with assembly.runtime(settings) as running, closing(assembly.open_database(settings)) as database:
        service = assembly.service(settings, running, database)
        for _ in service.process(batches(sources, batch_size), in_place):
            pass
        found = list(results(database, Filter()))
    kept = [column for column in COLUMNS if column not in APART]
    # Beside the content's facts, by how often it was classified and how often recognised.
    return sorted(
        ({column: row[column] for column in kept} | {"kind": row["status"]} for row in found),
        key=lambda row: (str(row["sha256"]), row["kind"]),
    )


def test_rows_do_not_depend_on_workers_batches_or_order(tmp_path, folder, weights):
    expected = rows(tmp_path / "one", folder, weights, workers=1, batch_size=64, reverse=False)
    assert len(expected) == len(list(folder.iterdir()))
    probabilities = [pytest.approx(p, abs=1e-4) if (p := row.pop("probability")) else None for row in expected]
    assert {row["kind"] for row in expected} == {"classified", "duplicate", "failed", "rejected"}
    for number, (workers, batch_size, reverse) in enumerate([(2, 1, False), (2, 5, True), (1, 3, True)]):
        found = rows(tmp_path / f"{number}", folder, weights, workers, batch_size, reverse)
        assert [row.pop("probability") for row in found] == probabilities
        assert found == expected
