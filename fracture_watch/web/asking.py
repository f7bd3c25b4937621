"""What a query string may ask for."""

from typing import Annotated, TypeVar

from flask import request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import BadRequest

from fracture_watch.records import Greys, Label, Status
from fracture_watch.times import utc_of


def _utc(text: str) -> str:
    """An ISO 8601 date or time as the database writes it; without an offset it is taken as UTC."""
    try:
        return utc_of(text)
    except ValueError as error:
        raise ValueError("is no ISO 8601 date or time, such as 2026-01-31 or 2026-01-31T08:00:00Z") from error


Time = Annotated[str, AfterValidator(_utc)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Question(BaseModel):
    """An unknown name is refused: a filter with a typing error would let everything through."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Asked = TypeVar("Asked", bound=Question)


class PredictionQuestion(Question):
    """Of ``/predict``."""

    heatmap: bool = False


class PictureQuestion(Question):
    """Of a picture: its longest side in pixels."""

    size: Annotated[int, Field(ge=16, le=10_000)] | None = None


class ImageQuestion(PictureQuestion):
    """Of a radiograph: its window, in what is shown at first, which is 0 (black) to 1 (white)."""

    center: Annotated[float, Field(ge=-9, le=9)] = 0.5
    width: Annotated[float, Field(ge=0.0001, le=18)] = 1.0  # the least is less than a step of 16 bits

    @property
    def greys(self) -> Greys:
        """The same, from black to white."""
        return Greys(self.center - self.width / 2, self.center + self.width / 2)


class HeatmapQuestion(PictureQuestion):
    """Of a heat map: whether it is wanted alone, as a layer to lay over the picture."""

    layer: bool = False


class PageQuestion(Question):
    """Of every list."""

    prediction: Label | None = None
    since: Time | None = None
    until: Time | None = None
    patient: str | None = None
    min_probability: Probability | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: str | None = None


class ResultsQuestion(PageQuestion):
    """Of the list of results."""

    study: str | None = None
    status: Status | None = None


def asked(kind: type[Asked]) -> Asked:
    """The query string of the request.

    Raises
    ------
    BadRequest
        Naming what is wrong with it.
    """
    given = request.args.to_dict(flat=False)
    try:
        for name, values in given.items():
            if len(values) > 1:
                raise BadRequest(f"{name} is given {len(values)} times; give it once")
        return kind.model_validate({name: value for name, (value,) in given.items()})
    except ValidationError as error:
        raise BadRequest(_complaint(kind, error)) from error


def _complaint(kind: type[Question], error: ValidationError) -> str:
    wrong = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(map(str, wrong["loc"][:1]))
    if wrong["type"] == "extra_forbidden":
        return f"there is no parameter {name!r} here; there are {', '.join(kind.model_fields)}"
    return f"{name}: {wrong['msg'].removeprefix('Value error, ')}"
