"""Settings -> a loaded model, its decoding workers and its pipelines."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fracture_watch.allocator import keep_freed_memory
from fracture_watch.assembly.storage import privacy
from fracture_watch.config import Settings
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.model import load_classifier
from fracture_watch.pipeline import Pipeline, Workers
from fracture_watch.privacy import Guarded
from fracture_watch.viewing import Viewer

if TYPE_CHECKING:
    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.imaging.workers import WorkerPool
    from fracture_watch.model.card import Card
    from fracture_watch.model.classifier import Classifier

log = logging.getLogger(__name__)
ADHOC = 2  # decoding workers for those who wait: one may be at a large picture


@dataclass(frozen=True, slots=True)
class Runtime:
    """A loaded model and its decoding workers.

    ``adhoc`` and ``viewer`` are for those who wait for an answer: they share workers of their own, and go ahead of a
    backlog. ``workers`` are the pipeline's.
    """

    classifier: "Classifier"
    workers: "WorkerPool"
    pipeline: Pipeline
    adhoc: Pipeline
    viewer: Viewer
    metrics: "Metrics"


@contextmanager
def runtime(settings: Settings, workers: int | None = None) -> Iterator[Runtime]:
    """Load the model and start decoding workers; they are killed on leaving.

    Raises
    ------
    InvalidModel
        If the weights or their card do not load.
    """
    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.model.classifier import Urgent

    # Decoding workers and torch share the cores: threads that spin while they wait would slow both many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    classifier = load_model(settings)
    # torch is the reference; a result that something else computed says so.
    notes = () if settings.model.runtime == "torch" else (f"runtime {settings.model.runtime}",)
    count = workers or settings.imaging.workers or cores()
    card = classifier.card
    # Workers start with their first file, so the second pool costs nothing until somebody asks.
    with closing(decoders(settings, card, count)) as decoder, closing(decoders(settings, card, ADHOC)) as adhoc:
        guarded, urgent = _guarded(adhoc, settings), Urgent(classifier)
        pipeline = Pipeline(_guarded(decoder, settings), classifier, notes)
        viewer = Viewer(guarded, urgent, card.preprocessor)
        yield Runtime(classifier, decoder, pipeline, Pipeline(guarded, urgent, notes), viewer, Metrics())


def decoders(settings: Settings, card: "Card", count: int) -> "WorkerPool":
    """Processes that decode for a model, to be closed."""
    from fracture_watch.imaging.workers import Plan, WorkerPool
    from fracture_watch.model.preprocess import Small

    imaging, plan = settings.imaging, Plan(Small(card.preprocessor), limits(settings), _scope(settings))
    return WorkerPool(plan, count, imaging.timeout_seconds, imaging.memory_mb)


def _guarded(decoder: Workers, settings: Settings) -> Workers:
    """What leaves a decoder names nobody whom the settings want unnamed."""
    if settings.privacy.identifiers == "keep":
        return decoder
    return Guarded(decoder, privacy(settings))


def load_model(settings: Settings) -> "Classifier":
    """The classifier that the settings name.

    Raises
    ------
    InvalidModel
        If the weights or their card do not load.
    """
    model = settings.model
    return load_classifier(
        model.weights,
        threshold=model.threshold,
        device=model.device,
        batch_size=model.batch_size,
        runtime=model.runtime,
        one_view=model.one_view,
    )


def card_in_force(settings: Settings) -> "Card":
    """The card of that classifier, without its network.

    Raises
    ------
    InvalidModel
    """
    from fracture_watch.model.card import Card

    model = settings.model
    return Card.load(model.weights).in_force(model.threshold, model.one_view)


def check_model(classifier: "Classifier") -> None:
    """Run the golden images, before anything is recorded; a card without their probabilities is only warned of.

    Raises
    ------
    InvalidModel
        If they get other probabilities than the card says.
    """
    from fracture_watch import golden

    if not golden.require(classifier):
        log.warning(
            "%s: its card has no probabilities for the golden images, so a broken model would not be noticed; "
            "`fracture-watch model check --write` stores them",
            classifier.card.name,
        )


def limits(settings: Settings) -> Limits:
    """What one file may ask for."""
    return Limits(settings.imaging.max_pixels, settings.imaging.max_frames, settings.inbox.max_file_mb << 20)


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _scope(settings: Settings) -> Scope:
    scope = settings.scope
    return Scope(
        frozenset(value.upper() for value in scope.modalities),
        frozenset(value.upper() for value in scope.body_parts),
        scope.on_mismatch,
    )
