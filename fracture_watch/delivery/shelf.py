"""DICOM objects that were built, kept beside the heat maps until their results go."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracture_watch.disk import write_whole
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
