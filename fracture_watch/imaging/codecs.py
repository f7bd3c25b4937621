"""imagecodecs as a pydicom decoder plug-in: one permissive package for every encapsulated transfer syntax."""

from collections.abc import Callable
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

LABEL = "imagecodecs"
_END_OF_CODESTREAM, _PADDING = b"\xff\xd9", 16
Frame: TypeAlias = NDArray[Any]
Decode: TypeAlias = Callable[[bytes, DecodeRunner], Frame]


def _jpeg(src: bytes, runner: DecodeRunner) -> Frame:
    """Process 1, 2 and 14, at 8 to 16 bit. Colour is converted by the codec, from what pydicom found it to be."""
    if runner.samples_per_pixel == 1:
        return np.asarray(imagecodecs.jpeg8_decode(src))
    stored_as = "RGB" if runner.photometric_interpretation == PhotometricInterpretation.RGB else "YCBCR"
    frame = imagecodecs.jpeg8_decode(src, colorspace=stored_as, outcolorspace="RGB")
    runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    return np.asarray(frame)


def _jpeg_ls(src: bytes, runner: DecodeRunner) -> Frame:
    return np.asarray(imagecodecs.jpegls_decode(src))


def _jpeg_2000(src: bytes, runner: DecodeRunner) -> Frame:
    if _END_OF_CODESTREAM not in src[-_PADDING:]:  # which some writers leave out and OpenJPEG insists on
        src += _END_OF_CODESTREAM
    return _undone_colour_transform(np.asarray(imagecodecs.jpeg2k_decode(src)), runner)


def _htj2k(src: bytes, runner: DecodeRunner) -> Frame:
    return _undone_colour_transform(np.asarray(imagecodecs.htj2k_decode(src)), runner)


def _rle(src: bytes, runner: DecodeRunner) -> Frame:
    samples, shape = runner.samples_per_pixel, (runner.rows, runner.columns)
    dtype = np.dtype(f"<u{runner.bits_allocated // 8}")
    size = samples * shape[0] * shape[1]
    # Segments may say a little too much, by what pads them to an even length; never many times as much.
    data = imagecodecs.dicomrle_decode(src, dtype, out=2 * size * dtype.itemsize)
    planes = np.frombuffer(data, dtype)[:size].reshape(samples, *shape)
    return planes[0] if samples == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def _undone_colour_transform(frame: Frame, runner: DecodeRunner) -> Frame:
    if runner.photometric_interpretation in (
        PhotometricInterpretation.YBR_ICT,
        PhotometricInterpretation.YBR_RCT,
    ):  # the codec returns RGB
        runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    return frame


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
    _rle: imagecodecs.dicomrle_version,
}
DECODER_DEPENDENCIES = dict.fromkeys(_DECODE, ("imagecodecs",))  # pydicom's plug-in interface


def is_available(syntax: str) -> bool:
    """Part of pydicom's plug-in interface."""
    return syntax in _DECODE


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Part of pydicom's plug-in interface: one encoded frame -> its samples, colour by pixel."""
    frame = _DECODE[runner.transfer_syntax](src, runner)
    expected = (runner.rows, runner.columns)
    if frame.shape[:2] != expected:
        raise ValueError(f"the compressed picture is {frame.shape[:2]}, but the header says {expected}")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", frame.itemsize * 8)
    return frame.tobytes()


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
