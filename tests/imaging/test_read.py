import hashlib
import io
import os

import numpy as np
import pytest
from PIL import Image

from fracture_watch import errors
from fracture_watch.imaging import read
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.reader import load, open_image
from fracture_watch.records import Facts
from tests.dicoms import dicom

RAMP = np.arange(128, dtype=np.uint8).reshape(8, 16)
FRAMES = dicom(np.stack([RAMP, 255 - RAMP]))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def as_nobody(action) -> str:
    """What ``action`` returns where privileges do not help."""
    if os.getuid() != 0:
        return action()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os.write(writer, action().encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return answer.read()


def test_bytes_and_paths_give_the_same_radiograph(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(FRAMES)
    from_bytes, from_path = read(FRAMES), read(str(path))
    assert np.array_equal(from_bytes.pixels, from_path.pixels)
    assert (from_bytes.sha256, from_bytes.facts) == (from_path.sha256, from_path.facts)


def test_a_radiograph_says_what_it_was_read_from():
    radiograph = read(FRAMES, frame=1)
    assert np.array_equal(radiograph.pixels, 255 - RAMP)
    assert (radiograph.frame, radiograph.frames) == (1, 2)
    assert radiograph.sha256 == hashlib.sha256(FRAMES).hexdigest()
    assert radiograph.facts.patient_id == "P1"
    assert radiograph.notes == ("no window: shown from least to greatest value",)


def test_the_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(png(RAMP))
    assert np.array_equal(read(path).pixels, RAMP)


def test_a_picture_has_no_facts_but_its_size():
    assert read(png(RAMP)).facts == Facts(rows=8, columns=16)


@pytest.mark.parametrize("frame", [-1, 2])
def test_a_frame_that_is_not_there_is_wrong_use(frame):
    with pytest.raises(errors.WrongUse) as caught:
        read(FRAMES, frame=frame)
    assert caught.value.detail == f"there is no frame {frame}; the file has 2, counted from 0"


def test_an_empty_file_is_corrupt():
    with pytest.raises(errors.Corrupt) as caught:
        read(b"")
    assert caught.value.detail == "the file is empty"


def test_what_is_no_image_is_rejected():
    with pytest.raises(errors.NotAnImage) as caught:
        read(b"patient,result\n1,fractured\n")
    assert caught.value.detail == "the content is not DICOM, PNG, JPEG, TIFF, WebP or BMP"


def test_a_missing_file_is_unreadable_and_may_come_back(tmp_path):
    with pytest.raises(errors.Unreadable) as caught:
        read(tmp_path / "gone.dcm")
    assert caught.value.detail == "the file cannot be read: No such file or directory"
    assert caught.value.retry is errors.Retry.TRANSIENT


def test_a_file_that_may_not_be_read_is_unreadable():
    def refusal() -> str:
        try:
            load(secret, Limits())
        except errors.Unreadable as error:
            return error.detail
        return "it was read"

    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        secret = Path(folder) / "secret.png"
        secret.write_bytes(png(RAMP))
        secret.chmod(0)
        assert as_nobody(refusal) == "the file cannot be read: Permission denied"


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.dcm"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    with pytest.raises(errors.TooLarge) as caught:
        load(path, Limits(max_bytes=1000))
    assert caught.value.detail == (
        "1,099,511,627,776 bytes are more than inbox.max_file_mb allows (1,000 bytes); raise it if such files are "
        "expected"
    )


def test_the_scope_is_checked_when_a_file_is_opened():
    with pytest.raises(errors.OutOfScope):
        open_image(dicom(RAMP, Modality="CT"), Limits(), Scope(modalities=frozenset({"DX"})))
