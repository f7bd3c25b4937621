"""A header -> the grayscale steps that it asks for, and what was unusual about them."""

from dataclasses import replace

import numpy as np
from pydicom import Dataset, uid

from fracture_watch.imaging.grayscale import Chain, Lut, StoredValues, Window
from fracture_watch.imaging.header import items, lut, number, text, windows

_FLUOROSCOPY = (
    uid.XRayAngiographicImageStorage,
    uid.XRayRadiofluoroscopicImageStorage,
    "1.2.840.10008.5.1.4.1.1.12.3",  # retired: biplane angiography
)
_RESCALE = ("RescaleSlope", "RescaleIntercept")
# Where the two disagree, viewers follow the shape and not the photometric interpretation.
_SHAPES = {"INVERSE": True, "IDENTITY": False}


def chain_of(header: Dataset, stored: StoredValues, white_is_low: bool) -> tuple[Chain, tuple[str, ...]]:
    """The first usable transformation of each step; ``white_is_low`` is what the photometric interpretation says."""
    inverse = _SHAPES.get((text(header, "PresentationLUTShape") or "").upper(), white_is_low)
    chain, notes = _modality(header, stored)
    chain = replace(chain, inverse=inverse, padding=_padding(header, stored))
    if white_is_low and not inverse:
        notes += ("PresentationLUTShape IDENTITY of a MONOCHROME1 image: not inverted",)
    least = chain.modality(np.array(stored.limits, dtype=np.float64)).min()
    voi, more = _voi(header, signed=bool(least < 0))
    return replace(chain, voi=voi), (*notes, *more)


def _modality(header: Dataset, stored: StoredValues) -> tuple[Chain, tuple[str, ...]]:
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    luts = [lut(item, stored.signed) for item in items(header, "ModalityLUTSequence")]
    if _leads_back(header):
        there = luts or slope not in (None, 1) or intercept not in (None, 0)
        return Chain(), ("Modality LUT of a LOG or DISP image not applied",) if there else ()
    table = next((table for table in luts if table), None)
    notes = ["RescaleSlope 0 ignored"] if slope == 0 and table is None else []
    if table is None:
        notes += [f"invalid {keyword} ignored" for keyword in _RESCALE if _is_broken(header, keyword)]
    if luts and table is None:
        notes.append("invalid Modality LUT ignored")
    return Chain(slope=slope or 1.0, intercept=intercept or 0.0, modality_lut=table), tuple(notes)


def _is_broken(header: Dataset, keyword: str) -> bool:
    """Whether the element says something that is no number, such as ``-1024,0``."""
    return text(header, keyword) is not None and number(header, keyword) is None


def _leads_back(header: Dataset) -> bool:
    """Of angiography and fluoroscopy it leads back to values linear to the X-rays, and not to what is to be seen.

    PS3.3 C.8.7.1.1.2 and PS3.4 N.2.1.2; rescaling is one form of it.
    """
    relationship = (text(header, "PixelIntensityRelationship") or "").upper()
    return text(header, "SOPClassUID") in _FLUOROSCOPY and relationship in ("LOG", "DISP")


def _voi(header: Dataset, signed: bool) -> tuple[Window | Lut | None, tuple[str, ...]]:
    tables = [lut(item, signed) for item in items(header, "VOILUTSequence")]
    pairs = windows(header)
    choices: list[Window | Lut] = [table for table in tables if table] + [pair for pair in pairs if pair.valid]
    broken = len(tables) + len(pairs) - len(choices)
    notes = [f"{broken} invalid window or VOI LUT ignored"] if broken else []
    if not choices:
        return None, (*notes, "no window: shown from least to greatest value")
    if len(choices) > 1:
        chosen = "VOI LUT" if isinstance(choices[0], Lut) else "window"
        notes.append(f"first {chosen} of {len(choices)} VOI transformations")
    return choices[0], tuple(notes)


def _padding(header: Dataset, stored: StoredValues) -> tuple[float, float] | None:
    """The range of PS3.3 C.7.5.1.1.2; its ends are read as the pixels are, whatever VR they were written with."""
    for kind in ("", "Float", "DoubleFloat"):
        value = number(header, f"{kind}PixelPaddingValue")
        if value is None:
            continue
        limit = number(header, f"{kind}PixelPaddingRangeLimit")
        ends = [value, value if limit is None else limit]
        if stored.bits_stored <= 16:
            ends = stored.of(np.array([int(end) & 0xFFFF for end in ends], np.uint16)).tolist()
        return min(ends), max(ends)
    return None
