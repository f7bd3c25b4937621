"""``config.yaml`` and the environment -> Settings. Read by ``assembly`` and ``cli`` only."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, SecretStr, ValidationError, model_validator

from fracture_watch.config.base import Bool, ConfigPath, Float, Int, Section
from fracture_watch.config.complaints import complaint, line_of, repeated_keys
from fracture_watch.config.database import DatabaseSettings
from fracture_watch.config.destinations import DestinationSettings, require_names
from fracture_watch.config.dicom import DicomSettings
from fracture_watch.config.engine import EngineSettings
from fracture_watch.config.receiving import ReceiveSettings
from fracture_watch.config.webhooks import HookSettings, WebhookSettings
from fracture_watch.errors import InvalidSettings
from fracture_watch.records import LOOPBACK

__all__ = [
    "DestinationSettings",
    "DicomSettings",
    "HookSettings",
    "LoggingSettings",
    "ReceiveSettings",
    "Settings",
    "WebhookSettings",
    "load_settings",
    "origins",
]

_PREFIX = "FRACTURE_WATCH__"
_SHORTEST_SALT = 16  # characters

_BODY_PARTS = (  # limbs, hip and shoulder are what the shipped model was trained on
    *"HAND FINGER THUMB WRIST FOREARM RADIUS ULNA ELBOW HUMERUS ARM SHOULDER CLAVICLE SCAPULA HIP PELVIS FEMUR".split(),
    *"THIGH KNEE PATELLA LEG TIBIA FIBULA TIBFIB ANKLE CALCANEUS HEEL FOOT TOE EXTREMITY LIMB EXM".split(),
)


class InboxSettings(Section):
    """What is watched, and when a file counts as ready."""

    path: ConfigPath = Path("inbox")
    recursive: Bool = True
    settle_seconds: Float = Field(2.0, ge=0, le=3600)
    give_up_seconds: Float = Field(600.0, gt=0)
    rescan_seconds: Float = Field(30.0, ge=1)
    polling: Literal["auto", "always", "never"] = "auto"
    ignore: tuple[str, ...] = ()
    max_file_mb: Int = Field(512, ge=1)


class FilingSettings(Section):
    """Where files go when their result is recorded."""

    processed: Literal["move", "keep", "delete"] = "move"
    processed_dir: ConfigPath = Path("processed")
    quarantine_dir: ConfigPath = Path("quarantine")
    artefacts_dir: ConfigPath = Path("artefacts")
    receipts: Bool = False
    min_free_mb: Int = Field(200, ge=0)


class ImagingSettings(Section):
    """Limits for one file, and how many decoding processes there are (0: one per core)."""

    max_pixels: Int = Field(100_000_000, ge=1)
    max_frames: Int = Field(16, ge=1)
    timeout_seconds: Float = Field(60.0, gt=0)
    memory_mb: Int = Field(2048, ge=64, le=1 << 20)
    workers: Int = Field(0, ge=0, le=256)


class ScopeSettings(Section):
    """Which DICOM files are for the model; an empty list accepts any.

    Modality has to be one of ``modalities``; BodyPartExamined has to contain one of ``body_parts``.
    """

    modalities: tuple[str, ...] = ("CR", "DX", "RG", "RF", "XA", "OT")
    body_parts: tuple[str, ...] = _BODY_PARTS
    on_mismatch: Literal["reject", "flag"] = "reject"


class ModelSettings(Section):
    """Which weights run, where, and at which operating point."""

    weights: ConfigPath = Path("saved_models/fracture_best_model.pth")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    runtime: Literal["torch", "openvino"] = "torch"
    threshold: Float | None = Field(None, gt=0, lt=1)
    batch_size: Int = Field(16, ge=1, le=1024)
    views: Literal["card", "whole"] = "card"
    heatmaps: Literal["positives", "all", "none"] = "positives"

    @property
    def one_view(self) -> bool:
        """Whether the whole picture alone is classified, whatever the card asks for."""
        return self.views == "whole"


class WebSettings(Section):
    """The HTTP service. Beyond loopback it wants a token."""

    host: str = "127.0.0.1"
    port: Int = Field(5000, ge=0, le=65535)
    token: SecretStr | None = None
    max_upload_mb: Int = Field(64, ge=1)

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.host not in LOOPBACK and not (self.token and self.token.get_secret_value()):
            raise ValueError(f"host {self.host} is reachable from other machines, so web.token must be set")
        return self


class PrivacySettings(Section):
    """What becomes of identifiers: of patients, accession numbers, free text, paths; under ``drop`` of UIDs, too."""

    identifiers: Literal["keep", "hash", "drop"] = "keep"
    salt: SecretStr | None = None

    @model_validator(mode="after")
    def _salted(self) -> Self:
        salt = self.salt.get_secret_value() if self.salt else ""
        if self.identifiers == "hash" and len(salt) < _SHORTEST_SALT:
            raise ValueError(
                f"identifiers: hash needs a secret salt of at least {_SHORTEST_SALT} characters, or anybody could "
                "find a patient by trying numbers. Make one with "
                "`python3 -c 'import secrets; print(secrets.token_hex(32))'`, "
                f"put it into the environment as {_PREFIX}PRIVACY__SALT, and keep a copy: with another one the same "
                "patient gets another hash"
            )
        return self


class LoggingSettings(Section):
    """How the log is written, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(Section):
    """All settings, checked."""

    inbox: InboxSettings = InboxSettings.model_construct()
    filing: FilingSettings = FilingSettings.model_construct()
    imaging: ImagingSettings = ImagingSettings.model_construct()
    scope: ScopeSettings = ScopeSettings.model_construct()
    model: ModelSettings = ModelSettings.model_construct()
    database: DatabaseSettings = DatabaseSettings.model_construct()
    engine: EngineSettings = EngineSettings.model_construct()
    web: WebSettings = WebSettings.model_construct()
    webhooks: WebhookSettings = WebhookSettings.model_construct()
    dicom: DicomSettings = DicomSettings.model_construct()
    privacy: PrivacySettings = PrivacySettings.model_construct()
    logging: LoggingSettings = LoggingSettings.model_construct()

    @model_validator(mode="after")
    def _folders_apart(self) -> Self:
        """What is written must not land in the inbox, or it would be taken in again; what is kept is in one place."""
        inbox = "inbox.path", self.inbox.path
        processed = "filing.processed_dir", self.filing.processed_dir
        quarantine = "filing.quarantine_dir", self.filing.quarantine_dir
        others = [("filing.artefacts_dir", self.filing.artefacts_dir), ("database.url", self.database.path)]
        others += [(f"dicom.destinations, {d.name}", d.folder) for d in self.dicom.destinations]
        inside = [(*written, *inbox) for written in (processed, quarantine, *others)]
        # What `prune` and `retry` find in a folder is what was filed there.
        inside += [(*inbox, *processed), (*inbox, *quarantine), (*processed, *quarantine), (*quarantine, *processed)]
        for key, folder, around, place in inside:
            if folder and _real(folder).is_relative_to(_real(place)):
                raise ValueError(f"{key} ({folder}) lies inside {around} ({place}); put it elsewhere")
        return self

    @model_validator(mode="after")
    def _named(self) -> Self:
        require_names(self.dicom.destinations, self.privacy.identifiers)
        return self


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read ``config.yaml``; environment variables ``FRACTURE_WATCH__SECTION__KEY`` win over it.

    Raises
    ------
    InvalidSettings
        Naming every wrong key with its path and line.
    """
    try:
        content = path.read_text(encoding="utf-8")
        tree = yaml.compose(content, Loader=yaml.SafeLoader)
        values = yaml.safe_load(content) or {}
        complaints = list(repeated_keys(tree, path))
    except OSError as error:
        raise InvalidSettings(f"{path}: cannot be read: {error.strerror}; name the file with --config") from error
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"{path}: is not UTF-8 text") from error
    except RecursionError as error:
        raise InvalidSettings(f"{path}: an alias leads back to where it stands, or lists lie too deep") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        raise InvalidSettings(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InvalidSettings(f"{path}: must hold sections such as inbox: and model:")
    merged, from_environment = _with_environment(values, environment)
    try:
        settings = Settings.model_validate(merged, context={"folder": path.absolute().parent})
    except ValidationError as error:
        for problem in error.errors():
            said = complaint(problem)
            key = tuple(str(part) for part in problem["loc"])
            # What two sections have to do with one another is said of the whole: it begins with the key.
            place = key or tuple(said.partition(" ")[0].rstrip(",").split("."))
            where = from_environment.get(place[:2]) or f"{path}, {line_of(tree, place)}"
            complaints.append(f"{where}: {'.'.join(key) or 'settings'}: {said}")
    if complaints:
        raise InvalidSettings("; ".join(complaints))
    return settings


def _real(path: Path) -> Path:
    """Where links lead."""
    return Path(os.path.realpath(path))


def origins(path: Path, environment: Mapping[str, str] = os.environ) -> dict[tuple[str, str], str]:
    """Where each setting that is not a default came from, by section and key."""
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    _, from_environment = _with_environment(values, environment)
    from_file = {(section, key): str(path) for section, keys in values.items() for key in keys or {}}
    return from_file | {(key[0], key[1]): name for key, name in from_environment.items() if len(key) == 2}


def _with_environment(
    values: dict[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The file's values under the environment's, every section present, and which variable set which key."""
    # An absent section is an empty one, so that its defaults are validated like everything else.
    merged: dict[str, Any] = {name: {} for name in Settings.model_fields} | {
        name: {} if section is None else section for name, section in values.items()
    }
    names: dict[tuple[str, ...], str] = {}
    for name, text in environment.items():
        if name.startswith(_PREFIX):
            section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
            if isinstance(merged.setdefault(section, {}), dict):
                merged[section] = merged[section] | {key: _typed(section, key, text)}
            names[section, key] = name
            names[section,] = name
    return merged, names


def _typed(section: str, key: str, text: str) -> Any:
    """A variable's value: text where the setting is text, else what YAML makes of it."""
    fields = Settings.model_fields
    model = fields[section].annotation if section in fields else None
    field = model.model_fields.get(key) if isinstance(model, type) and issubclass(model, Section) else None
    if field is not None and field.annotation in (str, Path, SecretStr | None):
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text  # and validation says what it should have been
