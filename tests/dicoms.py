"""DICOM files built in code: sound DX objects by default, broken ones by override."""

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
DX = uid.DigitalXRayImageStorageForPresentation


def derived_uid(*parts: object) -> str:
    """The same UID for the same parts, below the root of UUID-derived UIDs."""
    return f"2.25.{int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:15], 'big')}"


def dicom(
    pixels: NDArray[Any] | None,
    *,
    syntax: str = ExplicitVRLittleEndian,
    photometric: str = "MONOCHROME2",
    seed: int = 1,
    encoded: Sequence[bytes] | None = None,
    **elements: Any,
) -> bytes:
    """A DX file.

    ``pixels`` is (rows, columns) or (frames, rows, columns), with a last axis of 3 where ``photometric`` is a colour
    one; ``None`` leaves out everything about the picture. ``encoded`` are its frames as they shall stand in the file.
    ``elements`` add, replace, or (given as ``None``) leave out elements, by keyword.
    """
    header = _patient(seed)
    if pixels is not None:
        _add_picture(header, pixels, UID(syntax), photometric, elements, encoded)
    for keyword, value in elements.items():
        if value is not None:
            setattr(header, keyword, value)
        elif keyword in header:
            delattr(header, keyword)
    return written(header, syntax)


def written(header: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The bytes of a whole file with preamble and File Meta."""
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.file_meta.MediaStorageSOPClassUID = header.get("SOPClassUID", DX)
    header.file_meta.MediaStorageSOPInstanceUID = header.get("SOPInstanceUID", "1.2.3")
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def bare(content: bytes, *, implicit: bool = False) -> bytes:
    """The data set of a file alone, without preamble and File Meta, as some old devices write it."""
    from pydicom import dcmread

    header = dcmread(io.BytesIO(content))
    buffer = io.BytesIO()
    del header.file_meta
    header.preamble = None
    header.save_as(buffer, implicit_vr=implicit, little_endian=True)
    return buffer.getvalue()


def _patient(seed: int) -> Dataset:
    header = Dataset()
    header.SOPClassUID = DX
    header.SOPInstanceUID = derived_uid("instance", seed)
    header.StudyInstanceUID = derived_uid("study", seed)
    header.SeriesInstanceUID = derived_uid("series", seed)
    header.PatientID, header.PatientName = f"P{seed}", f"Test^Patient {seed}"
    header.AccessionNumber, header.StudyDate = f"A{seed}", "20240229"
    header.Modality, header.BodyPartExamined = "DX", "HAND"
    header.PresentationIntentType = "FOR PRESENTATION"
    return header


def _add_picture(
    header: Dataset,
    pixels: NDArray[Any],
    syntax: UID,
    photometric: str,
    elements: dict[str, Any],
    encoded: Sequence[bytes] | None,
) -> None:
    color = photometric in _COLOR
    frames = pixels if pixels.ndim == (4 if color else 3) else pixels[None]
    header.NumberOfFrames, header.Rows, header.Columns = frames.shape[:3]
    header.SamplesPerPixel, header.PhotometricInterpretation = (3 if color else 1), photometric
    header.BitsAllocated = header.BitsStored = pixels.dtype.itemsize * 8
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    if color:
        header.PlanarConfiguration = elements.get("PlanarConfiguration", 0)
    bits = elements.get("BitsStored") or header.BitsStored
    header.HighBit = bits - 1
    if syntax.is_encapsulated:
        header.PixelData = encapsulate(list(encoded or (_ENCODE[syntax](frame, bits, photometric) for frame in frames)))
    else:
        planar = color and header.PlanarConfiguration == 1
        ordered = np.moveaxis(frames, 3, 1) if planar else frames
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        data = ordered.astype(ordered.dtype.newbyteorder(order)).tobytes()
        header.PixelData = data + bytes(len(data) % 2)
    header["PixelData"].VR = "OW" if header.BitsAllocated > 8 and not syntax.is_encapsulated else "OB"


def _words(frame: NDArray[Any], bits: int) -> NDArray[Any]:
    """Signed values as the codecs for unsigned ones take them."""
    return frame if frame.dtype.kind == "u" else frame.view(f"u{frame.itemsize}") & (2**bits - 1)


def _jpeg(frame: NDArray[Any], bits: int, photometric: str) -> bytes:
    if frame.ndim == 2:
        return imagecodecs.jpeg8_encode(frame, level=95, bitspersample=bits)
    stored = "RGB" if photometric == "RGB" else "YCBCR"
    subsampling = "422" if photometric.endswith("422") else "444"
    return imagecodecs.jpeg8_encode(frame, level=95, colorspace="RGB", outcolorspace=stored, subsampling=subsampling)


def _jpeg_lossless(frame: NDArray[Any], bits: int, photometric: str) -> bytes:
    color = {} if frame.ndim == 2 else {"colorspace": "RGB", "outcolorspace": "RGB"}
    return imagecodecs.jpeg8_encode(_words(frame, bits), lossless=True, bitspersample=bits, **color)


def _rle(frame: NDArray[Any], bits: int, photometric: str) -> bytes:
    from pydicom.pixels.encoders import RLELosslessEncoder

    options = {"rows": frame.shape[0], "columns": frame.shape[1], "photometric_interpretation": photometric}
    options |= {"bits_allocated": frame.itemsize * 8, "bits_stored": frame.itemsize * 8, "number_of_frames": 1}
    options |= {"pixel_representation": int(frame.dtype.kind == "i"), "planar_configuration": 0}
    samples = 1 if frame.ndim == 2 else 3
    return RLELosslessEncoder.encode(frame, encoding_plugin="pydicom", samples_per_pixel=samples, **options)


_ENCODE = {
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: _jpeg_lossless,
    uid.JPEGLosslessSV1: _jpeg_lossless,
    uid.JPEGLSLossless: lambda frame, bits, _: imagecodecs.jpegls_encode(_words(frame, bits)),
    uid.JPEG2000Lossless: lambda frame, bits, _: imagecodecs.jpeg2k_encode(
        frame, reversible=True, codecformat="J2K", bitspersample=bits
    ),
    uid.HTJ2KLossless: lambda frame, bits, _: imagecodecs.htj2k_encode(frame, reversible=True),
    uid.RLELossless: _rle,
}
