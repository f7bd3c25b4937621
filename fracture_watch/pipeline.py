"""A batch of files -> an outcome for each. Records nothing and moves nothing."""

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

from fracture_watch.errors import FileFailed, FileRejected, FractureWatchError, Internal, SystemicError
from fracture_watch.outcomes import Classified, Duplicate, Failed, Outcome, Rejected
from fracture_watch.records import Filed, Pixels, Prediction, Prepared, Source, Upload
from fracture_watch.stages import Measure, unmeasured

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Known: TypeAlias = Callable[[Collection[str]], Collection[str]]
Draw: TypeAlias = Callable[[Prepared, Prediction], str | None]


class Decoding(Protocol):
    """A decoding under way; ``result`` waits for it and raises ``FractureWatchError``."""

    def result(self) -> Prepared:
        """Wait for it."""


class Decoder(Protocol):
    """Starts decoding a file, somewhere else."""

    def submit(self, source: Source) -> Decoding:
        """Start decoding one file."""


class Drawing(Protocol):
    """A picture under way; ``result`` waits for it and raises ``FractureWatchError``."""

    def result(self) -> bytes | None:
        """Wait for it; ``None`` if the file is not the one that was filed."""


class Workers(Decoder, Protocol):
    """Decodes, and draws what it decoded, somewhere else."""

    def draw(self, filed: Filed, finish: Callable[[Pixels], bytes]) -> Drawing:
        """Start drawing one frame."""


class Classifier(Protocol):
    """Classifies what decoders prepared, in order."""

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Classify, in order."""


def batches(sources: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """``sources`` by ``size``, the last batch with what is left; read as they are needed."""
    iterator = iter(sources)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def no_picture(prepared: Prepared, prediction: Prediction) -> str | None:
    """Draws nothing."""
    return None


class Pipeline:
    """decode -> classify -> Outcome.

    Parameters
    ----------
    decoder : Decoder
    classifier : Classifier
    notes : tuple of str
        Added to those of every file that is classified.
    """

    def __init__(self, decoder: Decoder, classifier: Classifier, notes: tuple[str, ...] = ()) -> None:
        self._decoder = decoder
        self._classifier = classifier
        self._notes = notes

    def run(self, batch: Sequence[Source], known: Known | None = None, draw: Draw = no_picture) -> list[Outcome]:
        """An outcome for every source, in order: ``start`` and ``finish`` at once."""
        return self.finish(batch, self.start(batch), known, draw)

    def start(self, batch: Sequence[Source]) -> list[Decoding]:
        """Start decoding ``batch``; returns at once.

        Raises
        ------
        DecodersUnavailable
            If they were stopped.
        """
        return [self._decoder.submit(source) for source in batch]

    def finish(
        self,
        batch: Sequence[Source],
        decodings: Sequence[Decoding],
        known: Known | None = None,
        draw: Draw = no_picture,
        measure: Measure = unmeasured,
    ) -> list[Outcome]:
        """An outcome for every source, in order.

        Parameters
        ----------
        batch : sequence of SourceFile or Upload
        decodings : sequence of Decoding
            What ``start`` made of them.
        known : function
            Which of some sha256 digests the model in force has classified before; those, and repeats within the
            batch, are duplicates. Without it every file gets its prediction.
        draw : function
            Makes the picture that explains a prediction and says where it is.
        measure : function
            Times the stages ``decode`` (the wait for it), ``classify`` and ``draw``.

        Raises
        ------
        SystemicError
            When nothing can be processed; no outcome is to be recorded.
        """
        try:
            return self._outcomes(decodings, known, draw, measure)
        except SystemicError:
            raise
        except Exception:
            log.exception("a batch of %d files failed in a way that is no file's fault", len(batch))
            return [self._run_alone(source, known, draw) for source in batch]

    def _run_alone(self, source: Source, known: Known | None, draw: Draw) -> Outcome:
        """The batch's culprit becomes ``internal``; the others get their own outcome."""
        try:
            return self._outcomes(self.start([source]), known, draw, unmeasured)[0]
        except SystemicError:
            raise
        except Exception as error:
            # The name of an upload is its sender's, and often a patient's.
            log.exception("%s: internal error", "an upload" if isinstance(source, Upload) else source.name)
            return Failed(Internal.code, f"an internal error: {type(error).__name__}: {error}; see the log")

    def _outcomes(
        self, decodings: Sequence[Decoding], known: Known | None, draw: Draw, measure: Measure
    ) -> list[Outcome]:
        with measure("decode"):
            decoded = [_decoded(decoding) for decoding in decodings]
        news = _news([item for item in decoded if isinstance(item, Prepared)], known)
        with measure("classify"):
            predictions = dict(zip(news, self._classifier.classify(list(news.values())), strict=True))
        with measure("draw"):
            return self._judged(decoded, news, predictions, known, draw)

    def _judged(
        self,
        decoded: Sequence[Prepared | Rejected | Failed],
        news: Mapping[str, Prepared],
        predictions: Mapping[str, Prediction],
        known: Known | None,
        draw: Draw,
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for item in decoded:
            if not isinstance(item, Prepared):
                outcomes.append(item)
            elif known is None or news.get(item.sha256) is item:
                prediction = predictions[item.sha256]
                notes = item.notes + self._notes
                outcomes.append(Classified(item.sha256, item.facts, prediction, notes, draw(item, prediction)))
            else:
                outcomes.append(Duplicate(item.sha256, item.facts, item.notes))
        return outcomes


def _decoded(decoding: Decoding) -> Prepared | Rejected | Failed:
    try:
        return decoding.result()
    except SystemicError:
        raise
    except FractureWatchError as error:
        kind = Rejected if isinstance(error, FileRejected) else Failed
        code = error.code if isinstance(error, FileRejected | FileFailed) else Internal.code
        return kind(code, error.detail, error.sha256, error.facts)


def _news(prepared: Sequence[Prepared], known: Known | None) -> dict[str, Prepared]:
    """The first of each content that was not classified before, by digest."""
    old = set(known({item.sha256 for item in prepared})) if known and prepared else set()
    news: dict[str, Prepared] = {}
    for item in prepared:
        if item.sha256 not in old:
            news.setdefault(item.sha256, item)
    return news
