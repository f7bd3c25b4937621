"""Bytes -> Radiograph: one path for training, serving and rendering."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Protocol

from fracture_watch.errors import Corrupt, NotAnImage, Unreadable, WrongUse
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.sniff import HEAD, sniff
from fracture_watch.records import ALL_GREYS, Facts, Format, Greys, Pixels, Radiograph

DEFAULT_LIMITS = Limits()


class Image(Protocol):
    """An opened file: facts first, pixels a frame at a time."""

    facts: Facts
    frames: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What was unusual but handled."""

    def pixels(self, frame: int) -> Pixels:
        """Display values of one frame, uint8, shape (rows, columns) or (rows, columns, 3)."""


def read(source: str | Path | bytes, frame: int = 0, limits: Limits = DEFAULT_LIMITS) -> Radiograph:
    """Decode one frame and render it as a viewer shows it.

    Parameters
    ----------
    source : path or bytes
        DICOM, PNG, JPEG, TIFF, WebP or BMP; recognised by content.
    frame : int
        Counted from 0.
    limits : Limits
        What the file may ask for.

    Returns
    -------
    Radiograph
        ``.pixels`` is uint8, shape (rows, columns) or (rows, columns, 3).

    Raises
    ------
    FractureWatchError
        With a ``code`` and a ``detail``: see ``fracture_watch.errors``.

    Notes
    -----
    This decodes in the calling process. The watcher and the web service decode in worker processes with limits.
    """
    content = source if isinstance(source, bytes) else load(Path(source), limits)
    image = open_image(content, limits, Scope())
    if not 0 <= frame < image.frames:
        raise WrongUse(f"there is no frame {frame}; the file has {image.frames}, counted from 0")
    pixels = image.pixels(frame)
    sha256 = hashlib.sha256(content).hexdigest()
    return Radiograph(pixels, sha256, frame, image.frames, image.facts, image.notes)


def load(path: Path, limits: Limits) -> bytes:
    """Read a regular file once, whole, after its size was checked.

    Raises
    ------
    Unreadable, TooLarge
    """
    try:
        # A FIFO would block here, and a device never end.
        with open(path, "rb", opener=_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise Unreadable("the path is no regular file; name a file with an image in it")
            limits.check_bytes(facts.st_size)
            return file.read(facts.st_size)
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {error.strerror or error}") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def open_image(content: bytes, limits: Limits, scope: Scope, greys: Greys = ALL_GREYS) -> Image:
    """Recognise the content and read its facts; DICOM files out of scope are refused here.

    ``greys`` is what is to be seen, as a viewer's window and level change it.
    """
    found = sniff(content[:HEAD])
    if not content:
        raise Corrupt("the file is empty")
    if found is Format.UNKNOWN:
        raise NotAnImage("the content is not DICOM, PNG, JPEG, TIFF, WebP or BMP")
    if found is Format.DICOM:
        from fracture_watch.imaging.dicom import DicomImage

        return DicomImage(content, limits, scope, greys)
    from fracture_watch.imaging.raster import RasterImage

    return RasterImage(content, limits, greys)
