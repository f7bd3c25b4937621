"""Cases through the serving pipeline -> what the model says of each, and pictures of its worst mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fracture_watch.errors import Unreadable, WrongUse
from fracture_watch.model.heatmap import DataUrl, data_url, png
from fracture_watch.outcomes import Classified
from fracture_watch.pipeline import Pipeline, batches
from fracture_watch.records import Facts, Prediction, Prepared, SourceFile
from fracture_watch.times import now
from fracture_watch.training.bootstrap import Sample
from fracture_watch.training.cases import Case
from fracture_watch.training.data import Track


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of a case, and what is known of it from the CSV and, where that is silent, from DICOM."""

    case: Case
    prediction: Prediction
    group: str
    properties: Mapping[str, str]

    @property
    def error(self) -> float:
        """How far the probability is from the truth."""
        return abs(self.case.fractured - self.prediction.probability)

    @property
    def mistaken(self) -> bool:
        """Whether it is on the wrong side of the threshold."""
        return self.case.fractured != (self.prediction.probability >= self.prediction.threshold)


@dataclass(frozen=True, slots=True)
class NotEvaluated:
    """A case without an answer, and why."""

    name: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong answer with its picture, plain and with its heat map, as data URLs; without one that cannot be drawn."""

    answer: Answer
    picture: str | None
    heatmap: str | None


def assess(
    pipeline: Pipeline, cases: Sequence[Case], batch_size: int, track: Track
) -> tuple[list[Answer], list[NotEvaluated]]:
    """Classify every case as the watcher would; nothing is recorded.

    Raises
    ------
    WrongUse
        If what could be classified does not have both classes.
    """
    answers: list[Answer] = []
    without = [
        NotEvaluated(case.name, Unreadable.code, "no file in the folder has this SOP Instance UID")
        for case in cases
        if case.path is None
    ]
    for batch in track(list(batches([case for case in cases if case.path], batch_size)), "classifying"):
        for case, outcome in zip(batch, pipeline.run([_source(case) for case in batch]), strict=True):
            if isinstance(outcome, Classified):
                answers.append(_answer(case, outcome))
            else:
                without.append(NotEvaluated(case.name, getattr(outcome, "code", ""), getattr(outcome, "detail", "")))
    if {answer.case.fractured for answer in answers} != {True, False}:
        first = f"; the first reason: {without[0].name}: {without[0].detail}" if without else ""
        raise WrongUse(
            f"figures need images of both labels: of {len(cases)} labelled files {len(answers)} could be classified, "
            f"{sum(answer.case.fractured for answer in answers)} of them fractured{first}. Relative paths are looked "
            "for in --data, by default the folder of the CSV"
        )
    return answers, without


def sample_of(answers: Sequence[Answer]) -> Sample:
    """Truth, probability and group, one of each an answer."""
    return Sample(
        np.array([answer.case.fractured for answer in answers]),
        np.array([answer.prediction.probability for answer in answers]),
        np.array([answer.group for answer in answers]),
    )


def worst_mistakes(pipeline: Pipeline, answers: Sequence[Answer], each: int, illustrate: DataUrl) -> list[Mistake]:
    """The ``each`` worst missed fractures, then as many worst false alarms."""
    mistakes = []
    for fractured in (True, False):
        wrong = [a for a in answers if a.mistaken and a.case.fractured is fractured]
        for answer in sorted(wrong, key=lambda a: -a.error)[:each]:
            drawn: dict[str, str | None] = {}

            def draw(prepared: Prepared, prediction: Prediction, drawn: dict[str, str | None] = drawn) -> None:
                drawn["picture"] = data_url(png(prepared.previews[prediction.frame]))
                drawn["heatmap"] = illustrate(prepared, prediction)

            pipeline.run([_source(answer.case)], draw=draw)
            mistakes.append(Mistake(answer, drawn.get("picture"), drawn.get("heatmap")))
    return mistakes


def _answer(case: Case, outcome: Classified) -> Answer:
    facts = outcome.facts
    own = {
        "body_part": facts.body_part,
        "laterality": facts.laterality,
        "manufacturer": facts.manufacturer,
        "modality": facts.modality,
        "view": facts.view_position,
    }
    properties = {name: value for name, value in own.items() if value} | dict(case.properties)
    return Answer(case, outcome.prediction, case.group or _group(case, facts), properties)


def _group(case: Case, facts: Facts) -> str:
    """Without a group in the CSV: the patient, else the study, else each file is its own."""
    return f"patient {facts.patient_id}" if facts.patient_id else facts.study_uid or case.name


def _source(case: Case) -> SourceFile:
    return SourceFile(case.path or Path(case.name), 0, 0, 0, now())
