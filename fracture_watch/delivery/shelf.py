"""DICOM objects that were built, kept beside the heat maps until their results go."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracture_watch.errors import StorageUnavailable
from fracture_watch.records import OBJECTS, Kind


@dataclass(frozen=True, slots=True)
class Shelf:
    """Objects in a folder, named by content, model and kind: the same result again is the same file."""

    folder: Path

    def path(self, kind: Kind, sha256: str, model_id: str) -> Path:
        """Where an object is, or would be."""
        return self.folder / sha256[:2] / f"{sha256}-{model_id}.{kind}.dcm"

    def of(self, kind: Kind, row: Mapping[str, Any]) -> Path:
        """The same for a row of the view ``results``."""
        return self.path(kind, row["sha256"], row["model_id"])

    def all_of(self, sha256: str, model_id: str) -> list[Path]:
        """Every object that a result may have."""
        return [self.path(kind, sha256, model_id) for kind in OBJECTS]

    def put(self, kind: Kind, sha256: str, model_id: str, content: bytes) -> None:
        """Keep one; it is on the disk when this returns.

        Raises
        ------
        StorageUnavailable
            If the folder cannot be written.
        """
        path = self.path(kind, sha256, model_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise StorageUnavailable(f"the DICOM object {path} cannot be written: {error.strerror}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all, and on the disk when this returns.

    One temporary name an object, so that what a crash left is used up by the next attempt.
    """
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
