"""What was recorded: results, studies, and what the daemon is doing."""

import json
from dataclasses import asdict
from typing import Any

from flask import Blueprint

from fracture_watch import __version__
from fracture_watch.errors import InvalidCursor
from fracture_watch.results import queries
from fracture_watch.results.queries import Filter, StudyFilter
from fracture_watch.web.answering import Answer, answered
from fracture_watch.web.asking import PageQuestion, Question, ResultsQuestion, asked
from fracture_watch.web.site import Site, problem


def add_lists(blueprint: Blueprint, site: Site) -> None:
    """``/api/results``, ``/api/studies`` and ``/api/status``."""
    blueprint.register_error_handler(InvalidCursor, _wrong_cursor)

    @blueprint.get("/api/results")
    def results() -> Answer:
        wanted = asked(ResultsQuestion)
        found = queries.page(site.database, Filter(**_filter(wanted)), wanted.cursor, wanted.limit)
        return answered({"results": list(map(_shown, found.rows)), "next_cursor": found.next_cursor})

    @blueprint.get("/api/results/<int:id>")
    def result(id: int) -> Answer:  # noqa: A002  the name in the route
        asked(Question)
        row = queries.one(site.database, id)
        return no_result(id) if row is None else answered(_shown(row))

    @blueprint.get("/api/studies")
    def studies() -> Answer:
        wanted = asked(PageQuestion)
        found = queries.studies(site.database, StudyFilter(**_filter(wanted)), wanted.cursor, wanted.limit)
        return answered({"studies": found.rows, "next_cursor": found.next_cursor})

    @blueprint.get("/api/studies/<path:uid>")
    def study(uid: str) -> Answer:
        asked(Question)
        found = queries.study(site.database, uid)
        if found is None:
            return problem(404, "not_found", "there is no such study; /api/studies lists those that there are")
        return answered(found | {"results": list(map(_shown, found["results"]))})

    @blueprint.get("/api/status")
    def status() -> Answer:
        asked(Question)
        watcher = site.status()
        return answered(
            {
                "watcher": None if watcher is None else asdict(watcher),
                "model": asdict(site.model) | {"threshold": site.threshold},
                "version": __version__,
            }
        )


def no_result(number: int) -> Answer:
    """Nothing, or nothing any more, has this number."""
    return problem(404, "not_found", f"there is no result {number}; it may have been removed by prune")


def _wrong_cursor(error: InvalidCursor) -> Answer:
    return problem(400, error.code, error.detail)


def _filter(wanted: PageQuestion) -> dict[str, Any]:
    return wanted.model_dump(exclude={"limit", "cursor"})


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"notes": json.loads(row["notes"] or "[]")}
