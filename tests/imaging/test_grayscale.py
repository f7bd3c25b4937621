import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fracture_watch.imaging.grayscale import Chain, Lut, StoredValues, Window, render

UNSIGNED_12 = StoredValues(12, 11, signed=False, encapsulated=False)
UNSIGNED_8 = StoredValues(8, 7, signed=False, encapsulated=False)

# --- The standard, read literally, one value at a time. Nothing below is shared with the code under test.


def reference_stored_value(word, bits, high, signed):
    """PS3.5 8.1.1: BitsStored bits whose most significant one is HighBit; two's complement where signed."""
    picked = [(word >> (high - bits + 1 + place)) & 1 for place in range(bits)]
    value = sum(bit << place for place, bit in enumerate(picked))
    return value - (1 << bits) if signed and picked[-1] else value


def reference_lut(value, first, entries):
    """PS3.3 C.11.1.1.1 and C.11.2.1.1: the first entry below, the last entry above."""
    if value <= first:
        return entries[0]
    if value >= first + len(entries) - 1:
        return entries[-1]
    return entries[int(value - first)]


def reference_window(x, center, width, function):
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 with y from 0 to 255; exact but for SIGMOID."""
    x, c, w = Fraction(x), Fraction(center), Fraction(width)
    half = Fraction(1, 2)
    if function == "SIGMOID":
        return 255 / (1 + math.exp(min(700, float(-4 * (x - c) / w))))
    if function == "LINEAR_EXACT":
        if x <= c - w / 2:
            return 0
        return 255 if x > c + w / 2 else ((x - c) / w + half) * 255
    if x <= c - half - (w - 1) / 2:
        return 0
    if x > c - half + (w - 1) / 2:
        return 255
    return ((x - (c - half)) / (w - 1) + half) * 255


def reference_display(words, case):
    """Every word -> its grey level before rounding."""
    bits, signed = case["bits"], case["signed"]
    stored = [reference_stored_value(int(word), bits, case["high"], signed) for word in words]
    if case["modality_lut"]:
        modality = [reference_lut(value, *case["modality_lut"]) for value in stored]
    else:
        modality = [Fraction(value) * Fraction(case["slope"]) + Fraction(case["intercept"]) for value in stored]
    if case["voi_lut"]:
        first, entries, lut_bits = case["voi_lut"]
        greys = [Fraction(reference_lut(value, first, entries) * 255, 2**lut_bits - 1) for value in modality]
    elif case["window"]:
        greys = [reference_window(value, *case["window"]) for value in modality]
    else:
        low, high = reference_range(stored, modality, case)
        spread = [(value - low) * 255 / Fraction(high - low) if high > low else 0 for value in modality]
        greys = [min(max(grey, 0), 255) for grey in spread]  # padding may lie outside
    return [255 - grey for grey in greys] if case["inverse"] else greys


def reference_range(stored, modality, case):
    """Not in the standard: 8-bit data show their full range, others what there is outside the padding."""
    bits = case["bits"]
    if bits <= 8:
        least = -(2 ** (bits - 1)) if case["signed"] else 0
        slope, intercept = Fraction(case["slope"]), Fraction(case["intercept"])
        mapped = [
            reference_lut(value, *case["modality_lut"]) if case["modality_lut"] else value * slope + intercept
            for value in range(least, least + 2**bits)
        ]
        return min(mapped), max(mapped)
    kept = modality
    if case["padding"]:
        low, high = case["padding"]  # PS3.3 C.7.5.1.1.2: both ends are padding
        kept = [m for s, m in zip(stored, modality, strict=True) if not low <= s <= high] or modality
    return min(kept), max(kept)


def as_code(case):
    """The same case in the types of the code under test."""
    modality = case["modality_lut"] and Lut(case["modality_lut"][0], np.array(case["modality_lut"][1], np.uint16), 16)
    voi = case["window"] and Window(*case["window"])
    if case["voi_lut"]:
        first, entries, bits = case["voi_lut"]
        voi = Lut(first, np.array(entries, np.uint16), bits)
    chain = Chain(case["slope"], case["intercept"], modality or None, voi or None, case["inverse"], case["padding"])
    return StoredValues(case["bits"], case["high"], case["signed"], encapsulated=False), chain


@st.composite
def luts(draw, signed_first=True):
    bits = draw(st.integers(8, 16))
    entries = draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=40))
    return draw(st.integers(-3000 if signed_first else 0, 5000)), entries, bits


WINDOWS = st.one_of(
    st.tuples(st.floats(-5000, 70000, width=32), st.integers(1, 70000), st.just("LINEAR")),
    st.tuples(st.floats(-5000, 70000, width=32), st.just(1), st.just("LINEAR")),
    st.tuples(st.integers(-3000, 5000), st.integers(1, 9), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"])),
    st.tuples(st.integers(-3000, 70000), st.floats(0.25, 9000, width=16), st.sampled_from(["LINEAR_EXACT", "SIGMOID"])),
)


@st.composite
def cases(draw):
    bits = draw(st.integers(8, 16))
    modality = draw(st.one_of(st.none(), luts()))
    kind = draw(st.sampled_from(["none", "window", "lut"]))
    slope = draw(st.sampled_from([1.0, 1.0, -1.0, 0.5, -0.25, 2.0, 4.75, 0.0625]))
    if kind == "lut" and modality is None:
        slope = math.copysign(max(1.0, slope // 1), slope)  # a table is indexed by integers
    padding = draw(st.one_of(st.none(), st.tuples(st.integers(-2000, 4096), st.integers(0, 300))))
    return {
        "bits": bits,
        "high": draw(st.integers(bits - 1, 15)),
        "signed": draw(st.booleans()),
        "slope": slope,
        "intercept": float(draw(st.integers(-2048, 2048))),
        "modality_lut": modality and modality[:2],
        "window": draw(WINDOWS) if kind == "window" else None,
        "voi_lut": draw(luts()) if kind == "lut" else None,
        "inverse": draw(st.booleans()),
        "padding": padding and (padding[0], padding[0] + padding[1]),
    }


@settings(max_examples=250, deadline=None)
@given(cases(), st.lists(st.integers(0, 65535), min_size=6, max_size=40))
def test_every_grey_level_is_the_one_of_the_standard(case, words):
    expected = reference_display(words, case)
    shown = render(np.array([words], np.uint16), *as_code(case))[0]
    # Half a grey level is the rounding to 8 bit, which the standard leaves open.
    worst = max(abs(float(e) - int(s)) for e, s in zip(expected, shown, strict=True))
    assert worst <= 0.5 + 1e-6


# --- What can be said in numbers


def shown(values, chain, stored=UNSIGNED_12):
    return render(np.array([values], np.uint16 if stored.bits_stored > 8 else np.uint8), stored, chain)[0].tolist()


def test_linear_is_black_up_to_its_lower_breakpoint_and_white_above_its_upper_one():
    # c - 0.5 - (w-1)/2 = 1000 and c - 0.5 + (w-1)/2 = 1510
    chain = Chain(voi=Window(1255.5, 511))
    assert shown([999, 1000, 1002, 1255, 1508, 1510, 1511], chain) == [0, 0, 1, 128, 254, 255, 255]


def test_a_width_of_one_is_a_threshold():
    assert shown([99, 100, 101], Chain(voi=Window(100.5, 1))) == [0, 0, 255]


def test_linear_exact_reaches_its_ends_half_a_width_from_its_center():
    chain = Chain(voi=Window(1000, 510, "LINEAR_EXACT"))
    assert shown([745, 747, 1000, 1253, 1255], chain) == [0, 1, 128, 254, 255]


def test_sigmoid_has_its_middle_at_its_center():
    # 255 / (1 + exp(-4 (x - c) / w)) at c - w, c, c + w: 4.586, 127.5, 250.414
    assert shown([500, 1000, 1500], Chain(voi=Window(1000, 500, "SIGMOID"))) == [5, 128, 250]


@pytest.mark.parametrize(
    ("window", "valid"),
    [
        (Window(40, 0.5), False),
        (Window(40, 1), True),
        (Window(40, 0, "LINEAR_EXACT"), False),
        (Window(40, 0.5, "LINEAR_EXACT"), True),
        (Window(40, -5, "SIGMOID"), False),
        (Window(math.nan, 100), False),
        (Window(40, math.inf), False),
    ],
)
def test_windows_are_valid_as_the_standard_allows_them(window, valid):
    assert window.valid is valid


def test_inverse_turns_black_into_white():
    window = Window(127.5 + 0.5, 256)
    assert shown([0, 55, 255], Chain(voi=window, inverse=True), UNSIGNED_8) == [255, 200, 0]


def test_without_voi_the_greys_span_what_there_is():
    assert shown([100, 151, 355], Chain()) == [0, 51, 255]


def test_padding_values_do_not_widen_the_span():
    assert shown([0, 4, 100, 151, 355], Chain(padding=(0, 4))) == [0, 0, 0, 51, 255]


def test_a_picture_that_is_all_padding_is_shown_by_its_padding():
    assert shown([7, 9], Chain(padding=(0, 100))) == [0, 255]


def test_a_picture_of_one_value_is_black():
    assert shown([1234, 1234], Chain()) == [0, 0]


def test_8_bit_data_use_the_full_range():
    assert shown([100, 150, 200], Chain(), UNSIGNED_8) == [100, 150, 200]


def test_8_bit_data_in_16_bit_words_use_the_full_range():
    assert shown([100, 200], Chain(), StoredValues(8, 7, signed=False, encapsulated=False)) == [100, 200]


def test_signed_8_bit_data_use_the_full_range():
    signed = StoredValues(8, 7, signed=True, encapsulated=False)
    assert shown([0x80, 0x00, 0x7F], Chain(), signed) == [0, 128, 255]


def test_a_negative_slope_inverts_once():
    assert shown([0, 51, 255], Chain(slope=-1.0)) == [255, 204, 0]


def test_overlay_bits_above_bits_stored_are_masked_in_native_data():
    words = np.array([[0xF000, 0x1800, 0x0FFF]], np.uint16)
    assert render(words, UNSIGNED_12, Chain(voi=Window(2048, 4096))).tolist() == [[0, 128, 255]]


def test_overshoot_of_encapsulated_data_is_clipped():
    words = np.array([[0, 2048, 4095, 4100, 65535]], np.uint16)
    encapsulated = StoredValues(12, 11, signed=False, encapsulated=True)
    assert render(words, encapsulated, Chain()).tolist() == [[0, 128, 255, 255, 255]]


def test_signed_encapsulated_values_are_sign_extended_from_bits_stored():
    words = np.array([[0x0800, 0x0000, 0x07FF, 0xF800]], np.uint16)
    encapsulated = StoredValues(12, 11, signed=True, encapsulated=True)
    assert render(words, encapsulated, Chain(voi=Window(0, 4096))).tolist() == [[0, 128, 255, 0]]


def test_values_between_the_ends_of_a_lut_come_from_it():
    lut = Lut(10, np.array([0, 1000, 4095], np.uint16), 12)
    assert shown([0, 10, 11, 12, 4000], Chain(voi=lut)) == [0, 0, 62, 255, 255]


def test_wide_integers_and_floats_go_the_same_way():
    frame = np.array([[0.0, 51.0, 255.0]], np.float32)
    assert render(frame, StoredValues(32, 31, signed=False, encapsulated=False), Chain()).tolist() == [[0, 51, 255]]


def test_what_is_not_finite_in_floats_takes_the_nearest_end():
    frame = np.array([[math.nan, -math.inf, 0.0, 255.0, math.inf]], np.float32)
    stored = StoredValues(32, 31, signed=False, encapsulated=False)
    assert render(frame, stored, Chain()).tolist() == [[0, 0, 0, 255, 255]]
