"""DICOM -> display values: what a file is, whether it is for us, and its frames as a viewer shows them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID

from fracture_watch.errors import (
    Corrupt,
    FractureWatchError,
    NoPixelData,
    NotForPresentation,
    OutOfScope,
    OwnOutput,
    Truncated,
    UnsupportedTransferSyntax,
)
from fracture_watch.imaging import codecs
from fracture_watch.imaging.chain import chain_of
from fracture_watch.imaging.color import looked_up
from fracture_watch.imaging.dataset import check_whole, parse
from fracture_watch.imaging.frames import PIXELS, Frames
from fracture_watch.imaging.geometry import exposed, squared
from fracture_watch.imaging.grayscale import WORDS, by_table, eight_bits, render, with_greys
from fracture_watch.imaging.header import facts, of_frame, text
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.records import ALL_GREYS, OWN_MODEL_NAME, Facts, Greys, Pixels

_GRAY = ("MONOCHROME1", "MONOCHROME2")
_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")


class DicomImage:
    """A DICOM file that has passed every check that needs no pixel; ``greys`` is what is to be seen of it.

    Raises
    ------
    FractureWatchError
        With the facts that were known by then.
    """

    def __init__(self, content: bytes, limits: Limits, scope: Scope, greys: Greys = ALL_GREYS) -> None:
        codecs.register()
        self._limits = limits
        self._greys = greys
        self._notes: list[str] = []
        self.facts = Facts()
        try:
            with _sound("the DICOM header cannot be read"):
                self._header = parse(content, limits)
                self.facts = facts(self._header)
                check_whole(self._header)
                self._check_kind()
                self._check_scope(scope)
                self._check_syntax()
                self._photometric = self._known_photometric()
                self._frames = Frames(self._header, self._photometric, limits)
        except FractureWatchError as error:
            error.facts = self.facts
            raise
        self.frames = self._frames.count

    @property
    def notes(self) -> tuple[str, ...]:
        """What was unusual but handled, so far."""
        return tuple(dict.fromkeys(self._notes))

    def pixels(self, frame: int) -> Pixels:
        """Display values, uint8, shape (rows, columns) or (rows, columns, 3)."""
        with _sound(f"the pixel data cannot be decoded ({self._syntax.name})"):
            return self._displayed(frame)

    def _displayed(self, frame: int) -> Pixels:
        header = of_frame(self._header, frame)
        if self._photometric in _GRAY:
            chain, notes = chain_of(header, self._frames.stored, white_is_low=self._photometric == "MONOCHROME1")
            words, stored = self._frames.gray(frame)
            shown = render(words, stored, replace(chain, greys=self._greys))
            self._notes += notes
            if stored.coded_bits and not stored.signed:
                self._notes.append("signed codestream of unsigned values: raised by half its range")
        else:
            shown = with_greys(self._colors(frame), self._greys)
        shown, notes = exposed(shown, header)
        self._notes += notes
        shown, notes = squared(shown, header, self._limits)
        self._notes += notes
        return shown

    def _colors(self, frame: int) -> Pixels:
        if self._photometric == "PALETTE COLOR":
            words, stored = self._frames.gray(frame)
            if words.dtype.itemsize > 2:
                return looked_up(stored.of(words), self._header, stored.signed)
            table = looked_up(stored.of(WORDS), self._header, stored.signed)
            return by_table(words.view(f"u{words.dtype.itemsize}"), table)
        samples, stored, ybr = self._frames.colors(frame)
        shown = eight_bits(samples, stored)
        return convert_color_space(shown, "YBR_FULL", "RGB") if ybr else shown

    def _check_kind(self) -> None:
        header = self._header
        if text(header, "ManufacturerModelName") == OWN_MODEL_NAME:
            raise OwnOutput("this object was written by fracture_watch; it is not classified again")
        sop_class = UID(text(header, "SOPClassUID") or text(header.file_meta, "MediaStorageSOPClassUID") or "")
        known = sop_class.name != str(sop_class)
        has_pixels = any(keyword in header for keyword in PIXELS)
        if known and "Image" not in sop_class.name:  # a segmentation or a dose has pixel data, but no picture
            raise NoPixelData(f"the object is not an image ({sop_class.name})")
        if not has_pixels and (known or "Rows" in header or len(header) == 0):
            raise Truncated("the file ends before its pixel data; send it again")
        if not has_pixels and not sop_class:
            raise Corrupt("the file begins as DICOM does, but it has neither a SOP class nor an image")
        if not has_pixels:
            raise NoPixelData(f"the object has no image (SOP class {sop_class})")
        for said, raw in (
            ("PresentationIntentType is FOR PROCESSING", text(header, "PresentationIntentType") or ""),
            (f"the SOP class is {sop_class.name}", sop_class.name),
        ):
            if "FOR PROCESSING" in raw.upper():
                raise NotForPresentation(f"{said}: raw detector data; send the FOR PRESENTATION image")

    def _check_scope(self, scope: Scope) -> None:
        modality, body_part = self.facts.modality, self.facts.body_part
        for keyword, value, accepted, among in (
            ("Modality", modality, scope.has_modality(modality), scope.modalities),
            ("BodyPartExamined", body_part, scope.has_body_part(body_part), scope.body_parts),
        ):
            if value is None:
                self._notes.append(f"{keyword} missing")
            elif not accepted:
                message = f"{keyword} is {value!r}, which is not among the accepted ones ({', '.join(sorted(among))})"
                if scope.on_mismatch == "reject":
                    raise OutOfScope(f"{message}; see scope in config.yaml")
                self._notes.append(message)

    def _check_syntax(self) -> None:
        try:
            get_decoder(self._syntax)
        except NotImplementedError as error:
            raise UnsupportedTransferSyntax(
                f"the transfer syntax {self._syntax.name} ({self._syntax}) has no decoder here; convert the file, for "
                "example with dcmdjpeg or gdcmconv --raw"
            ) from error

    @property
    def _syntax(self) -> UID:
        return UID(self._header.file_meta.TransferSyntaxUID)

    def _known_photometric(self) -> str:
        photometric = text(self._header, "PhotometricInterpretation")
        if photometric not in _GRAY + _COLOR:
            raise Corrupt(
                f"PhotometricInterpretation is {photometric or 'missing'}, not one of {', '.join(_GRAY + _COLOR)}"
            )
        return str(photometric)


@contextmanager
def _sound(otherwise: str) -> Iterator[None]:
    """What is not ours and is raised in here is the file's fault: pydicom and the codecs raise many kinds on it.

    pydicom looks at a value when it is asked for, so this may be at any of them; what it warns of is not told.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (FractureWatchError, MemoryError):
        raise
    except Exception as error:
        detail = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise Corrupt(f"{otherwise}: {detail}") from error
