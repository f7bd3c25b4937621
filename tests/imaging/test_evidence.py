"""What a derived object repeats of its source, whatever the source is like."""

import numpy as np
import pytest
from pydicom import Dataset

from fracture_watch.errors import Corrupt, FractureWatchError
from fracture_watch.imaging.evidence import evidence
from fracture_watch.imaging.limits import Limits
from tests.dicoms import dicom
from tests.imaging.hostile import sound, with_text

PIXELS = np.zeros((8, 8), np.uint8)


def of(**elements):
    return evidence(dicom(PIXELS, **elements), Limits())


def test_it_is_the_same_patient_study_and_image():
    found = of(StudyID="S1", PatientSex="F", PatientBirthDate="19500229", StudyTime="120000", InstanceNumber=7)
    assert (found.PatientID, str(found.PatientName), found.AccessionNumber) == ("P1", "Test^Patient 1", "A1")
    assert (found.StudyID, found.PatientSex, found.StudyTime, found.InstanceNumber) == ("S1", "F", "120000", 7)
    assert found.StudyInstanceUID != found.SeriesInstanceUID != found.SOPInstanceUID


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 126", "Διονυσιος"),
        ("ISO_IR 144", "Люкceмбypг"),  # noqa: RUF001
        ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_are_decoded_by_the_files_own_character_set(charset, name):
    found = of(SpecificCharacterSet=charset, PatientName=name)
    assert (found.SpecificCharacterSet, str(found.PatientName)) == ("ISO_IR 192", name)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "1950.99.99"),
        ("StudyTime", "noon"),
        ("PatientSex", "FEMALE"),
        ("AccessionNumber", "A" * 17),
        ("StudyID", "a\\b"),
        ("PatientName", "x" * 65),
        ("StudyDescription", "one\ntwo"),
        ("StudyDescription", "one\x85two"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_value_that_its_element_cannot_have_is_left_out(keyword, value):
    assert not of(**{keyword: value}).get(keyword)


@pytest.mark.filterwarnings("ignore")
def test_a_patient_id_stays_as_it_is_however_long():
    assert of(PatientID="P" * 100).PatientID == "P" * 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", [None, "1.02.3", "no uid", "1." * 40])
def test_without_valid_uids_nothing_can_refer_to_it(keyword, value):
    with pytest.raises(Corrupt, match=f"no valid {keyword}"):
        of(**{keyword: value})


@pytest.mark.parametrize("number", [None, -5, 0, 2**31 - 1])
def test_an_instance_number_is_one_that_highdicom_takes(number):
    assert 1 <= of(InstanceNumber=number).InstanceNumber < 2**31


def test_anatomy_is_repeated_where_it_is_a_code():
    hand, half = Dataset(), Dataset()
    hand.CodeValue, hand.CodingSchemeDesignator, hand.CodeMeaning = "85562004", "SCT", "Hand"
    half.CodeValue = "1"
    assert [item.CodeMeaning for item in of(AnatomicRegionSequence=[hand, half]).AnatomicRegionSequence] == ["Hand"]


def test_other_files_are_refused_as_imaging_refuses_them():
    with pytest.raises(FractureWatchError):
        evidence(b"\x00" * 200, Limits())


def test_numbers_are_those_that_their_elements_can_hold():
    content = with_text(with_text(sound(), 0x28, 8, "DS", "1e300"), 0x20, 0x13, "DS", "1e300")
    found = evidence(with_text(content, 0x28, 0x10, "DS", "70000"), Limits())
    assert (found.NumberOfFrames, found.InstanceNumber, found.Rows) == (2**31 - 1, 2**31 - 1, None)
