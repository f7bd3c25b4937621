"""Settings -> batches on a Dask cluster: what travels to its workers, and what each makes of it there."""

import hashlib
import logging
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import fracture_watch
from fracture_watch.assembly.model import check_model, runtime
from fracture_watch.config import Settings
from fracture_watch.disk import digest
from fracture_watch.errors import InvalidModel, InvalidSettings
from fracture_watch.model.card import Card
from fracture_watch.model.heatmap import Gallery, Illustrator
from fracture_watch.pipeline import Pipeline
from fracture_watch.records import ModelFacts, Prediction, Prepared, SourceFile
from fracture_watch.texts import how_to_install

if TYPE_CHECKING:
    from fracture_watch.engine.dask import DaskEngine
    from fracture_watch.engine.desk import Compute, Computed

log = logging.getLogger(__name__)
_PATIENCE = 300.0
_HEAD = 1 << 16  # bytes by which a file is known to be the same everywhere


@dataclass(frozen=True, slots=True)
class Sample:
    """A file as the driver sees it; on a worker it has to look the same."""

    path: Path
    size: int
    head: str

    @classmethod
    def of(cls, path: Path) -> "Sample":
        """Taken here; raises OSError."""
        with path.open("rb") as file:
            return cls(path, path.stat().st_size, hashlib.sha256(file.read(_HEAD)).hexdigest())


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker needs to compute as the driver would: picklable, and without secrets that it has no use for.

    ``weights`` is the digest of the weights, ``ours`` and ``torch`` are the versions of this package and of torch.
    """

    settings: Settings = field(repr=False)
    model: ModelFacts
    weights: str
    ours: str
    torch: str

    @classmethod
    def of(cls, settings: Settings, card: Card) -> "Plan":
        """The driver's."""
        unneeded = {
            name: type(getattr(settings, name)).model_construct() for name in ("web", "webhooks", "database", "dicom")
        }
        return cls(settings.model_copy(update=unneeded), card.facts, card.sha256, *_versions())


@contextmanager
def dask_engine(
    settings: Settings, card: Card, samples: Iterable[Path], patience: float = _PATIENCE
) -> "Iterator[DaskEngine]":
    """A connection to a cluster all of whose workers can do what is asked of them.

    Parameters
    ----------
    settings : Settings
    card : Card
        The model's, as it is in force.
    samples : iterable of Path
        Files that every worker has to see as they are here.
    patience : float
        Seconds to wait for a scheduler, or for a first worker, that is gone: time to start either again.

    Raises
    ------
    InvalidSettings
        If there is no such cluster, naming each worker that cannot and what is to be done there.
    """
    if find_spec("distributed") is None:
        raise InvalidSettings(f"engine.kind: dask needs an extra that is not installed here: {how_to_install('dask')}")
    from fracture_watch.engine.dask import DaskEngine

    for name in ("distributed", "distributed.client"):  # of a lost connection the engine tells, in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    plan = Plan.of(settings, card)
    with closing(DaskEngine(str(settings.engine.address), partial(opened, plan), Gallery.keep, patience)) as engine:
        problems = engine.ask(partial(unfit, plan, _seen(samples)))
        if problems:
            raise InvalidSettings(f"engine.kind: dask: not every worker can do this. {_summed_up(problems)}")
        log.info("Dask scheduler %s", engine.describe())
        yield engine


def _seen(paths: Iterable[Path]) -> list[Sample]:
    """Samples of what can be read here; what cannot is a file's own failure, later."""
    samples = []
    for path in paths:
        with suppress(OSError):
            samples.append(Sample.of(path))
    return samples


def unfit(plan: Plan, samples: Sequence[Sample] = ()) -> str | None:
    """Why this worker cannot do what ``plan`` asks for, and what to do about it; ``None`` if it can."""
    if multiprocessing.current_process().daemon:
        return (
            "it is a daemon process, which may not have decoding processes; start it with `dask worker --no-nanny`, or "
            "where it is started set DASK_DISTRIBUTED__WORKER__DAEMON=False"
        )
    if (found := _versions()) != (plan.ours, plan.torch):
        return (
            f"it has fracture_watch {found[0]} and torch {found[1]}, and here are {plan.ours} and {plan.torch}; "
            "install the same versions"
        )
    try:
        same = digest(plan.settings.model.weights) == plan.weights
        other = [sample.path for sample in samples if Sample.of(sample.path) != sample]
    except OSError as error:
        return (
            f"it cannot read {error.filename} ({error.strerror}); files and weights must lie at the same path on every "
            "worker: mount them there"
        )
    if not same or other:
        return (
            f"{plan.settings.model.weights if not same else other[0]} is another file there; files and weights must be "
            "the same at the same path on every worker: mount the same storage"
        )
    return None


@contextmanager
def opened(plan: Plan, threads: int) -> "Iterator[Compute]":
    """A loaded model with ``threads`` decoding processes, on a worker, and what computes batches with them.

    Raises
    ------
    InvalidSettings
        If this worker cannot do it, for a reason that ``unfit`` names.
    InvalidModel
        If the model is another one here, or the golden images get other answers than its card says.
    """
    if problem := unfit(plan):
        raise InvalidSettings(f"engine.kind: dask: a worker that joined later cannot do this: {problem}")
    import torch

    torch.set_num_threads(threads)  # a worker's threads are its share of the machine's cores
    settings = plan.settings
    with runtime(settings, settings.imaging.workers or threads) as running:
        check_model(running.classifier)
        card = running.classifier.card
        if card.facts != plan.model:
            raise InvalidModel(
                f"a Dask worker loads the model {card.facts.id}, and here it is {plan.model.id}; the card "
                "beside model.weights was changed meanwhile: start again"
            )
        gallery = Gallery(Illustrator(card.preprocessor, settings.model.heatmaps), settings.filing.artefacts_dir)
        yield partial(_computed, running.pipeline, gallery)


def _computed(pipeline: Pipeline, gallery: Gallery, batch: Sequence[SourceFile]) -> "Computed":
    """Outcomes, and pictures for the driver to put in their places: a worker writes nothing.

    Only the database knows which contents were classified before. A worker does not ask; when the driver records them,
    they become duplicates.
    """
    from fracture_watch.engine.desk import Computed

    pictures: dict[Path, bytes] = {}

    def draw(prepared: Prepared, prediction: Prediction) -> str | None:
        picture = gallery.illustrator.png(prepared, prediction)
        if picture is None:
            return None
        path = gallery.place(prepared, prediction)
        pictures[path] = picture
        return str(path)

    return Computed(pipeline.run(batch, _none_known, draw), pictures)


def _none_known(digests: object) -> tuple[str, ...]:
    return ()


def _summed_up(problems: Mapping[str, str]) -> str:
    """The first worker with each problem, and how many more have it."""
    workers: dict[str, list[str]] = {}
    for worker, problem in problems.items():
        workers.setdefault(problem, []).append(worker)
    return "; ".join(
        f"Worker {names[0]}{f' (and {len(names) - 1} more)' if names[1:] else ''}: {problem}"
        for problem, names in workers.items()
    )


def _versions() -> tuple[str, str]:
    """Of this package and of torch, whose builds for different devices count as the same."""
    return fracture_watch.__version__, version("torch").partition("+")[0]
