import io

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fracture_watch.imaging.grayscale import Window
from fracture_watch.imaging.header import facts, integer, items, lut, number, numbers, of_frame, text, windows
from fracture_watch.records import Facts
from tests.dicoms import derived_uid, dicom

PIXELS = np.zeros((4, 6), np.uint16)


def header(*, syntax=ExplicitVRLittleEndian, **elements) -> Dataset:
    return dcmread(io.BytesIO(dicom(PIXELS, syntax=syntax, **elements)))


def with_raw(tag: int, vr: str, value: bytes) -> Dataset:
    """An element as it stands in a broken file: pydicom looks at it when it is asked for."""
    broken = Dataset()
    broken[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    return broken


def lut_item(descriptor, data, vr="OW", syntax=ExplicitVRLittleEndian) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = descriptor
    item[0x00283006] = DataElement(0x00283006, vr, data)
    return items(header(syntax=syntax, VOILUTSequence=[item]), "VOILUTSequence")[0]


def test_no_fact_is_longer_than_a_row_should_hold():
    told = header(Manufacturer="M" * 10_000, PatientID="P" * 10_000)
    assert {len(facts(told).manufacturer), len(facts(told).patient_id)} == {256}


def test_every_fact_comes_from_its_element():
    given = header(ImageLaterality="L", ViewPosition="PA", PixelSpacing=[0.15, 0.2])
    assert facts(given) == Facts(
        patient_id="P1",
        study_uid=derived_uid("study", 1),
        series_uid=derived_uid("series", 1),
        sop_instance_uid=derived_uid("instance", 1),
        accession_number="A1",
        modality="DX",
        body_part="HAND",
        laterality="L",
        view_position="PA",
        study_date="2024-02-29",
        rows=4,
        columns=6,
        spacing=(0.15, 0.2),
    )


def test_an_empty_header_has_no_facts():
    assert facts(Dataset()) == Facts()


def test_laterality_stands_in_for_image_laterality():
    assert facts(header(Laterality="R")).laterality == "R"


def test_imager_pixel_spacing_stands_in_for_pixel_spacing():
    assert facts(header(ImagerPixelSpacing=[0.1, 0.1])).spacing == (0.1, 0.1)


@pytest.mark.parametrize("spacing", [[0.0, 0.0], [-1.0, 1.0], [0.1]])
def test_impossible_spacing_is_absent(spacing):
    assert facts(header(PixelSpacing=spacing)).spacing is None


@pytest.mark.parametrize(
    ("written", "read"),
    [(b"20240229", "2024-02-29"), (b"2024.02.29", "2024-02-29"), (b"20230229", None), (b"n/a ", None)],
)
def test_study_dates_are_iso_or_absent(written, read):
    assert facts(with_raw(0x00080020, "DA", written)).study_date == read


def test_text_skips_empty_elements_and_padding():
    given = header(PatientID=" \0", AccessionNumber="7 ")
    assert text(given, "PatientID", "AccessionNumber") == "7"


def test_text_of_several_values_is_joined_as_in_the_file():
    assert text(header(ImageType=["DERIVED", "PRIMARY"]), "ImageType") == "DERIVED\\PRIMARY"


def test_a_number_that_is_none_is_absent():
    assert number(with_raw(0x00281053, "DS", b"abc "), "RescaleSlope") is None


def test_an_integer_of_impossible_length_is_absent():
    assert integer(with_raw(0x00280010, "US", b"\x01"), "Rows") is None


def test_numbers_of_an_absent_element_are_none_at_all():
    assert numbers(Dataset(), "WindowCenter") == []


def test_items_of_what_is_no_sequence_are_none_at_all():
    assert items(header(), "Modality") == []


def test_windows_come_in_pairs_with_their_function():
    given = header(WindowCenter=[40, 300], WindowWidth=[80, 1500], VOILUTFunction="SIGMOID")
    assert windows(given) == [Window(40, 80, "SIGMOID"), Window(300, 1500, "SIGMOID")]


def test_an_unknown_voi_function_is_linear():
    assert windows(header(WindowCenter=40, WindowWidth=80, VOILUTFunction="CUBIC")) == [Window(40, 80, "LINEAR")]


def test_a_center_without_width_is_no_window():
    assert windows(header(WindowCenter=40)) == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_lut_of_words_is_read_in_every_byte_order(syntax):
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    table = lut(lut_item([3, 5, 12], np.array([0, 258, 4095], f"{order}u2").tobytes(), syntax=syntax), False)
    assert (table.first, table.bits, table.entries.tolist()) == (5, 12, [0, 258, 4095])


def test_a_lut_with_one_byte_an_entry_is_read():
    assert lut(lut_item([4, 0, 8], bytes([0, 1, 200, 255])), False).entries.tolist() == [0, 1, 200, 255]


def test_a_lut_with_two_entries_packed_in_each_word_is_read():
    assert lut(lut_item([4, 0, 8], [0x0100, 0xFFC8], vr="US"), False).entries.tolist() == [0, 1, 200, 255]


def test_a_lut_of_65536_entries_says_zero():
    table = lut(lut_item([0, 0, 16], np.arange(65536, dtype="<u2").tobytes()), False)
    assert (len(table.entries), table.entries[-1]) == (65536, 65535)


@pytest.mark.parametrize(("signed", "first"), [(True, -1000), (False, 64536)])
def test_the_first_mapped_value_is_signed_where_the_input_is(signed, first):
    assert lut(lut_item([2, 64536, 16], bytes(4)), signed).first == first


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [([4, 0, 12], bytes(6)), ([4, 0, 12], b""), ([2, 0, 17], bytes(4)), ([2, 0, 7], bytes(4)), ([2, 0], bytes(4))],
    ids=["too few entries", "empty", "17 bits", "7 bits", "two values in the descriptor"],
)
def test_an_unusable_lut_is_none(descriptor, data):
    assert lut(lut_item(descriptor, data), False) is None


