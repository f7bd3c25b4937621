"""An evaluation as JSON, as a table of its answers, and as one HTML page that needs no other file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fracture_watch.delivery.exports import write_csv
from fracture_watch.errors import WrongUse
from fracture_watch.model.card import Card
from fracture_watch.records import DISCLAIMER
from fracture_watch.training.assess import Answer, Mistake, NotEvaluated, sample_of
from fracture_watch.training.figures import (
    AIMS,
    Bootstrap,
    Figures,
    OperatingPoint,
    Subgroup,
    measure,
    operating_point,
    subgroups,
)
from fracture_watch.training.plots import plots

FEW_GROUPS = 20


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation: where it comes from, and its figures."""

    labels: str
    model: dict[str, str]
    threshold: float
    threshold_chosen: str
    calibrated_at: float | None
    bootstrap: Bootstrap
    overall: Figures
    operating_points: list[OperatingPoint]
    subgroups: list[Subgroup]
    not_evaluated: list[NotEvaluated]
    notes: list[str]
    disclaimer: str = DISCLAIMER

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def report_on(
    labels: Path,
    card: Card,
    answers: Sequence[Answer],
    without: Sequence[NotEvaluated],
    how: Bootstrap,
    doubt: str | None,
) -> Report:
    """Every figure of an evaluation, at the card's threshold.

    Parameters
    ----------
    labels : Path
    card : Card
    answers, without
        As ``assess`` gives them.
    how : Bootstrap
    doubt : str, optional
        What speaks against the model before anything is measured.
    """
    sample, threshold = sample_of(answers), card.threshold.value
    overall = measure(sample, threshold, how)
    return Report(
        labels=labels.name,
        model=asdict(card.facts),
        threshold=threshold,
        threshold_chosen=card.threshold.chosen,
        calibrated_at=card.calibration.prevalence,
        bootstrap=how,
        overall=overall,
        operating_points=[operating_point(sample, aim, how) for aim in AIMS],
        subgroups=subgroups(sample, [answer.properties for answer in answers], threshold, how),
        not_evaluated=list(without),
        notes=_notes(overall, without, doubt),
    )


def write_report(folder: Path, report: Report, answers: Sequence[Answer], mistakes: Sequence[Mistake]) -> Path:
    """Write ``figures.json``, ``answers.csv`` and ``report.html``; returns the page's path.

    Raises
    ------
    WrongUse
        If the folder cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("fracture_watch.training"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    pictures = plots(sample_of(answers), report.threshold)
    page = environment.get_template("evaluation.html").render(report=report, plots=pictures, mistakes=mistakes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(page, encoding="utf-8")
        (folder / "figures.json").write_text(json.dumps(report.as_dict(), indent=1), encoding="utf-8")
        with (folder / "answers.csv").open("w", newline="", encoding="utf-8") as file:
            write_csv((_row(answer) for answer in answers), _row(answers[0]), file)
    except OSError as error:
        raise WrongUse(f"--output {folder}: cannot be written: {error.strerror}") from error
    return folder / "report.html"


def _row(answer: Answer) -> dict[str, Any]:
    prediction = answer.prediction
    return {
        "file": answer.case.name,
        "label": "fractured" if answer.case.fractured else "not fractured",
        "prediction": str(prediction.label),
        "probability": prediction.probability,
        "group": answer.group,
    }


def _notes(overall: Figures, without: Sequence[NotEvaluated], doubt: str | None) -> list[str]:
    notes = [doubt] if doubt else []
    if overall.auroc.value < 0.5:
        notes.append(
            "AUROC below 0.5: the model is worse than chance, or the labels are the other way round. 0 is fractured, "
            "1 is not fractured; write the words if in doubt."
        )
    if overall.groups < FEW_GROUPS:
        notes.append(f"Only {overall.groups} groups: intervals from so few are rough, and rather too narrow.")
    if without:
        notes.append(f"{len(without)} labelled files have no answer and are in no figure.")
    return notes
