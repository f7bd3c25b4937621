"""What the sections of the settings are made of."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict, ValidationInfo


def from_folder(path: Path, info: ValidationInfo) -> Path:
    """Relative paths are relative to the configuration's folder, not to wherever the command was started."""
    folder: Path = (info.context or {}).get("folder", Path.cwd())
    return Path(os.path.normpath(folder / path.expanduser()))


Int = Annotated[int, Strict()]  # YAML has types: "5" is no number, and yes is none either
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]
ConfigPath = Annotated[Path, AfterValidator(from_folder)]


class Section(BaseModel):
    """Unknown keys are refused, and what is loaded does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True)
