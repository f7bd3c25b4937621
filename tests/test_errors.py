import inspect
import pickle

import pytest

from fracture_watch import errors
from fracture_watch.records import Facts

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.FractureWatchError)]
WITH_CODE = [c for c in CLASSES if hasattr(c, "code")]


def test_every_class_is_drawn_in_the_tree():
    tree = errors.__doc__ or ""
    for kind in CLASSES:
        assert f" {kind.__name__} " in tree or kind is errors.FractureWatchError
        assert getattr(kind, "code", "") in tree


def test_codes_are_those_of_the_contract():
    codes = {
        c.code: "rejected" if issubclass(c, errors.FileRejected) else "failed"
        for c in WITH_CODE
        if issubclass(c, errors.FileRejected | errors.FileFailed)
    }
    assert codes == dict.fromkeys(
        ["not_an_image", "no_pixel_data", "out_of_scope", "not_for_presentation", "own_output"], "rejected"
    ) | dict.fromkeys(
        [
            "truncated",
            "corrupt",
            "too_large",
            "unsupported_transfer_syntax",
            "decoder_crashed",
            "out_of_memory",
            "timeout",
            "unreadable",
            "internal",
        ],
        "failed",
    )


def test_codes_are_unique():
    assert len({c.code for c in WITH_CODE}) == len(WITH_CODE)


@pytest.mark.parametrize("kind", WITH_CODE)
def test_errors_cross_process_boundaries_with_what_was_known(kind):
    error = kind("what to do")
    error.sha256, error.facts = "ab", Facts(patient_id="1")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.detail, copy.sha256, copy.facts) == (kind, "what to do", "ab", Facts(patient_id="1"))
