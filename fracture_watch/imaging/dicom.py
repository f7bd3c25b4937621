"""DICOM -> display values, by pydicom with imagecodecs."""

import io
import logging
import warnings
import zlib
from dataclasses import replace

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.filereader import _read_command_set_elements, _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

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
from fracture_watch.imaging.grayscale import Chain, Lut, StoredValues, Window, render
from fracture_watch.imaging.header import facts, integer, items, lut, number, text, windows
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.records import Pixels

OWN_MODEL_NAME = "fracture_watch"  # ManufacturerModelName of what this program writes
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GRAY = ("MONOCHROME1", "MONOCHROME2")
_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it would log becomes a detail or a note here


class DicomImage:
    """A DICOM file that has passed every check that needs no pixel.

    Raises
    ------
    FractureWatchError
        With the facts that were known by then.
    """

    def __init__(self, content: bytes, limits: Limits, scope: Scope) -> None:
        codecs.register()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom looks at a value, and warns of it, when it is asked for
            self._header = _parse(content, limits)
            self.facts = facts(self._header)
            self._notes: list[str] = []
            try:
                self._check_kind(scope)
                self._check_pixels(limits)
            except FractureWatchError as error:
                error.facts = self.facts
                raise

    @property
    def notes(self) -> tuple[str, ...]:
        """What was unusual but handled, so far."""
        return tuple(dict.fromkeys(self._notes))

    def pixels(self, frame: int) -> Pixels:
        """Display values, uint8, shape (rows, columns) or (rows, columns, 3)."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._gray(frame) if self._photometric in _GRAY else self._color(frame)
        except FractureWatchError:
            raise
        except MemoryError:
            raise
        except Exception as error:  # pydicom and the codecs raise many kinds on broken pixels
            detail = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
            raise Corrupt(f"the pixel data cannot be decoded ({self._syntax.name}): {detail}") from error

    def _check_kind(self, scope: Scope) -> None:
        header = self._header
        if text(header, "ManufacturerModelName") == OWN_MODEL_NAME:
            raise OwnOutput("this object was written by fracture_watch; it is not classified again")
        if not any(keyword in header for keyword in _PIXELS):
            sop_class = text(header, "SOPClassUID") or text(header.file_meta, "MediaStorageSOPClassUID")
            kind = UID(sop_class or "").name or "unknown SOP class"
            if "Rows" in header or "Image" in kind or len(header) == 0:
                raise Truncated("the file ends before its pixel data; send it again")
            raise NoPixelData(f"the object has no image ({kind})")
        if (text(header, "PresentationIntentType") or "").upper() == "FOR PROCESSING":
            raise NotForPresentation(
                "PresentationIntentType is FOR PROCESSING: raw detector data; send the FOR PRESENTATION image"
            )
        self._check_scope("Modality", self.facts.modality, scope.modalities, scope)
        self._check_scope("BodyPartExamined", self.facts.body_part, scope.body_parts, scope)

    def _check_scope(self, keyword: str, value: str | None, allowed: frozenset[str], scope: Scope) -> None:
        if value is None:
            self._notes.append(f"{keyword} missing")
        elif allowed and value.upper() not in allowed:
            message = f"{keyword} is {value!r}, which is not among the accepted ones ({', '.join(sorted(allowed))})"
            if scope.on_mismatch == "reject":
                raise OutOfScope(f"{message}; see scope in config.yaml")
            self._notes.append(message)

    def _check_pixels(self, limits: Limits) -> None:
        header = self._header
        self._photometric = text(header, "PhotometricInterpretation") or "absent"
        if self._photometric not in _GRAY + _COLOR:
            raise Corrupt(f"PhotometricInterpretation is {self._photometric!r}, which DICOM does not define here")
        samples = integer(header, "SamplesPerPixel")
        if samples not in (None, 1 if self._photometric in (*_GRAY, "PALETTE COLOR") else 3):
            raise Corrupt(
                f"PhotometricInterpretation {self._photometric} and SamplesPerPixel {samples} contradict each other"
            )
        rows, columns = self.facts.rows or 0, self.facts.columns or 0
        if rows < 1 or columns < 1:
            raise Corrupt(f"the image is {rows} rows x {columns} columns")
        limits.check_pixels(rows, columns)
        self.frames = max(1, integer(header, "NumberOfFrames") or 1)
        self._stored = self._stored_values()
        self._check_length(rows, columns)

    @property
    def _syntax(self) -> UID:
        return UID(self._header.file_meta.TransferSyntaxUID)

    def _stored_values(self) -> StoredValues:
        allocated = integer(self._header, "BitsAllocated") or 0
        stored = integer(self._header, "BitsStored") or allocated
        high = integer(self._header, "HighBit")
        high = stored - 1 if high is None else high
        if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
            raise Corrupt(f"BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} contradict each other")
        signed = integer(self._header, "PixelRepresentation") == 1
        # RLE packs the words as they stand, so they are read like native ones.
        return StoredValues(stored, high, signed, self._syntax.is_encapsulated and self._syntax != RLELossless)

    def _check_length(self, rows: int, columns: int) -> None:
        if self._syntax.is_encapsulated or "PixelData" not in self._header:
            return
        samples = integer(self._header, "SamplesPerPixel") or 1
        bits = rows * columns * samples * self.frames * (integer(self._header, "BitsAllocated") or 0)
        if self._photometric == "YBR_FULL_422":
            bits = bits * 2 // 3
        if len(self._header.PixelData) < bits // 8:
            raise Truncated(
                f"the pixel data are {len(self._header.PixelData):,} bytes, but the header declares {bits // 8:,}; "
                "send the file again"
            )

    def _gray(self, frame: int) -> Pixels:
        # Bytes in big-endian words come in another order, which pydicom knows.
        sizes = (16,) if self._syntax == ExplicitVRBigEndian else (8, 16)
        plain = not self._syntax.is_encapsulated and integer(self._header, "BitsAllocated") in sizes
        words = self._native_words(frame) if plain else self._decoded(frame)
        return render(words, self._stored, self._chain())

    def _native_words(self, frame: int) -> "np.ndarray[tuple[int, int], np.dtype[np.unsignedinteger]]":
        """The words as they stand in the file: the table reads them, so nothing is copied or masked."""
        rows, columns = self.facts.rows or 0, self.facts.columns or 0
        size = (integer(self._header, "BitsAllocated") or 0) // 8
        order = ">" if self._syntax == ExplicitVRBigEndian else "<"
        start = frame * rows * columns * size
        words = np.frombuffer(self._header.PixelData, f"{order}u{size}", rows * columns, start)
        return words.astype(words.dtype.newbyteorder("="), copy=False).reshape(rows, columns)

    def _decoded(self, frame: int, raw: bool = True) -> np.ndarray:
        decoder = get_decoder(self._syntax)
        plugin = codecs.LABEL if codecs.LABEL in decoder.available_plugins else ""
        # Grey words keep all their bits: the table reads those that count, and clips where pydicom would wrap.
        masked = not raw or (integer(self._header, "BitsAllocated") or 0) > 16
        array, _ = decoder.as_array(
            self._header,
            index=frame,
            raw=raw,
            decoding_plugin=plugin,
            correct_unused_bits=masked,  # type: ignore[arg-type]  # pydicom declares its options without Unpack
        )
        return array

    def _chain(self) -> Chain:
        header = self._header
        shape = (text(header, "PresentationLUTShape") or "").upper()
        slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
        luts = [lut(item, self._stored.signed) for item in items(header, "ModalityLUTSequence")]
        chain = Chain(
            slope=slope or 1.0,
            intercept=intercept or 0.0,
            modality_lut=next((table for table in luts if table), None),
            inverse=self._photometric == "MONOCHROME1" or shape == "INVERSE",
            padding=self._padding(),
        )
        least = chain.modality(np.array(self._stored.limits, dtype=np.float64)).min()
        return replace(chain, voi=self._voi(signed=bool(least < 0)))

    def _voi(self, signed: bool) -> Window | Lut | None:
        tables = [lut(item, signed) for item in items(self._header, "VOILUTSequence")]
        pairs = windows(self._header)
        choices: list[Window | Lut] = [table for table in tables if table] + [pair for pair in pairs if pair.valid]
        broken = len(tables) + len(pairs) - len(choices)
        if broken:
            self._notes.append(f"{broken} invalid window or VOI LUT ignored")
        if not choices:
            self._notes.append("no window: shown from least to greatest value")
            return None
        if len(choices) > 1:
            chosen = "VOI LUT" if isinstance(choices[0], Lut) else "window"
            self._notes.append(f"first {chosen} of {len(choices)} VOI transformations")
        return choices[0]

    def _padding(self) -> tuple[float, float] | None:
        value = number(self._header, "PixelPaddingValue")
        if value is None:
            return None
        limit = number(self._header, "PixelPaddingRangeLimit")
        other = value if limit is None else limit
        return min(value, other), max(value, other)

    def _color(self, frame: int) -> Pixels:
        array = self._decoded(frame, raw=False)
        bits = self._stored.bits_stored
        if self._photometric == "PALETTE COLOR":
            array, bits = self._looked_up(array)
        if bits > 8:
            array = np.clip(array >> (bits - 8), 0, 255)
        return np.ascontiguousarray(array[..., :3], dtype=np.uint8)

    def _looked_up(self, indices: np.ndarray) -> tuple[np.ndarray, int]:
        """Palette indices -> RGB and its bits (PS3.3 C.7.6.3.1.5)."""
        names = [f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")]
        tables = [table for name in names if (table := lut(self._header, self._stored.signed, name))]
        if len(tables) == 3:
            return np.stack([table(indices) for table in tables], axis=-1).astype(np.uint16), tables[0].bits
        array = apply_color_lut(indices, self._header)  # a segmented palette
        return array, array.dtype.itemsize * 8


def _parse(content: bytes, limits: Limits) -> Dataset:
    try:
        _guard_deflated(content, limits)
        header = dcmread(io.BytesIO(content), force=True)
        if len(header) == 0:  # what pydicom makes of pixel data without their delimiter; the facts are still there
            header = dcmread(io.BytesIO(content), force=True, stop_before_pixels=True)
    except FractureWatchError:
        raise
    except (EOFError, zlib.error) as error:
        raise Truncated(f"the DICOM file ends in the middle of an element: {error}; send it again") from error
    except RecursionError as error:
        raise Corrupt("the DICOM sequences are nested too deeply to be real") from error
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises many kinds on broken headers
        raise Corrupt(f"the DICOM header cannot be read: {error}") from error
    stated = text(header.file_meta, "TransferSyntaxUID")
    if stated is None:
        # PS3.10 wants it; what was written without it is nearly always the default syntax.
        implicit = header.original_encoding[0] is not False
        stated = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        header.file_meta.TransferSyntaxUID = stated
    syntax = UID(stated)
    try:
        get_decoder(syntax)
    except NotImplementedError as error:
        raise UnsupportedTransferSyntax(
            f"the transfer syntax {syntax.name} ({syntax}) has no decoder here; convert the file, for example "
            "with dcmdjpeg or gdcmconv --raw"
        ) from error
    return header


def _guard_deflated(content: bytes, limits: Limits) -> None:
    """Pydicom inflates a deflated data set whole: find out first how large it becomes.

    Its own functions say where that begins: a hostile file must not show one data set here and another there.
    """
    file = io.BytesIO(content)
    read_preamble(file, force=True)
    if _read_file_meta_info(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    _read_command_set_elements(file)
    inflater, pending, total = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
    try:
        while pending and not inflater.eof:
            total += len(inflater.decompress(pending, 1 << 20))
            limits.check_bytes(total)
            pending = inflater.unconsumed_tail
    except zlib.error as error:
        raise Corrupt(f"the deflated data set cannot be inflated: {error}") from error
    if not inflater.eof:
        raise Truncated("the deflated data set ends too early; send the file again")
