"""A result that is recorded -> its DICOM object: the one that was built, or built anew from the filed image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fracture_watch.delivery.shelf import Shelf
from fracture_watch.errors import Unreadable, WrongUse
from fracture_watch.objects import Workshop
from fracture_watch.pipeline import Classifier, Decoder
from fracture_watch.records import Kind, Label, ModelFacts, Prediction, SourceFile, Status
from fracture_watch.results.rows import as_path
from fracture_watch.times import now


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """What builds an object anew.

    Parameters
    ----------
    workshop : Workshop
    decoder : Decoder
    classifier : Classifier or None
        The model in force, which draws heat maps; a report needs none.
    model_id : str
        Its identity.
    """

    workshop: Workshop
    decoder: Decoder
    classifier: Classifier | None
    model_id: str


class Exporter:
    """Finds or builds objects.

    Parameters
    ----------
    shelf : Shelf
        What was built.
    start : function
        Starts what builds anew; called once, and only where something has to be built.
    """

    def __init__(self, shelf: Shelf, start: Callable[[], Rebuilding]) -> None:
        self._shelf = shelf
        self._start = start
        self._started: Rebuilding | None = None

    def object(self, row: Mapping[str, Any], kind: Kind) -> bytes:
        """The object of one row of the view ``results``, as a DICOM file.

        Raises
        ------
        FractureWatchError
            Where there is none to be had.
        """
        _check(row)
        built = self._shelf.of(kind, row)
        try:
            if built.is_file():
                return built.read_bytes()
        except OSError as error:
            raise Unreadable(f"{built} cannot be read: {error.strerror}; change its permissions") from error
        path = as_path(row["filed_path"]) if row["filed_path"] else None
        if path is None or not path.is_file():
            raise Unreadable(
                f"its {kind.upper()} was not built when it was classified, and its image is "
                f"{f'not at {path} any more' if path else 'not kept (filing.processed)'}; put that back first"
            )
        return self._built_anew(row, kind, path)

    def _built_anew(self, row: Mapping[str, Any], kind: Kind, path: Path) -> bytes:
        self._started = rebuilding = self._started or self._start()
        model = ModelFacts(row["model_name"], row["model_version"], row["model_id"])
        prediction = Prediction(Label(row["prediction"]), row["probability"], row["threshold"], model, row["frame"])
        if kind is Kind.SC:
            prediction = _explained(prediction, rebuilding, path)
        objects = rebuilding.workshop.order(path, row["sha256"], prediction, row["completed_at"], frozenset({kind}))
        return objects[kind]


def _explained(prediction: Prediction, rebuilding: Rebuilding, path: Path) -> Prediction:
    """The prediction with its evidence, which only the model that made it can find again."""
    model = prediction.model
    if model.id != rebuilding.model_id or rebuilding.classifier is None:
        raise WrongUse(
            f"its heat map is that of {model.name} {model.version} ({model.id}), and another model is in force; set "
            "model.weights and model.threshold to that one"
        )
    prepared = rebuilding.decoder.submit(SourceFile(path, 0, 0, 0, now())).result()
    [again] = rebuilding.classifier.classify([prepared])
    return replace(prediction, evidence=again.evidence if again.frame == prediction.frame else None)


def _check(row: Mapping[str, Any]) -> None:
    if row["status"] == Status.DUPLICATE:
        if row["duplicate_of"] is None:
            raise WrongUse("it is a duplicate of a result that was removed, and has no prediction of its own")
        raise WrongUse(f"it is a duplicate of result {row['duplicate_of']}; export that")
    if row["status"] != Status.CLASSIFIED:
        raise WrongUse(f"it has no prediction: it is {row['status']}, {row['code'] or 'still growing'}")
    if not (row["study_uid"] and row["series_uid"] and row["sop_instance_uid"]):
        raise WrongUse("its image has no UIDs, as a PNG or JPEG has none, so no DICOM object can refer to it")
