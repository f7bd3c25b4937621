"""The worklist, and the files that came to nothing."""

import re
from datetime import date, timedelta
from typing import Annotated, Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from pydantic import BeforeValidator, model_validator
from werkzeug.exceptions import BadRequest

from fracture_watch.errors import WrongUse
from fracture_watch.records import Label, Status
from fracture_watch.results import verdicts, worklist
from fracture_watch.results.rows import as_path, as_text
from fracture_watch.results.worklist import PROBLEMS, Wanted
from fracture_watch.web.answering import Answer
from fracture_watch.web.asking import Question, asked
from fracture_watch.web.site import Site

_AT_ONCE = 50
_NUMBER = re.compile(r"[0-9]{1,19}")
_NEAR = 0.5  # of the threshold: from there on a picture that is not called fractured is marked as near it


def _day(text: str) -> date:
    """A day as a form sends it; left to itself, pydantic takes a number for seconds since 1970."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError("is no ISO 8601 date, such as 2026-01-31") from error


Day = Annotated[date, BeforeValidator(_day)]


class WorklistQuestion(Question):
    """What a worklist is narrowed to; days are of the latest result, both inclusive."""

    prediction: Label | None = None
    modality: str | None = None
    body_part: str | None = None
    since: Day | None = None
    until: Day | None = None
    q: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, given: dict[str, str]) -> dict[str, str]:
        """A form sends every field."""
        return {name: value for name, value in given.items() if value.strip()}

    def wanted(self, site: Site) -> Wanted:
        """The question to the database."""
        last = self.until if self.until and self.until < date.max else None
        typed = self.q.strip() if self.q else None
        return Wanted(
            self.prediction and str(self.prediction),
            self.modality,
            self.body_part,
            str(self.since) if self.since else None,
            str(last + timedelta(days=1)) if last else None,
            typed,
            _as_patient(site, typed) if typed else None,
            as_text(site.inbox),
            (*site.aliases(typed), *site.aliases(as_text(site.inbox / typed))) if typed else (),
        )

    def query(self) -> dict[str, str]:
        """The same as a query string."""
        return {name: str(value) for name, value in self if value is not None and name != "cursor"}


class WorklistPage(WorklistQuestion):
    """A page of it."""

    cursor: str | None = None


class ProblemsQuestion(Question):
    """Which of the files that came to nothing."""

    status: Status = Status.FAILED
    cursor: str | None = None


def add_worklist(blueprint: Blueprint, site: Site) -> None:
    """``/`` and ``/problems``."""

    @blueprint.get("/")
    def studies() -> str:
        question = asked(WorklistPage)
        found = worklist.page(site.database, question.wanted(site), question.cursor, _AT_ONCE)
        return render_template(
            "worklist.html",
            rows=_shown(site, found.rows),
            question=question,
            query=question.query(),
            next_cursor=found.next_cursor,
            modalities=worklist.choices(site.database, "modality"),
            body_parts=worklist.choices(site.database, "body_part"),
        )

    @blueprint.get("/problems")
    def problems() -> str:
        question = asked(ProblemsQuestion)
        if question.status not in PROBLEMS:
            raise BadRequest(f"status: there are {', '.join(PROBLEMS)}")
        found = worklist.problems(site.database, question.status, question.cursor, _AT_ONCE)
        rows = [row | {"name": name_of(row), "retry": _may_retry(site, row)} for row in found.rows]
        return render_template(
            "problems.html",
            rows=rows,
            status=question.status,
            statuses=PROBLEMS,
            cursor=question.cursor,
            next_cursor=found.next_cursor,
        )

    @blueprint.post("/problems/retry")
    def retry() -> Answer:
        asked(Question)
        ids = _numbers(request.form.getlist("id"))
        done = site.retry(ids)
        back = sum(item.target is not None for item in done)
        if back == len(ids):
            return redirect(url_for("pages.problems"), 303)
        return make_response(render_template("retried.html", back=back, gone=len(ids) - back), 409)


def _numbers(given: list[str]) -> list[int]:
    """Results' ids, each once."""
    numbers = dict.fromkeys(int(text) if _NUMBER.fullmatch(text) else 0 for text in given)
    if not numbers or not all(0 < number < 2**63 for number in numbers):  # beyond that no database counts
        raise BadRequest("name at least one result as the field id, each as the pages number them")
    return list(numbers)


def _shown(site: Site, studies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each study with the file that stands for it, and what readers said of that."""
    faces = worklist.faces(site.database, [study["study_uid"] for study in studies], site.model.id)
    said = verdicts.latest(site.database, [face["id"] for face in faces.values()])
    shown = []
    for study in studies:
        face = faces.get(study["study_uid"])
        if face is None:
            continue
        verdict = said.get(face["id"])
        near = study["prediction"] == Label.NOT_FRACTURED and study["max_probability"] >= _NEAR * face["threshold"]
        shown.append(study | {"face": face, "name": name_of(face), "verdict": verdict, "near": near})
    return shown


def _as_patient(site: Site, asked: str) -> str | None:
    """What rows hold for it if it is a PatientID; where they hold none, it may still be a UID or a file."""
    try:
        return site.patient(asked)
    except WrongUse:
        return None


def name_of(row: dict[str, Any]) -> str:
    """A file's name, without the folders."""
    return str(row["source_path"]).rsplit("/", 1)[-1]


def _may_retry(site: Site, row: dict[str, Any]) -> bool:
    """Whether its file lies apart from where it was found, which is in quarantine."""
    return row["filed"] and row["filed_path"] not in (None, row["source_path"]) and as_path(row["filed_path"]).is_file()