# --- Enhanced objects


def item(**elements) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def enhanced() -> Dataset:
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.2, 0.1])],
        FrameVOILUTSequence=[item(WindowCenter=10, WindowWidth=20)],
    )
    second = item(
        FrameVOILUTSequence=[item(WindowCenter=50, WindowWidth=60, VOILUTFunction="SIGMOID")],
        PixelValueTransformationSequence=[item(RescaleSlope=3, RescaleIntercept=-4)],
    )
    return header(SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=[item(), second])


def test_a_frame_without_a_group_of_its_own_takes_the_shared_one():
    first = of_frame(enhanced(), 0)
    assert (windows(first), number(first, "RescaleSlope")) == ([Window(10, 20)], None)
    assert numbers(first, "PixelSpacing") == [0.2, 0.1]


def test_a_frame_takes_its_own_group_before_the_shared_one():
    second = of_frame(enhanced(), 1)
    assert windows(second) == [Window(50, 60, "SIGMOID")]
    assert (number(second, "RescaleSlope"), number(second, "RescaleIntercept")) == (3, -4)


def test_the_header_itself_is_left_as_it_is():
    given = enhanced()
    of_frame(given, 1)
    assert "WindowCenter" not in given


def test_a_classic_header_is_the_same_for_every_frame():
    given = header(WindowCenter=1, WindowWidth=2)
    assert of_frame(given, 5) is given


# --- Broken values


def test_the_sound_ones_of_several_numbers_are_kept():
    broken = with_raw(0x00281050, "DS", b"abc\\40 ")
    assert numbers(broken, "WindowCenter")[1:] == [40.0]
    assert number(broken, "WindowCenter") is None


def test_a_text_window_is_invalid_and_the_next_one_is_not():
    broken = with_raw(0x00281050, "DS", b"soft\\40")
    broken.WindowWidth = [100, 200]
    assert [window.valid for window in windows(broken)] == [False, True]


@pytest.mark.parametrize(
    ("charset", "raw", "expected"),
    [
        (None, "Knöchel".encode("latin-1"), "Knöchel"),
        ("ISO_IR 192", "Knöchel 手".encode(), "Knöchel 手"),
        ("GB18030", "踝关节".encode("gb18030"), "踝关节"),
        ("ISO_IR 100", "Knöchel".encode("latin-1"), "Knöchel"),
        ("\\ISO 2022 IR 87", b"\x1b$B<j\x1b(B", "手"),
        ("ISO_IR 13", "ｱｼ".encode("shift_jis"), "ｱｼ"),
        ("ISO_IR 192", "Knöchel".encode("latin-1"), "Kn\ufffdchel"),
        ("no such set", b"Ankle", "Ankle"),
    ],
    ids=["undeclared Latin-1", "UTF-8", "GB18030", "Latin-1", "ISO 2022", "katakana", "wrongly declared", "unknown"],
)
def test_text_is_read_in_the_character_set_that_the_file_states(charset, raw, expected):
    marker = b"PLACEHOLDER-OF-THE-TEXT"[: len(raw) + len(raw) % 2].ljust(len(raw) + len(raw) % 2, b"-")
    elements = {"PatientID": marker.decode()} | ({"SpecificCharacterSet": charset} if charset else {})
    content = dicom(PIXELS, **elements).replace(marker, raw.ljust(len(marker)))
    assert facts(dcmread(io.BytesIO(content))).patient_id == expected


def test_coded_region_and_view_stand_in_for_plain_ones():
    given = header(
        BodyPartExamined=None,
        AnatomicRegionSequence=[item(CodeMeaning="Ankle joint")],
        ViewCodeSequence=[item(CodeMeaning="lateral")],
    )
    assert (facts(given).body_part, facts(given).view_position) == ("Ankle joint", "lateral")


def test_a_date_that_is_none_is_absent():
    assert facts(header(StudyDate="20241399")).study_date is None
