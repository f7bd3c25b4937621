"""imagecodecs as a pydicom decoder plug-in: one permissive package for every encapsulated transfer syntax."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from fracture_watch.errors import Truncated
from fracture_watch.imaging.streams import Frame, rle_segments

LABEL = "imagecodecs"
Samples: TypeAlias = NDArray[Any]
Decode: TypeAlias = Callable[[bytes, Frame, str | None], Samples]

_HOOK = threading.Lock()
_END_OF_CODESTREAM, _PADDING = b"\xff\xd9", 16
_TRANSFORMED = (PhotometricInterpretation.YBR_ICT, PhotometricInterpretation.YBR_RCT)
LOSSLESS_JPEG = (uid.JPEGLossless, uid.JPEGLosslessSV1)  # in which libjpeg-turbo converts no colours


def decode(encoded: bytes, syntax: uid.UID, frame: Frame, stored_as: str | None = None) -> Samples:
    """One compressed frame -> its samples, shape (rows, columns) or (rows, columns, 3).

    ``frame`` is what the data set says of it, with BitsAllocated. ``stored_as`` is RGB or YCBCR where JPEG has colours;
    they come back as RGB.
    """
    samples = _DECODE[syntax](encoded, frame, stored_as)
    if samples.shape[:2] != (frame.rows, frame.columns):
        raise ValueError(f"the decoder found {samples.shape[:2]} pixels, but the header says {frame}")
    return samples


def _jpeg(encoded: bytes, frame: Frame, stored_as: str | None) -> Samples:
    """Process 1, 2 and 14, at 8 to 16 bit."""
    if stored_as is None:
        return np.asarray(imagecodecs.jpeg8_decode(encoded))
    return np.asarray(imagecodecs.jpeg8_decode(encoded, colorspace=stored_as, outcolorspace="RGB"))


def _jpeg_ls(encoded: bytes, frame: Frame, stored_as: str | None) -> Samples:
    return np.asarray(imagecodecs.jpegls_decode(encoded))


def _jpeg_2000(encoded: bytes, frame: Frame, stored_as: str | None) -> Samples:
    if _END_OF_CODESTREAM not in encoded[-_PADDING:]:  # which some writers leave out and OpenJPEG insists on
        encoded += _END_OF_CODESTREAM
    return np.asarray(imagecodecs.jpeg2k_decode(encoded))


def _htj2k(encoded: bytes, frame: Frame, stored_as: str | None) -> Samples:
    with _heard("htj2k") as errors:
        samples = np.asarray(imagecodecs.htj2k_decode(encoded))
    if errors:
        raise ValueError(str(errors[0]))
    return samples


@contextmanager
def _heard(module: str) -> Iterator[list[BaseException]]:
    """What an extension module meets where it cannot raise: Python tells only a hook of it."""
    met: list[BaseException] = []

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if module in str(unraisable.object) and unraisable.exc_value:
            met.append(unraisable.exc_value)
        else:
            before(unraisable)

    with _HOOK:
        before, sys.unraisablehook = sys.unraisablehook, hook
        try:
            yield met
        finally:
            sys.unraisablehook = before


def _rle(encoded: bytes, frame: Frame, stored_as: str | None) -> Samples:
    """PS3.5 G.2 and G.5: each byte of a sample is a segment of its own, the most significant first."""
    size, width = frame.rows * frame.columns, frame.bits // 8
    planes = np.empty((size, frame.samples, width), np.uint8)
    for number, segment in enumerate(rle_segments(encoded)):
        plane = _unpacked(segment, 2 * size)
        if len(plane) < size:
            raise Truncated(f"an RLE segment holds {len(plane):,} of {size:,} bytes; send the file again")
        planes[:, number // width, width - 1 - number % width] = plane[:size]
    samples = planes.view(f"<u{width}").reshape(frame.rows, frame.columns, frame.samples)
    return samples[..., 0] if frame.samples == 1 else samples


def _unpacked(segment: bytes, most: int) -> Samples:
    """The bytes of a segment, which may be a little too many, by what pads it; never many times as many."""
    try:
        return np.frombuffer(imagecodecs.packbits_decode(segment, out=most), np.uint8)
    except imagecodecs.PackbitsError as error:
        raise ValueError(
            "an RLE segment is damaged, or holds several frames, as where fragments outnumber NumberOfFrames and there "
            "is no offset table"
        ) from error


_DECODE: dict[uid.UID, Decode] = {
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: _jpeg,
    uid.JPEGLosslessSV1: _jpeg,
    uid.JPEGLSLossless: _jpeg_ls,
    uid.JPEGLSNearLossless: _jpeg_ls,
    uid.JPEG2000Lossless: _jpeg_2000,
    uid.JPEG2000: _jpeg_2000,
    uid.HTJ2KLossless: _htj2k,
    uid.HTJ2KLosslessRPCL: _htj2k,
    uid.HTJ2K: _htj2k,
    uid.RLELossless: _rle,
}
_VERSIONS: dict[Decode, Callable[[], str]] = {
    _jpeg: imagecodecs.jpeg8_version,
    _jpeg_ls: imagecodecs.jpegls_version,
    _jpeg_2000: imagecodecs.jpeg2k_version,
    _htj2k: imagecodecs.htj2k_version,
    _rle: imagecodecs.packbits_version,
}
UNCOMPRESSED = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
SYNTAXES: tuple[uid.UID, ...] = (*UNCOMPRESSED, *_DECODE)  # every transfer syntax that is read here
DECODER_DEPENDENCIES = dict.fromkeys(_DECODE, ("imagecodecs",))  # pydicom's plug-in interface


def is_available(syntax: str) -> bool:
    """Part of pydicom's plug-in interface."""
    return syntax in _DECODE


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Part of pydicom's plug-in interface, which knows what the colours of a frame really are."""
    frame = Frame(runner.rows, runner.columns, runner.samples_per_pixel, runner.bits_allocated)
    photometric = runner.photometric_interpretation
    stored_as = None
    as_stored = photometric == PhotometricInterpretation.RGB or runner.transfer_syntax in LOSSLESS_JPEG
    if frame.samples == 3:
        stored_as = "RGB" if as_stored else "YCBCR"
    samples = decode(src, runner.transfer_syntax, frame, stored_as)
    converted = _DECODE[runner.transfer_syntax] is _jpeg and stored_as == "YCBCR"
    if converted or photometric in _TRANSFORMED:  # the codec returned RGB
        runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", samples.itemsize * 8)
    return samples.tobytes()


def library(syntax: str) -> str | None:
    """The library that decodes this syntax, with its version; ``None`` where no codec is needed."""
    decode = _DECODE.get(uid.UID(syntax))
    return None if decode is None else str(_VERSIONS[decode]())


def register() -> None:
    """Put imagecodecs in front of pydicom's decoders. Doing it again changes nothing."""
    for syntax in _DECODE:
        decoder = get_decoder(syntax)
        if LABEL not in decoder.available_plugins:
            decoder.add_plugin(LABEL, (__name__, "decode_frame"))
