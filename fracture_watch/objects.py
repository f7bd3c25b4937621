"""A classified file -> its DICOM objects, built in the decoding workers before its result is recorded."""

import hashlib
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from fracture_watch.delivery.shelf import Shelf
from fracture_watch.errors import FractureWatchError, Internal, SystemicError, Unreadable
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.model.heatmap import Illustrator, overlay, rgb, shrunk
from fracture_watch.outcomes import Classified, Outcome
from fracture_watch.records import Kind, Label, Prediction, SourceFile
from fracture_watch.times import now

log = logging.getLogger(__name__)
Made = TypeVar("Made")
Objects: TypeAlias = dict[Kind, bytes]
Entry: TypeAlias = tuple[SourceFile, Outcome, Path | None]


class Building(Protocol):
    """Objects under way; ``result`` waits for them and raises ``FractureWatchError``."""

    def result(self) -> Objects:
        """Wait for them."""


class Builders(Protocol):
    """Runs a task in a process that may be killed; a crash or a hang costs one file."""

    def run(self, task: Callable[[], Objects]) -> Building:
        """Start it."""


@dataclass(frozen=True, slots=True)
class Order:
    """Which objects of which file: everything that a worker needs, and picklable."""

    path: Path
    sha256: str
    prediction: Prediction
    at: str
    kinds: frozenset[Kind]
    software: str


def build(order: Order, limits: Limits, illustrator: Illustrator) -> Objects:
    """Read the file once more and build its objects. Runs in a worker.

    Raises
    ------
    FractureWatchError
        If the file cannot be read, or is not what an object can refer to.
    """
    from fracture_watch.delivery.finding import Finding
    from fracture_watch.imaging.evidence import evidence
    from fracture_watch.imaging.reader import load, open_image

    content = load(order.path, limits)
    if hashlib.sha256(content).hexdigest() != order.sha256:
        raise Unreadable("another file is in its place now")
    source = evidence(content, limits)
    finding, made = Finding(order.sha256, order.prediction, order.at, order.software), {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # highdicom's, about names that stand in the file as they do
            if Kind.SR in order.kinds:
                from fracture_watch.delivery.sr import report

                made[Kind.SR] = report(finding, source)
            if Kind.SC in order.kinds:
                from fracture_watch.delivery.secondary_capture import LONGEST_SIDE, capture

                pixels = open_image(content, limits, Scope()).pixels(order.prediction.frame)
                shown = shrunk(pixels, LONGEST_SIDE)
                evident = order.prediction.evidence if illustrator.paints(order.prediction) else None
                picture = rgb(shown)
                if evident is not None:
                    picture = overlay(shown, evident, illustrator.preprocessor, pixels.shape[:2])
                made[Kind.SC] = capture(finding, source, picture, painted=evident is not None)
    except (FractureWatchError, MemoryError):
        raise
    except Exception as error:  # the libraries refuse odd values in many ways, none of which may hold up the result
        # Not its text, which may quote a header that is not to be recorded.
        raise Internal(f"the object cannot be built ({type(error).__name__})") from error
    return made


class Workshop:
    """Builds what is wanted of classified files and keeps it, so that it is there when the result is.

    Parameters
    ----------
    builders : Builders
    shelf : Shelf
    limits : Limits
    illustrator : Illustrator
        Which results get a heat map.
    wanted : function
        Which objects are wanted of a result with this label.
    software : str
        Version of this program.
    """

    def __init__(
        self,
        builders: Builders,
        shelf: Shelf,
        limits: Limits,
        illustrator: Illustrator,
        wanted: Callable[[Label], frozenset[Kind]],
        software: str,
    ) -> None:
        self._builders = builders
        self._shelf = shelf
        self._limits = limits
        self._illustrator = illustrator
        self._wanted = wanted
        self._software = software

    def __call__(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries, with the objects that were built of them; where that failed, a note says why.

        Raises
        ------
        SystemicError
            If no object can be kept.
        """
        under_way = [self._begin(source, outcome) for source, outcome, _ in entries]
        return [
            (source, outcome if begun is None else self._finish(source, *begun), place)
            for (source, outcome, place), begun in zip(entries, under_way, strict=True)
        ]

    def order(self, path: Path, sha256: str, prediction: Prediction, at: str, kinds: frozenset[Kind]) -> Objects:
        """Build objects of a file that has a result; nothing is kept.

        Raises
        ------
        FractureWatchError
        """
        return self._start(Order(path, sha256, prediction, at, kinds, self._software)).result()

    def _begin(self, source: SourceFile, outcome: Outcome) -> "tuple[Classified, Building | None] | None":
        if not isinstance(outcome, Classified) or not (kinds := self._wanted(outcome.prediction.label)):
            return None
        facts = outcome.facts
        if not (facts.study_uid and facts.series_uid and facts.sop_instance_uid):
            return outcome, None
        stamped = replace(outcome, objects=kinds, at=now())
        order = Order(source.path, outcome.sha256, outcome.prediction, str(stamped.at), kinds, self._software)
        return stamped, self._start(order)

    def _start(self, order: Order) -> Building:
        return self._builders.run(partial(build, order, self._limits, self._illustrator))

    def _finish(self, source: SourceFile, outcome: Classified, building: Building | None) -> Classified:
        if building is None:
            return _without(outcome, "the file has no UIDs that they could refer to")
        try:
            for kind, content in building.result().items():
                self._shelf.put(kind, outcome.sha256, outcome.prediction.model.id, content)
        except SystemicError:
            raise
        except FractureWatchError as error:
            log.warning("no DICOM objects of the file with sha256 %s: %s", outcome.sha256[:12], error.detail)
            return _without(outcome, error.detail)
        return outcome


def _without(outcome: Classified, why: str) -> Classified:
    return replace(outcome, objects=frozenset(), notes=(*outcome.notes, f"no DICOM objects: {why}"))
