"""Pictures of filed files, with real workers."""

import hashlib
import io
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

import fracture_watch
from fracture_watch.imaging import read
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.workers import Plan, WorkerPool
from fracture_watch.model.preprocess import Small
from fracture_watch.records import Filed
from fracture_watch.viewing import Viewer
from tests.dicoms import dicom


@pytest.fixture(scope="module")
def viewer(weights):
    classifier = fracture_watch.load_classifier(weights, device="cpu")
    preprocessor = classifier.card.preprocessor
    # A file that is not for the model has its picture all the same.
    plan = Plan(Small(preprocessor), Limits(), Scope(modalities=frozenset({"DX"})))
    with closing(WorkerPool(plan, 2, 30, 1024)) as pool:
        yield Viewer(pool, classifier, preprocessor)


def filed(path, frame=0):
    return Filed(path, hashlib.sha256(path.read_bytes()).hexdigest(), frame)


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_image_is_the_frame_as_it_is_read(viewer, tmp_path):
    path = tmp_path / "ct.dcm"
    path.write_bytes(dicom((np.arange(2 * 60 * 40) % 4096).astype(np.uint16).reshape(2, 60, 40), Modality="CT"))
    assert (pixels(viewer.image(filed(path, 1), None)) == read(path, 1).pixels).all()
    assert pixels(viewer.image(filed(path, 1), 30)).shape == (30, 20)


def test_the_heat_map_is_a_colour_picture_of_the_same_size(viewer, tmp_path):
    path = tmp_path / "hand.dcm"
    path.write_bytes(dicom((np.arange(60 * 40) % 4096).astype(np.uint16).reshape(60, 40)))
    assert pixels(viewer.heatmap(filed(path), None)).shape == (60, 40, 3)


def test_another_file_at_its_place_is_not_shown(viewer, tmp_path):
    path = tmp_path / "hand.dcm"
    path.write_bytes(dicom((np.arange(60 * 40) % 4096).astype(np.uint16).reshape(60, 40)))
    other = Filed(path, "0" * 64)
    assert (viewer.image(other, None), viewer.heatmap(other, None)) == (None, None)
