"""The model card: the YAML beside the weights that decides how they are used and says what they are worth."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fracture_watch.disk import write_whole
from fracture_watch.errors import InvalidModel, WrongUse
from fracture_watch.model.pooling import Pool
from fracture_watch.model.preprocess import Preprocessor, Resize
from fracture_watch.records import ModelFacts

Channels = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(gt=0, lt=1)]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Views(_Part):
    """The whole picture, and ``tiles`` (along its long side, across it) cut at ``long_side`` pixels, pooled."""

    tiles: tuple[Annotated[int, Field(ge=1, le=4)], Annotated[int, Field(ge=1, le=4)]]
    long_side: int = Field(ge=32, le=4096)
    pool: Pool


class Input(_Part):
    """How a displayed radiograph becomes the model's input: RGB of ``size`` x ``size`` pixels, of one or more views."""

    size: int = Field(default=224, ge=32, le=1024)
    resize: Resize = "letterbox"
    views: Literal["whole"] | Views = "whole"
    mean: Channels = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD


class Calibration(_Part):
    """``probability = sigmoid(slope * logit + intercept)``, fitted at ``prevalence`` of fractured images."""

    slope: float = Field(default=1.0, gt=0)
    intercept: float = 0.0
    prevalence: Probability | None = None


class Threshold(_Part):
    """``fractured`` at or over ``value``, and how that was chosen."""

    value: Probability = 0.5
    chosen: str = "not chosen; 0.5 by default"


class OneView(_Part):
    """What holds instead where ``model.views`` is ``whole``: the same weights on the whole picture alone."""

    calibration: Calibration
    threshold: Threshold
    golden: dict[str, Probability] = {}


class Card(_Part):
    """A model card, as it stands in ``<weights>.yaml``.

    Preprocessing, labels and threshold come from here alone, in training, serving and evaluation alike. ``golden``
    holds the probabilities of the drawn pictures of ``fracture_watch.golden``, by name.
    """

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    architecture: str = Field(pattern=r"^(timm|torchvision):[A-Za-z0-9_.]+(\+[A-Za-z0-9_.]+)*$")
    classes: dict[int, str] = {0: "fractured", 1: "not fractured"}
    input: Input = Input()
    calibration: Calibration = Calibration()
    threshold: Threshold = Threshold()
    one_view: OneView | None = None
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    intended_use: str = ""
    limits: list[str] = []
    golden: dict[str, Probability] = {}
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        if self.classes != {0: "fractured", 1: "not fractured"}:
            raise ValueError("classes must be 0: fractured, 1: not fractured (the model contract)")
        return self

    @model_validator(mode="after")
    def _one_view_of_several(self) -> Self:
        if self.one_view and self.input.views == "whole":
            raise ValueError("one_view is for cards whose input.views has tiles")
        return self

    @classmethod
    def load(cls, weights: Path) -> Self:
        """Read the card of a weights file.

        Raises
        ------
        InvalidModel
            If the weights or the card are missing or the card is wrong.
        """
        path = card_path(weights)
        if not weights.is_file():
            raise InvalidModel(f"{weights}: there are no model weights here; set model.weights in config.yaml")
        if not path.is_file():
            raise InvalidModel(
                f"{weights}: its card {path.name} is missing. Weights without a card do not load, because nothing "
                "says how their input is made and what their outputs mean. `fracture-watch model import "
                f"{weights.name} --architecture torchvision:resnet18 --output NEW.pth` (or whatever its architecture "
                "is) writes both; docs/model.md shows how"
            )
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidModel(f"{path}: the model card cannot be read: {error.strerror}") from error
        except Exception as error:  # of YAML's many kinds, or no valid card
            raise InvalidModel(f"{path}: the model card is not valid: {brief(error)}") from error

    def save(self, weights: Path) -> None:
        """Write the card beside ``weights``.

        Raises
        ------
        WrongUse
            If it cannot be written there.
        """
        values = self.model_dump(mode="json") | {"classes": self.classes}
        # default_flow_style=None puts the innermost lists and mappings on one line each.
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
        try:
            write_whole(card_path(weights), text.encode())  # a card in use is whole at every moment
        except OSError as error:
            raise WrongUse(f"{card_path(weights)}: the model card cannot be written: {error.strerror}") from error

    @property
    def preprocessor(self) -> Preprocessor:
        """The picture stage that this card asks for."""
        views = self.input.views
        if views == "whole":
            return Preprocessor(self.input.size, self.input.resize)
        return Preprocessor(self.input.size, self.input.resize, views.tiles, views.long_side)

    @property
    def pool(self) -> Pool:
        """How the views' logits become one."""
        return "max" if self.input.views == "whole" else self.input.views.pool

    @property
    def facts(self) -> ModelFacts:
        """Name, version and identity. The identity covers every field that decides a result."""
        deciding = self.model_dump(mode="json", include={"architecture", "classes", "input", "calibration", "sha256"})
        deciding["threshold"] = self.threshold.value
        if self.input.views == "whole":
            del deciding["input"]["views"]  # cards were without it once; their models are still the same
        digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
        return ModelFacts(name=self.name, version=self.version, id=digest[:16])

    def in_force(self, threshold: float | None, one_view: bool) -> Self:
        """The card as settings change it; ``None`` and ``False`` change nothing.

        Raises
        ------
        InvalidModel
            As ``with_one_view``.
        WrongUse
            As ``with_threshold``.
        """
        card = self.with_one_view() if one_view else self
        return card if threshold is None else card.with_threshold(threshold)

    def with_threshold(self, value: float) -> Self:
        """The same model at another operating point: another identity.

        Raises
        ------
        WrongUse
            If ``value`` is not between 0 and 1.
        """
        if not 0 < value < 1:
            raise WrongUse(f"the threshold {value:g} is no probability between 0 and 1")
        return self.model_copy(update={"threshold": Threshold(value=value, chosen="model.threshold in the settings")})

    def with_chosen(self, threshold: Threshold, one_view: bool) -> Self:
        """The card with another threshold for good: of the whole picture alone, or of all views."""
        change = {"threshold": threshold}
        if one_view and self.one_view:
            return self.model_copy(update={"one_view": self.one_view.model_copy(update=change)})
        return self.model_copy(update=change)

    def with_one_view(self) -> Self:
        """The same weights on the whole picture alone: another identity.

        Raises
        ------
        InvalidModel
            If the card does not say how those scores are calibrated.
        """
        if self.input.views == "whole":
            return self
        if self.one_view is None:
            raise InvalidModel(
                f"{self.name} {self.version}: the card has no one_view section, so model.views cannot be whole; set it "
                "to card, or train the model again"
            )
        whole = self.input.model_copy(update={"views": "whole"})
        return self.model_copy(update={"input": whole, "one_view": None, **dict(self.one_view)})


def card_path(weights: Path) -> Path:
    """``saved_models/x.pth`` -> ``saved_models/x.yaml``."""
    return weights.with_suffix(".yaml")


def brief(error: Exception) -> str:
    """Which fields are wrong and why, on one line."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
    return str(error)
