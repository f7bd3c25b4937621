"""How often the model is right, as far as readers told."""

import io
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from flask import Blueprint, Response, render_template, request
from werkzeug.exceptions import BadRequest

from fracture_watch.delivery.exports import write_csv
from fracture_watch.errors import WrongUse
from fracture_watch.labels import PATHS, SHA256, UID, read_truths
from fracture_watch.results.rows import as_text
from fracture_watch.results.truths import Imported, import_truths
from fracture_watch.results.verdicts import LABEL_COLUMNS, Reading, labels, readings
from fracture_watch.web.asking import Question, asked
from fracture_watch.web.site import Site
from fracture_watch.web.slots import Slots

_KEYS = (UID, SHA256, *PATHS)
_MOST_TRUTHS, _MOST_BYTES = 200_000, 16 << 20  # of an import, which is held in the watcher's own memory
_LONGEST_NAME = 100  # characters of a file's name that are kept
_Z = 1.959964  # of a 95 % interval
_BINS = (0.0, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with Wilson's 95 % interval; without any there is no value."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.hits / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval: sensible also for few and for all."""
        if not self.of:
            return 0.0, 1.0
        n, p, square = self.of, self.value, _Z * _Z
        middle = (p + square / (2 * n)) / (1 + square / n)
        half = _Z * math.sqrt(p * (1 - p) / n + square / (4 * n * n)) / (1 + square / n)
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Group:
    """Readings that belong together."""

    name: str
    sensitivity: Share
    specificity: Share


@dataclass(frozen=True, slots=True)
class Bin:
    """Readings of similar probability: what was said on average, and how many were fractured."""

    mean: float
    share: Share


def add_accuracy(blueprint: Blueprint, site: Site) -> None:
    """``/accuracy`` and ``/verdicts.csv``."""
    slots = Slots(1, "imports")

    @blueprint.get("/accuracy")
    def accuracy() -> str:
        asked(Question)
        return page(None)

    @blueprint.post("/accuracy")
    def truths() -> str:
        asked(Question)
        given = request.files.get("labels")
        if given is None or not given.filename:
            raise BadRequest("choose a CSV file with labels first; the form sends it as the field labels")
        name = PurePath(given.filename).name[:_LONGEST_NAME]
        if given.stream.seek(0, os.SEEK_END) > _MOST_BYTES:
            raise WrongUse(f"{name}: is larger than {_MOST_BYTES >> 20} MiB; bring it in parts")
        given.stream.seek(0)
        source = name if site.quoting else "imported"
        with slots.taken(), io.TextIOWrapper(given.stream, encoding="utf-8-sig", newline="") as lines:
            found = read_truths(lines, name, _KEYS, _MOST_TRUTHS)
            return page(import_truths(site.database, found, source, recorded_as, site.watcher))

    def recorded_as(path: str) -> tuple[str, ...]:
        place = as_text(site.inbox / path)  # an absolute path stays as it is
        return place, *site.aliases(place)

    def page(imported: Imported | None) -> str:
        found = readings(site.database)
        mine = [reading for reading in found if reading.model_id == site.model.id]
        models = sorted({(r.model, r.model_id) for r in found})
        names = Counter(name for name, _ in models)
        by_model = [
            group(f"{name} ({key})" if names[name] > 1 else name, [r for r in found if r.model_id == key])
            for name, key in models
        ]
        parts = sorted({r.body_part or "not said" for r in mine})
        by_part = [group(name, [r for r in mine if (r.body_part or "not said") == name]) for name in parts]
        return render_template(
            "accuracy.html",
            all=group(f"{site.model.name} {site.model.version}", mine),
            by_model=by_model,
            by_part=by_part,
            bins=bins(mine),
            imported=imported,
        )

    @blueprint.get("/verdicts.csv")
    def csv() -> Response:
        asked(Question)
        out = io.StringIO()
        write_csv(labels(site.database), LABEL_COLUMNS, out)
        headers = {"Content-Disposition": 'attachment; filename="verdicts.csv"'}
        return Response(out.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)


def group(name: str, found: Iterable[Reading]) -> Group:
    """Sensitivity and specificity of some readings."""
    there = list(found)
    positive, negative = [r for r in there if r.fractured], [r for r in there if not r.fractured]
    return Group(
        name,
        Share(sum(r.predicted for r in positive), len(positive)),
        Share(sum(not r.predicted for r in negative), len(negative)),
    )


def bins(found: Iterable[Reading]) -> list[Bin]:
    """Readings by their probability; empty bins are left out."""
    there = list(found)
    made = []
    for low, high in itertools.pairwise(_BINS):
        some = [r for r in there if low <= r.probability < high or r.probability == high == 1]
        if some:
            mean = sum(r.probability for r in some) / len(some)
            made.append(Bin(mean, Share(sum(r.fractured for r in some), len(some))))
    return made
