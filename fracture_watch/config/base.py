"""What the sections of the settings are made of."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AllowInfNan, BaseModel, ConfigDict, Strict, ValidationInfo


def from_folder(path: Path, info: ValidationInfo) -> Path:
    """Relative paths are relative to the configuration's folder, not to wherever the command was started."""
    folder: Path = (info.context or {}).get("folder", Path.cwd())
    try:
        return Path(os.path.normpath(folder / path.expanduser()))
    except RuntimeError as error:  # which pydantic would let through
        raise ValueError(f"{path}: {error}") from error


def _ae_title(title: str) -> str:
    """PS3.5 6.2: up to 16 characters of ASCII, of which spaces at either end do not count."""
    title = title.strip(" ")
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("must be an AE title: 1 to 16 ASCII characters, no backslash")
    return title


Int = Annotated[int, Strict()]  # YAML has types: "5" is no number, and yes is none either
Float = Annotated[float, Strict(), AllowInfNan(False)]
Bool = Annotated[bool, Strict()]
ConfigPath = Annotated[Path, AfterValidator(from_folder)]
AeTitle = Annotated[str, AfterValidator(_ae_title)]


class Section(BaseModel):
    """Unknown keys are refused, and what is loaded does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
