"""DICOM files built in code: sound DX objects by default, broken ones by override."""

import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT")
Pixels = NDArray[Any]
DX = uid.DigitalXRayImageStorageForPresentation


def derived_uid(*parts: object) -> str:
    """The same UID for the same parts."""
    return uid.generate_uid(entropy_srcs=[repr(parts)])


def dicom(
    pixels: Pixels | None,
    *,
    syntax: str = ExplicitVRLittleEndian,
    photometric: str = "MONOCHROME2",
    seed: int = 1,
    encoded: Sequence[bytes] | None = None,
    **elements: Any,
) -> bytes:
    """A DX file of ``pixels``, (frames, rows, columns, 3) less what is not needed; ``None`` has no picture.

    ``encoded`` are frames as they shall stand in the file; an element given as ``None`` is left out.
    """
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = DX, derived_uid("instance", seed)
    header.StudyInstanceUID, header.SeriesInstanceUID = derived_uid("study", seed), derived_uid("series", seed)
    header.PatientID, header.PatientName, header.AccessionNumber = f"P{seed}", f"Test^Patient {seed}", f"A{seed}"
    header.StudyDate, header.Modality, header.BodyPartExamined = "20240229", "DX", "HAND"
    header.PresentationIntentType = "FOR PRESENTATION"
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
    buffer = io.BytesIO()
    Dataset(dcmread(io.BytesIO(content))).save_as(buffer, implicit_vr=implicit, little_endian=True)
    return buffer.getvalue()


def _add_picture(header: Dataset, pixels: Pixels, syntax: UID, photometric: str, elements: Any, encoded: Any) -> None:
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
        words = frames.view(f"u{frames.itemsize}") & (2**bits - 1) if frames.dtype.kind == "i" else frames
        header.PixelData = encapsulate(list(encoded or [_ENCODE[syntax](frame, bits, photometric) for frame in words]))
    else:
        ordered = np.moveaxis(frames, 3, 1) if color and header.PlanarConfiguration == 1 else frames
        data = ordered.astype(ordered.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        header.PixelData = data + bytes(len(data) % 2)
    header["PixelData"].VR = "OW" if header.BitsAllocated > 8 and not syntax.is_encapsulated else "OB"


def _jpeg(frame: Pixels, bits: int, photometric: str, **options: Any) -> bytes:
    if frame.ndim == 3:
        options |= {"colorspace": "RGB", "outcolorspace": "RGB" if photometric == "RGB" else "YCBCR"}
        if (
            options.get("lossless") and photometric != "RGB"
        ):  # the codec makes no YBR of RGB there: pixels are as stored
            options |= dict.fromkeys(("colorspace", "outcolorspace"), "UNKNOWN")
        options |= {"subsampling": "422" if photometric.endswith("422") else "444"}
    return imagecodecs.jpeg8_encode(frame, level=95, bitspersample=bits, **options)


def _rle(frame: Pixels, bits: int, photometric: str) -> bytes:
    """PS3.5 annex G: a segment for every byte of every sample, the most significant first."""
    planes = frame.astype(frame.dtype.newbyteorder(">"))[..., None].view(np.uint8).reshape(*frame.shape[:2], -1)
    segments = [imagecodecs.packbits_encode(planes[..., n].copy(), axis=-1) for n in range(planes.shape[-1])]
    segments = [segment + bytes(len(segment) % 2) for segment in segments]
    offsets = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    return np.array([len(segments), *offsets, *[0] * (15 - len(segments))], "<u4").tobytes() + b"".join(segments)


_ENCODE = {
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: partial(_jpeg, lossless=True),
    uid.JPEGLosslessSV1: partial(_jpeg, lossless=True),
    uid.JPEGLSLossless: lambda frame, *_: imagecodecs.jpegls_encode(frame),
    uid.JPEG2000Lossless: lambda frame, *_: imagecodecs.jpeg2k_encode(frame, reversible=True, codecformat="J2K"),
    uid.HTJ2KLossless: lambda frame, *_: imagecodecs.htj2k_encode(frame, reversible=True),
    uid.RLELossless: _rle,
}
