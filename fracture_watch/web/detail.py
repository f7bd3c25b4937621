"""One result: the radiograph, what the model says of it, and what the reader says."""

import json
from typing import Any

from flask import Blueprint, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest, NotFound

from fracture_watch.records import Label, Status
from fracture_watch.results import queries, verdicts, worklist
from fracture_watch.results.rows import as_path
from fracture_watch.results.verdicts import Verdict
from fracture_watch.web.answering import Answer, wants_json
from fracture_watch.web.asking import asked
from fracture_watch.web.site import Site
from fracture_watch.web.worklist import WorklistQuestion, name_of

_MOST_BESIDE = 24  # pictures of the study that are shown beside one


def add_detail(blueprint: Blueprint, site: Site) -> None:
    """``/files/<id>`` and the verdicts on it."""

    @blueprint.get("/files/<int:id>")
    def file(id: int) -> str:  # noqa: A002  the name in the route
        question = asked(WorklistQuestion)
        row = _row(site, id)
        study = queries.study(site.database, row["study_uid"] or f"sha256:{row['sha256']}")
        before, after = _neighbours(site, question, study)
        return render_template(
            "detail.html",
            row=row | {"name": name_of(row), "notes": json.loads(row["notes"] or "[]")},
            study=study,
            beside=_beside(site, row, study),
            before=before,
            after=after,
            query=question.query(),
            positive=row["prediction"] == Label.FRACTURED,
            classified=row["status"] == Status.CLASSIFIED,
            in_force=row["model_id"] == site.model.id,
            there=bool(row["filed_path"]) and as_path(row["filed_path"]).is_file(),
            said=verdicts.history(site.database, id),
            choices=list(Verdict),
            steps=site.history(id),
            card=site.card,
        )

    @blueprint.post("/files/<int:id>/verdict")
    def verdict(id: int) -> Answer:  # noqa: A002
        query: dict[str, Any] = dict(asked(WorklistQuestion).query())  # first: what is refused records nothing
        _row(site, id)
        try:
            chosen = Verdict(request.form.get("verdict", ""))
        except ValueError as error:
            raise BadRequest(f"verdict: there are {', '.join(Verdict)}") from error
        given = verdicts.give(site.database, id, chosen)
        if wants_json():
            return jsonify({"verdict": given.verdict, "at": given.at})
        return redirect(url_for("pages.file", id=id, **query), 303)


def _row(site: Site, number: int) -> dict[str, Any]:
    row = queries.one(site.database, number)
    if row is None:
        raise NotFound(f"there is no result {number}; it may have been removed by prune")
    return row


def _neighbours(site: Site, question: WorklistQuestion, study: dict[str, Any] | None) -> list[int | None]:
    """The results that stand for the studies before and after this one in the worklist that one came from."""
    if study is None:
        return [None, None]
    keys = worklist.beside(site.database, question.wanted(site), study)
    faces = worklist.faces(site.database, [key for key in keys if key], site.model.id)
    return [faces[key]["id"] if key in faces else None for key in keys]


def _beside(site: Site, row: dict[str, Any], study: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The pictures of the study, each once: this result, else one of the model in force, else the latest."""
    chosen: dict[str, dict[str, Any]] = {}
    for other in study["results"] if study else ():
        if other["status"] != Status.CLASSIFIED:
            continue
        known = chosen.get(other["sha256"])
        rank = (other["id"] == row["id"], other["model_id"] == site.model.id)
        if known is None or rank > (known["id"] == row["id"], known["model_id"] == site.model.id):
            chosen[other["sha256"]] = other
    return sorted(chosen.values(), key=lambda other: -other["probability"])[:_MOST_BESIDE]
