"""A user's CSV: what it may look like, and what is said where it is wrong."""

import numpy as np
import pytest
from pydicom import dcmread

from fracture_watch.errors import WrongUse
from fracture_watch.training.cases import read_cases
from tests.dicoms import dicom


def written(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return tmp_path / "labels.csv"


def test_paths_are_relative_to_the_folder_and_other_columns_are_kept(tmp_path):
    labels = written(tmp_path, "\ufefffile,label,group,hardware,note\na.png,Fractured,p1,1,\nb/c.png,1,,0,x\n")
    one, two = read_cases(labels, tmp_path / "data")
    assert (one.path, one.fractured, one.group, dict(one.properties)) == (
        tmp_path / "data" / "a.png",
        True,
        "p1",
        {"hardware": "1"},
    )
    assert (two.name, two.fractured, two.group, dict(two.properties)) == (
        "b/c.png",
        False,
        None,
        {"hardware": "0", "note": "x"},
    )


def test_files_are_found_by_their_uid_wherever_they_lie(tmp_path):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "one").write_bytes(dicom(np.zeros((8, 8), np.uint8), seed=1))
    (folder / "junk").write_text("no DICOM")
    uid = dcmread(folder / "one").SOPInstanceUID
    found, lost = read_cases(written(tmp_path, f"sop_instance_uid,label\n{uid},0\n1.2.3,not fractured\n"), tmp_path)
    assert (found.path, found.fractured) == (folder / "one", True)
    assert (lost.path, lost.fractured) == (None, False)


def test_some_lines_may_name_a_path_and_others_a_uid(tmp_path):
    (tmp_path / "one").write_bytes(dicom(np.zeros((8, 8), np.uint8), seed=1))
    uid = dcmread(tmp_path / "one").SOPInstanceUID
    text = f"path,sop_instance_uid,label\na.png,,0\n,{uid},1\n"
    named, found = read_cases(written(tmp_path, text), tmp_path)
    assert (named.path, named.fractured) == (tmp_path / "a.png", True)
    assert (found.path, found.fractured) == (tmp_path / "one", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("path,label\n", "has no rows"),
        ("name,label\na,0\n", "needs the column label, and one of path, image, file, sop_instance_uid"),
        ("path,truth\na,0\n", "needs the column label"),
        ("path,label\na,0\nb,broken\n", "line 3: needs a path, and a label that is fractured or not fractured"),
        ("path,label\n,0\n", "line 2: needs a path"),
        ("path,label\na,0\na,1\n", "line 3: a is named a second time"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path, text, said):
    with pytest.raises(WrongUse) as caught:
        read_cases(written(tmp_path, text), tmp_path)
    assert said in caught.value.detail


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(WrongUse, match="UTF-8 CSV"):
        read_cases(tmp_path / "labels.csv", tmp_path)
