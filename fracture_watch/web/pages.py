"""The pages that people look at."""

import json

from flask import Blueprint, render_template

from fracture_watch.records import DISCLAIMER
from fracture_watch.web.site import Site


def pages(site: Site) -> Blueprint:
    """The list of the latest results."""
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/")
    def worklist() -> str:
        rows = [row | {"notes": json.loads(row["notes"] or "[]")} for row in site.recent()]
        return render_template(
            "worklist.html", rows=rows, status=site.status(), inbox=site.inbox, disclaimer=DISCLAIMER
        )

    return blueprint
