"""Pictures of what was filed: drawn anew, kept, and not shown when the file is gone."""

import io
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import requests
from PIL import Image

from fracture_watch.imaging import read
from fracture_watch.web.pictures import Kept
from tests.conftest import png
from tests.dicoms import dicom
from tests.web.conftest import PIXELS


def get(live, number, kind="image", query="", **headers):
    return requests.get(f"{live.url}/api/files/{number}/{kind}.png{query}", headers=headers, timeout=60)


def pixels(answer):
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_the_image_is_what_a_viewer_shows(live):
    shown = pixels(get(live, 1))
    assert (shown == read(live.folder / "processed" / "hand.dcm").pixels).all()


@pytest.mark.parametrize(("size", "shape"), [("100", (100, 75)), ("10000", (200, 150))])
def test_a_picture_is_shrunk_and_never_enlarged(live, size, shape):
    assert pixels(get(live, 1, query=f"?size={size}")).shape == shape
    assert pixels(get(live, 1, "heatmap", f"?size={size}")).shape == (*shape, 3)


def test_the_heat_map_alone_is_transparent_where_nothing_speaks_for_a_fracture(live):
    layer = pixels(get(live, 1, "heatmap", "?layer=1&size=100"))
    assert layer.shape == (100, 75, 4)
    assert (layer[..., 3].min(), layer[..., 3].max()) == (0, 255)


@pytest.mark.parametrize("size", ["15", "10001", "big", "1e2", ""])
def test_an_impossible_size_is_refused(live, size):
    answer = get(live, 1, query=f"?size={size}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


def test_window_and_level_are_computed_from_the_stored_values(live):
    stored = PIXELS.astype(float)
    first, narrow = pixels(get(live, 1)), pixels(get(live, 1, query="?center=0.3&width=0.1"))
    inside = (narrow > 0) & (narrow < 255)
    assert len(np.unique(narrow[inside])) > len(np.unique(first[inside])) + 4
    assert (np.diff(narrow.ravel()[np.argsort(stored, axis=None)].astype(int)) >= 0).all()
    assert get(live, 1).headers["ETag"] != get(live, 1, query="?width=2").headers["ETag"]


@pytest.mark.parametrize(
    "query", ["width=0", "width=-1", "width=99", "center=-10", "center=nan", "width=inf", "center=x"]
)
def test_an_impossible_window_is_refused(live, query):
    answer = get(live, 1, query=f"?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert get(live, 1, "heatmap", f"?{query}").status_code == 400  # which has no window


def test_of_several_frames_it_is_the_one_with_the_highest_probability(live):
    frames = np.stack([np.full((40, 40), 10, np.uint8), np.random.default_rng(5).integers(0, 255, (40, 40), np.uint8)])
    number = live.drop("frames.dcm", dicom(frames, seed=50, WindowCenter=128, WindowWidth=256))
    [(frame,)] = live.process.rows(f"SELECT frame FROM results WHERE id = {number}")
    assert (pixels(get(live, number)) == read(live.folder / "processed" / "frames.dcm", frame).pixels).all()


def test_a_picture_that_the_client_has_is_not_sent_again(live):
    for kind in ("image", "heatmap"):
        first = get(live, 1, kind)
        assert first.headers["Cache-Control"] == "private, no-cache"
        same = get(live, 1, kind, **{"If-None-Match": first.headers["ETag"]})
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
        assert get(live, 1, kind, "?size=64").headers["ETag"] != first.headers["ETag"]
        assert get(live, 1, kind).content == first.content


def test_a_file_that_is_gone_or_another_is_not_shown(live):
    number = live.drop("gone.png", png(60))
    place = live.folder / "processed" / "gone.png"
    content = place.read_bytes()
    for query, change in (("", place.unlink), ("?size=32", lambda: place.write_bytes(png(61)))):
        change()
        for kind in ("image", "heatmap"):
            answer = get(live, number, kind, query)
            assert (answer.status_code, answer.json()["error"]["code"]) == (410, "file_gone")
            assert "put it back" in answer.json()["error"]["detail"]
    place.write_bytes(content)
    first = get(live, number)
    assert first.status_code == 200
    place.unlink()
    assert get(live, number).status_code == 410  # although it is kept in memory, and although the client has it:
    assert get(live, number, **{"If-None-Match": first.headers["ETag"]}).status_code == 410


def test_what_is_no_picture_says_why(live):
    for name, status, code in (("notes.txt", 415, "not_an_image"), ("half.dcm", 422, "truncated")):
        [(number,)] = live.process.rows(f"SELECT id FROM results WHERE source_path LIKE '%/{name}' AND code = '{code}'")
        answer = get(live, number)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert "no prediction" in get(live, number, "heatmap").json()["error"]["detail"]
    assert get(live, 9999).status_code == 404


def test_of_another_model_there_is_the_heat_map_that_it_drew(live):
    number = live.drop("old.dcm", dicom(PIXELS, seed=70))
    [(kept,)] = live.process.rows(f"SELECT heatmap_path FROM results WHERE id = {number}")
    change(live, "INSERT INTO model VALUES ('other', 'older', '0.1', '2020-01-01T00:00:00.000000Z')")
    change(live, f"UPDATE file SET model_id = 'other' WHERE id = {number}")
    assert (pixels(get(live, number, "heatmap")) == np.asarray(Image.open(kept))).all()
    change(live, f"UPDATE file SET heatmap_path = NULL WHERE id = {number}")
    answer = get(live, number, "heatmap")
    assert (answer.status_code, "--reclassify" in answer.json()["error"]["detail"]) == (404, True)


def change(live, statement):
    with closing(sqlite3.connect(live.folder / "fracture_watch.db", timeout=30)) as connection, connection:
        connection.execute(statement)


def test_pictures_are_kept_up_to_a_size():
    kept = Kept(10)
    for name in "abc":
        kept.put(name, b"1234")
    assert [kept.get(name) for name in "abc"] == [None, b"1234", b"1234"]
    kept.get("b")
    kept.put("d", b"1234")
    assert [kept.get(name) for name in "bcd"] == [b"1234", None, b"1234"]
    kept.put("e", b"12345678901")
    assert [kept.get(name) for name in "bde"] == [b"1234", b"1234", None]
