import logging

import numpy as np
import pytest

from fracture_watch.errors import Corrupt, DatabaseUnavailable, InvalidModel, NotAnImage
from fracture_watch.outcomes import Classified, Duplicate, Failed, Rejected
from fracture_watch.pipeline import Pipeline
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, Prepared, Upload

MODEL = ModelFacts("m", "1", "x")


class Done:
    def __init__(self, answer):
        self.answer = answer

    def result(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class TableDecoder:
    """Answers by name."""

    def __init__(self, **answers):
        self.answers = answers

    def submit(self, source):
        return Done(self.answers[source.name])


class CountingClassifier:
    """Calls everything fractured; breaks on batches that hold a given digest."""

    def __init__(self, breaks_on=None, error=RuntimeError):
        self.seen = []
        self.breaks_on = breaks_on
        self.error = error

    def classify(self, prepared):
        if self.breaks_on in [p.sha256 for p in prepared]:
            raise self.error("broken")
        self.seen.append([p.sha256 for p in prepared])
        return [Prediction(Label.FRACTURED, 0.9, 0.5, MODEL) for _ in prepared]


def prepared(sha256: str) -> Prepared:
    picture = np.zeros((1, 8, 8), np.uint8)
    return Prepared(sha256, picture, (picture[0],), (picture[0].shape[:2],), Facts(patient_id=sha256), ("noted",))


def uploads(*names: str) -> list[Upload]:
    return [Upload(name, b"") for name in names]


def test_every_source_gets_its_outcome_in_order():
    broken = Corrupt("broken")
    broken.sha256, broken.facts = "cc", Facts(modality="DX")
    decoder = TableDecoder(a=prepared("aa"), b=NotAnImage("a text"), c=broken)
    outcomes = Pipeline(decoder, CountingClassifier()).run(uploads("c", "a", "b"))
    assert outcomes == [
        Failed("corrupt", "broken", "cc", Facts(modality="DX")),
        Classified("aa", Facts(patient_id="aa"), Prediction(Label.FRACTURED, 0.9, 0.5, MODEL), ("noted",)),
        Rejected("not_an_image", "a text"),
    ]


def test_a_batch_is_classified_at_once():
    classifier = CountingClassifier()
    Pipeline(TableDecoder(a=prepared("aa"), b=prepared("bb")), classifier).run(uploads("a", "b"))
    assert classifier.seen == [["aa", "bb"]]


def test_known_content_is_not_classified_again():
    classifier = CountingClassifier()
    decoder = TableDecoder(a=prepared("aa"), b=prepared("bb"))
    outcomes = Pipeline(decoder, classifier).run(uploads("a", "b"), known=lambda digests: {"aa"} & set(digests))
    assert outcomes[0] == Duplicate("aa", Facts(patient_id="aa"), ("noted",))
    assert classifier.seen == [["bb"]]


def test_copies_within_a_batch_are_classified_once():
    classifier = CountingClassifier()
    decoder = TableDecoder(a=prepared("aa"), b=prepared("aa"))
    outcomes = Pipeline(decoder, classifier).run(uploads("a", "b"), known=lambda digests: ())
    assert [type(o) for o in outcomes] == [Classified, Duplicate]
    assert classifier.seen == [["aa"]]


def test_asked_ad_hoc_every_copy_gets_its_prediction():
    decoder = TableDecoder(a=prepared("aa"), b=prepared("aa"))
    outcomes = Pipeline(decoder, CountingClassifier()).run(uploads("a", "b"))
    assert [type(o) for o in outcomes] == [Classified, Classified]


def test_a_defect_costs_its_own_file_only_and_is_logged(caplog):
    decoder = TableDecoder(a=prepared("aa"), b=prepared("bb"), c=prepared("cc"))
    with caplog.at_level(logging.ERROR):
        outcomes = Pipeline(decoder, CountingClassifier(breaks_on="bb")).run(uploads("a", "b", "c"))
    assert [type(o) for o in outcomes] == [Classified, Failed, Classified]
    assert (outcomes[1].code, "RuntimeError: broken" in outcomes[1].detail) == ("internal", True)
    assert "Traceback" in caplog.text


def test_what_is_no_files_fault_stops_the_batch():
    pipeline = Pipeline(TableDecoder(a=prepared("aa")), CountingClassifier("aa", DatabaseUnavailable))
    with pytest.raises(DatabaseUnavailable):
        pipeline.run(uploads("a"))


def test_an_output_that_is_no_number_costs_its_own_file():
    pipeline = Pipeline(TableDecoder(a=prepared("aa"), b=prepared("bb")), CountingClassifier("aa", InvalidModel))
    assert [o.status for o in pipeline.run(uploads("a", "b"))] == ["failed", "classified"]


def test_pictures_are_drawn_for_what_was_classified_only():
    decoder = TableDecoder(a=prepared("aa"), b=Corrupt("broken"))
    outcomes = Pipeline(decoder, CountingClassifier()).run(
        uploads("a", "b"), draw=lambda item, prediction: f"{item.sha256}-{prediction.label}.png"
    )
    assert outcomes[0].heatmap == "aa-fractured.png"
