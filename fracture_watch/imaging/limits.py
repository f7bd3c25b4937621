"""What one file may ask for, and which files are for the model at all."""

from dataclasses import dataclass
from typing import Literal

from fracture_watch.errors import TooLarge


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that are checked before memory is taken.

    ``max_pixels`` counts rows x columns of one frame; ``max_frames`` the frames of one file; ``max_bytes`` the
    file itself, and what a deflated data set may grow to.
    """

    max_pixels: int = 100_000_000
    max_frames: int = 16
    max_bytes: int = 512 * 1024 * 1024

    def check_pixels(self, rows: int, columns: int) -> None:
        """Raise ``TooLarge`` if a frame declares more pixels than allowed."""
        if rows * columns > self.max_pixels:
            raise TooLarge(
                f"{rows} x {columns} pixels are more than imaging.max_pixels ({self.max_pixels:,}); "
                "raise it if such images are expected"
            )

    def check_bytes(self, size: int) -> None:
        """Raise ``TooLarge`` if there are more bytes than allowed."""
        if size > self.max_bytes:
            raise TooLarge(
                f"{size:,} bytes are more than inbox.max_file_mb allows ({self.max_bytes:,} bytes); "
                "raise it if such files are expected"
            )


@dataclass(frozen=True, slots=True)
class Scope:
    """Which DICOM files the model is for, in capitals. An empty set means any; a missing value is accepted."""

    modalities: frozenset[str] = frozenset()
    body_parts: frozenset[str] = frozenset()
    on_mismatch: Literal["reject", "flag"] = "reject"

    def has_modality(self, value: str | None) -> bool:
        """Whether the model is for this Modality."""
        return not value or not self.modalities or value.upper() in self.modalities

    def has_body_part(self, value: str | None) -> bool:
        """Whether the model is for this body part. Devices write LEFT HAND or HAND_PA: to contain one is enough."""
        return not value or not self.body_parts or any(_letters(part) in _letters(value) for part in self.body_parts)


def _letters(value: str) -> str:
    return "".join(character for character in value.upper() if character.isalpha())
