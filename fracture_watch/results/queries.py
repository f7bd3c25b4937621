"""Questions to the ``results`` view, as the command line and the web service ask them."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, column, select, table

from fracture_watch.results.database import Database

COLUMNS = (
    "id received_at completed_at source_path filed_path status code detail notes sha256 duplicate_of patient_id "
    "study_uid series_uid sop_instance_uid accession_number modality body_part laterality view_position study_date "
    "rows columns frame prediction probability threshold model_name model_version model_id heatmap_path"
).split()
_VIEW = table("results", *map(column, COLUMNS))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which results; ``None`` asks for any. ``since`` and ``until`` are ISO 8601, compared with ``completed_at``."""

    prediction: str | None = None
    since: str | None = None
    until: str | None = None
    study: str | None = None
    patient: str | None = None
    min_probability: float | None = None
    status: str | None = None
    limit: int | None = None

    def statement(self) -> Select[Any]:
        """The query, newest first."""
        c = _VIEW.c
        # A picture without UIDs is a study of its own, named by its content.
        content = self.study.removeprefix("sha256:") if self.study and self.study.startswith("sha256:") else None
        conditions = (
            (c.prediction, operator.eq, self.prediction),
            (c.completed_at, operator.ge, self.since),
            (c.completed_at, operator.lt, self.until),
            (c.sha256 if content else c.study_uid, operator.eq, content or self.study),
            (c.patient_id, operator.eq, self.patient),
            (c.probability, operator.ge, self.min_probability),
            (c.status, operator.eq, self.status),
        )
        wanted = [compare(name, value) for name, compare, value in conditions if value is not None]
        return select(_VIEW).where(*wanted).order_by(c.id.desc()).limit(self.limit)


def results(database: Database, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Stream the matching rows as dictionaries with the view's columns."""
    with database.reading() as connection:
        for row in connection.execution_options(yield_per=500).execute(wanted.statement()):
            yield dict(row._mapping)
