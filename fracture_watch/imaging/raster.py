"""PNG, JPEG, TIFF, WebP and BMP -> display values, by Pillow."""

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from fracture_watch.errors import Corrupt, FractureWatchError, TooLarge, Truncated
from fracture_watch.imaging.grayscale import level_table, with_greys
from fracture_watch.imaging.limits import Limits
from fracture_watch.imaging.streams import is_whole_jpeg
from fracture_watch.imaging.whole import ENDED_TOO_EARLY, check_png, check_tiff, mark_png
from fracture_watch.records import ALL_GREYS, Facts, Greys, Pixels

_UNSIGNED, _SIGNED = 1, 2  # TIFF's SampleFormat
_OS2_HEADER = 12  # bytes of a bitmap's header, in which numbers are shorter
_STEPS = {"L;2": 85, "L;4": 17}  # from one grey of a PNG to the next, by Pillow's name of how it is stored
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")


class RasterImage:
    """A picture file. Only its first image counts; more are noted. ``greys`` is what is to be seen of it.

    Raises
    ------
    Corrupt, Truncated, TooLarge
    """

    frames = 1

    def __init__(self, content: bytes, limits: Limits, greys: Greys = ALL_GREYS) -> None:
        self._greys = greys
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's bomb warning: the limit below is ours
                image = Image.open(io.BytesIO(content), formats=_FORMATS)
                limits.check_pixels(image.height, image.width)
                _check(content, image)
                self._notes = _notes(image)
                _load(content, image)  # what is wrong with the picture itself is found here
                self._pixels = self._displayed(image)
        except (FractureWatchError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise TooLarge(f"the picture declares too many pixels: {error}") from error
        except Exception as error:  # Pillow's parsers raise many kinds on broken content
            kind = Truncated if "truncated" in str(error).lower() or _is_cut_off(content) else Corrupt
            if isinstance(error, UnidentifiedImageError):
                raise kind("the first bytes are a picture's, but the rest is not readable as one") from error
            raise kind(f"the picture cannot be decoded: {error}; send it again from its source") from error
        self.facts = Facts(rows=self._pixels.shape[0], columns=self._pixels.shape[1])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was unusual but handled."""
        return tuple(self._notes)

    def pixels(self, frame: int) -> Pixels:
        """Display values, uint8, shape (rows, columns) or (rows, columns, 3)."""
        return self._pixels

    def _displayed(self, image: Image.Image) -> Pixels:
        tags = getattr(image, "tag_v2", {})
        white_is_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0  # which Pillow inverts up to 8 bit
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        kind = tags.get(ExifTags.Base.SampleFormat, (_UNSIGNED,))[0]
        clear = image.info.get("transparency")
        image = self._upright(image)
        if image.mode.startswith("I;16"):  # 12-bit TIFF, too
            values = np.asarray(image)
            shown = _scaled(values, self._greys, 1 << min(bits, 16), inverse=white_is_zero)
            return np.where(values == clear, np.uint8(0), shown) if isinstance(clear, int) else shown
        # Pillow reads 32-bit samples without a sign as if they had one, and 8-bit ones with a sign as if they had none.
        as_stored = {("I", 32, _UNSIGNED): np.uint32, ("L", 8, _SIGNED): np.int8}.get((image.mode, bits, kind))
        if image.mode in ("I", "F") or as_stored:
            values = np.asarray(image).view(as_stored) if as_stored else np.asarray(image)
            return _stretched(values.astype(np.float64), self._greys, inverse=white_is_zero)
        return with_greys(_rgb_or_grey(image), self._greys)

    def _upright(self, image: Image.Image) -> Image.Image:
        try:
            return ImageOps.exif_transpose(image)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  as above
            self._notes.append("broken Exif data ignored")
            return image


def _notes(image: Image.Image) -> list[str]:
    if image.format == "TIFF":  # which has no count; to follow all its pages may take minutes
        try:
            image.seek(1)
        except EOFError:
            return []
        image.seek(0)
        return ["first of several images in the file"]
    count = getattr(image, "n_frames", 1)
    return [f"first of {count} images in the file"] if count > 1 else []


def _check(content: bytes, image: ImageFile.ImageFile) -> None:
    if _is_cut_off(content):  # of which Pillow may say nothing, and leave the rest grey
        raise Truncated(ENDED_TOO_EARLY)
    if image.format == "TIFF":
        check_tiff(content, getattr(image, "tag_v2", {}))
    elif image.format == "BMP":
        _check_palette(content, image)


def _check_palette(content: bytes, image: ImageFile.ImageFile) -> None:
    """Pillow takes a palette of greys for one of as many bits as it has colours, whatever the header says."""
    short = int.from_bytes(content[14:18], "little") == _OS2_HEADER
    bits = int.from_bytes(content[24:26] if short else content[28:30], "little")
    if image.tile[0].codec_name == "raw" and bits != {"1": 1, "L": 8}.get(image.mode, bits):
        raise Corrupt(f"a bitmap of {bits} bits with so few greys cannot be read here; save it as PNG")


def _load(content: bytes, image: ImageFile.ImageFile) -> None:
    if image.format != "PNG":
        image.load()
        return
    if isinstance(image.info.get("transparency"), int):  # Pillow scales the greys of 2 and 4 bits, but not this one
        image.info["transparency"] *= _STEPS.get(str(image.tile[0].args), 1)
    mark_png(image)
    image.load()
    check_png(content, image)


def _is_cut_off(content: bytes) -> bool:
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content
    if content[8:12] == b"WEBP":
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    return content[:2] == b"\xff\xd8" and (b"\xff\xd9" not in content or not is_whole_jpeg(content))


def _rgb_or_grey(image: Image.Image) -> Pixels:
    if image.mode == "La":  # whose greys are those over black
        return np.asarray(image.getchannel(0))
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
        # All three channels are the grey; a conversion would weigh and round them.
        return np.asarray(image.getchannel("R") if mode == "L" else image.convert("RGB"))
    return np.asarray(image.convert(mode))


def _scaled(values: NDArray[Any], greys: Greys, levels: int, *, inverse: bool) -> Pixels:
    table = level_table(levels, greys)
    return (table[::-1] if inverse else table).take(values.astype(np.uint16, copy=False), mode="clip")


def _stretched(values: NDArray[np.float64], greys: Greys, *, inverse: bool) -> Pixels:
    """32-bit pictures have no agreed range; viewers show them from their least to their greatest value."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise Corrupt("the picture has no finite pixel values")
    low, high = float(finite.min()), float(finite.max())
    span = (high - low) or 1.0
    grey = (np.nan_to_num(values, nan=high if inverse else low) - low) / span
    grey = greys(1 - grey if inverse else grey)
    return np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
