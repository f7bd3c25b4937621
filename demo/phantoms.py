"""Phantom radiographs: limbs drawn from a seed, written as DX DICOM. They are pictures of nobody.

The drawing is a small X-ray simulation: every structure has a round cross-section, so a ray's path through it is
the chord of a circle, and what the detector sees is the sum of the paths, each weighted by its tissue.
"""

import hashlib
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

View: TypeAlias = Literal["AP", "LL"]
Grid: TypeAlias = NDArray[np.float32]

WINDOW = (1900, 3400)  # center and width, for bone bright on black
_HEIGHT = 240.0  # millimetres that a picture shows from top to bottom
_AIR, _BRIGHTEST = 250, 3700
_SOFT, _MUSCLE, _CORTEX, _SPONGY = 0.0075, 0.0020, 0.060, 0.014  # attenuation per millimetre
_LETTERS = {
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "R": "11110 10001 10001 11110 10100 10010 10001",
}


@dataclass(frozen=True, slots=True)
class _Bone:
    """A tube that widens towards its ends; millimetres from the top and from the limb's axis. All are radii."""

    x: float
    top: float
    bottom: float
    shaft: float
    upper: float
    lower: float
    cortex: float
    end: float = 11.0  # how long its rounded end is
    notch: float = 0.0  # how deep the middle of its lower end is hollowed
    share: float = 1.0  # of a bone's density


@dataclass(frozen=True, slots=True)
class _Part:
    """A body part: its names in DICOM, the limb's radius at top and bottom, and its bones, the longest first."""

    name: str
    region: Code
    limb: tuple[float, float]
    long: int  # so many of the bones may break
    bones: tuple[_Bone, ...]


def _pebble(x: float, top: float, bottom: float, radius: float, share: float = 1.0) -> _Bone:
    return _Bone(x, top, bottom, radius, radius, radius, 0.9, (bottom - top) / 2, 0.0, share)


_FOREARM = (
    _Bone(-12, -60, 178, 7.5, 8, 15, 3.0),
    _Bone(12, -60, 172, 6.5, 8, 8, 2.7),
    *(_pebble(x, 180, 196, 7.5) for x in (-19, -6, 8)),
    *(_pebble(x, 195, 210, 6.5) for x in (-22, -9, 3, 14)),
    *(_Bone(x, 211 - abs(x) / 9, 320, 4, 7, 6, 1.6) for x in (-25, -10, 4, 17)),
)
_LEG = (
    _Bone(-6, -60, 194, 13, 14, 22, 4.8, 7, 2),
    _Bone(21, -60, 208, 6, 6, 8.5, 2.4),
    _pebble(-5, 197, 229, 20),
    _Bone(-2, 219, 330, 17, 17, 20, 1.2),
)
_HUMERUS = (
    _Bone(0, -60, 188, 11.5, 12, 29, 4.2, 14, 3),
    _Bone(11, 186, 340, 8, 15, 9, 2.6),
    _Bone(-15, 191, 340, 6.5, 10.5, 7, 2.4),
)
_FEMUR = (
    _Bone(0, -60, 186, 14.5, 15, 37, 5.6, 20, 9),
    _Bone(0, 189, 340, 15, 38, 20, 4.5),
    _Bone(33, 204, 340, 6, 9, 6, 2),
    _pebble(0, 132, 170, 19, 0.45),
)
_PARTS = (
    _Part("FOREARM", codes.SCT.Forearm, (43, 33), 2, _FOREARM),
    _Part("LEG", codes.SCT.LowerLeg, (58, 40), 2, _LEG),
    _Part("HUMERUS", codes.SCT.Humerus, (52, 46), 1, _HUMERUS),
    _Part("FEMUR", codes.SCT.Femur, (72, 62), 1, _FEMUR),
)


@dataclass(frozen=True, slots=True)
class _Limb:
    """What is the same in both views of one study."""

    part: _Part
    side: Literal["L", "R"]
    scale: float
    broken: frozenset[int]
    height: float  # of the break

    @classmethod
    def of(cls, seed: int) -> "_Limb":
        rng = np.random.default_rng([seed, 0])
        part = _PARTS[rng.integers(len(_PARTS))]
        both = part.long == 2 and rng.random() < 0.5
        broken = frozenset(range(2)) if both else frozenset([int(rng.integers(part.long))])
        return cls(part, "L" if rng.random() < 0.5 else "R", rng.uniform(0.92, 1.06), broken, rng.uniform(75, 140))

    def bones(self, view: View) -> list[_Bone]:
        """From the side, neighbours lie in front of each other."""
        across = (self.scale if self.side == "L" else -self.scale) * (1.0 if view == "AP" else 0.35)
        deep = self.scale * (1.0 if view == "AP" else 0.9)
        return [
            replace(b, x=b.x * across, shaft=b.shaft * self.scale, upper=b.upper * deep, lower=b.lower * deep)
            for b in self.part.bones
        ]


def draw(seed: int, fractured: bool, rows: int = 1200, columns: int = 800, view: View = "AP") -> NDArray[np.uint16]:
    """Draw a limb.

    Parameters
    ----------
    seed : int
        Decides everything: part, side, proportions, noise, and where a fracture is.
    fractured : bool
        Whether a fracture is drawn into the same limb.
    rows, columns : int
    view : {"AP", "LL"}
        From the front or from the side.

    Returns
    -------
    ndarray of uint16, shape (rows, columns)
        12-bit values, bone bright on black (MONOCHROME2), to be shown with ``WINDOW``.
    """
    limb = _Limb.of(seed)
    rng = np.random.default_rng([seed, 1 if view == "AP" else 2])
    spacing = _HEIGHT / rows
    y = (np.arange(rows, dtype=np.float32) * spacing)[:, None]
    x = ((np.arange(columns, dtype=np.float32) - columns / 2) * spacing)[None, :]
    bow = rng.uniform(1, 4) * np.cos(y / 70 + rng.uniform(-0.5, 0.5)) + np.tan(rng.uniform(-0.06, 0.06)) * (y - 120)
    along: Grid = x - bow.astype(np.float32)
    attenuation = _soft_tissue(limb, along, y, rng)
    _add_bones(attenuation, limb, view, along, y, rng, fractured)
    return _exposed(attenuation, limb.side, x, y, rng)


def _soft_tissue(limb: _Limb, x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    top, bottom = limb.part.limb
    radius = limb.scale * (top + (bottom - top) * y / _HEIGHT + 3 * np.sin(y / 45 + rng.uniform(0, 6)))
    muscle = radius - rng.uniform(5, 9)  # fat lies between it and the skin
    streaks = 1 + 0.10 * _blotches(rng, x.shape, 7, 30)
    return (_SOFT * _chord(radius, x) + _MUSCLE * _chord(muscle, x) * streaks).astype(np.float32)


def _add_bones(out: Grid, limb: _Limb, view: View, x: Grid, y: Grid, rng: np.random.Generator, fractured: bool) -> None:
    texture = 0.2 * _blotches(rng, x.shape, 170, 260)  # the trabeculae
    for number, bone in enumerate(limb.bones(view)):
        inside = (y[:, 0] > bone.top) & (y[:, 0] < bone.bottom)
        xs, ys = x[inside], y[inside]
        if fractured and number in limb.broken:
            out[inside] += _broken(bone, limb.height + 9 * number, xs, ys, texture[inside], rng)
        else:
            out[inside] += _bone(bone, xs, ys, texture[inside])


def _bone(bone: _Bone, x: Grid, y: Grid, texture: Grid) -> Grid:
    """Cortex around marrow; the cortex thins towards the ends, where the marrow is spongy."""
    across = x - bone.x
    above, below = y - bone.top, bone.bottom - y
    if bone.notch:
        below = below - bone.notch * np.exp(-((across / bone.lower / 0.3) ** 2)).astype(np.float32)
    tip = np.minimum(above, below)
    wide = (
        bone.shaft
        + (bone.upper - bone.shaft) * np.exp(-((np.maximum(above, 0) / 24) ** 1.4))
        + (bone.lower - bone.shaft) * np.exp(-((np.maximum(below, 0) / 24) ** 1.4))
    )
    near_end = np.exp(-((tip / 28) ** 2))
    cortex = bone.cortex + (0.8 - bone.cortex) * near_end
    outer = _chord(wide * _rounded(tip / bone.end), across)
    marrow = _chord((wide - cortex) * _rounded((tip - 0.8) / bone.end), across)
    spongy = _SPONGY * (0.35 + near_end) * (1 + texture)
    return np.asarray(bone.share * (_CORTEX * (outer - marrow) + spongy * marrow), np.float32)


def _broken(bone: _Bone, height: float, x: Grid, y: Grid, texture: Grid, rng: np.random.Generator) -> Grid:
    """Two fragments with a jagged edge; the lower one is shifted at the break and reaches its joint in place."""
    hairline = rng.random() < 0.3
    offset = 0.0 if hairline else rng.choice([-1, 1]) * rng.uniform(0.35, 0.95) * bone.shaft
    gap = rng.uniform(0.7, 1.1) if hairline else rng.uniform(-4, 1.8)  # below zero the ends overlap
    knots = np.linspace(-60, 60, 80)
    teeth = np.cumsum(rng.normal(0, 0.7, knots.size))
    slope = rng.uniform(-0.8, 0.8)
    across = x - bone.x
    edge = height + slope * across + np.interp(across, knots, teeth - np.interp(0, knots, teeth))
    shift = offset * np.clip((bone.bottom - y) / (bone.bottom - height), 0, 1.1)
    upper = _bone(bone, x, y, texture) * _step(edge - gap / 2 - y)
    lower = _bone(bone, x - shift.astype(np.float32), y, texture) * _step(y - edge - gap / 2)
    return np.asarray(upper + lower, np.float32)


def _exposed(attenuation: Grid, side: str, x: Grid, y: Grid, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Grey values of the attenuation: exposure, noise, marker, collimation."""
    brightest = np.percentile(attenuation[::7, ::7], 99.7)
    values = _AIR + (_BRIGHTEST - _AIR) * (1 - np.exp(-1.3 * attenuation / brightest)) / (1 - np.exp(-1.3))
    grain = rng.standard_normal(values.shape, np.float32)
    grain = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1)) / 3  # the detector blurs what a quantum leaves
    values += grain * (30 + values / 45)
    half = float(x[0, -1])
    left, right, top, bottom = rng.uniform(0.03, 0.07, 4) * (2 * half, 2 * half, _HEIGHT, _HEIGHT)
    _mark(values, side, round((top + 8) / _HEIGHT * len(values)), (left + 7) / (2 * half), 11 / _HEIGHT)
    lean = np.tan(rng.uniform(-0.012, 0.012))
    u, v = x + lean * (y - _HEIGHT / 2), y - lean * x
    field = _step(u + half - left) * _step(half - right - u) * _step(v - top) * _step(_HEIGHT - bottom - v)
    values = 40 + field * (values - 40) + (1 - field) * np.abs(grain) * 12
    return np.asarray(np.rint(np.clip(values, 0, 4095)), np.uint16)


def _mark(values: Grid, side: str, top: int, left: float, height: float) -> None:
    """The lead letter that a radiographer lays on the detector."""
    rows = max(9, round(height * len(values)))
    letter = np.array([[int(c) for c in row] for row in _LETTERS[side].split()], np.float32)
    shape = Image.fromarray(np.pad(letter, 1)).resize((rows * 7 // 9, rows), Image.Resampling.BICUBIC)
    ink = _step((np.asarray(shape) - 0.45) * 4)
    start = round(left * values.shape[1])
    place = values[top : top + ink.shape[0], start : start + ink.shape[1]]
    place += ink[: place.shape[0], : place.shape[1]] * (3950 - place)


def _chord(radius: Any, distance: Grid) -> Grid:
    radius = np.maximum(radius, 0)
    return np.asarray(2 * np.sqrt(np.maximum(radius * radius - distance * distance, 0)), np.float32)


def _rounded(share: Any) -> Any:
    """0 at a bone's end to 1 where its full width is reached."""
    return (1 - (1 - np.clip(share, 0, 1)) ** 2.2) ** (1 / 2.2)


def _step(distance: Any) -> Any:
    """A soft edge, half a millimetre wide."""
    return 1 / (1 + np.exp(-np.clip(distance / 0.15, -30, 30)))


def _blotches(rng: np.random.Generator, shape: tuple[int, ...], down: int, across: int) -> Grid:
    """Smooth noise of about unit size with so many blotches down and across."""
    coarse = rng.standard_normal((down, across), np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def study(seed: int, fractured: bool, folder: Path) -> list[Path]:
    """Write one study of two views: AP as MONOCHROME2, lateral as MONOCHROME1.

    Parameters
    ----------
    seed : int
        The same seed gives the same bytes.
    fractured : bool
    folder : Path
        Made where it is missing.

    Returns
    -------
    list of Path
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    views: tuple[View, ...] = ("AP", "LL")
    for number, view in enumerate(views, start=1):
        pixels = draw(seed, fractured, view=view)
        header = dataset(seed, fractured, pixels, view, inverted=view == "LL")
        header.InstanceNumber = number
        path = folder / f"{_Limb.of(seed).part.name.lower()}-{seed}-{view.lower()}.dcm"
        header.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def dataset(
    seed: int, fractured: bool, pixels: NDArray[np.uint16], view: View = "AP", inverted: bool = False
) -> Dataset:
    """A complete DX object (PS3.3 A.26) around drawn pixels, uncompressed.

    Parameters
    ----------
    seed : int
    fractured : bool
        Only its UIDs and PatientID depend on these two.
    pixels : ndarray of uint16, shape (rows, columns)
        As ``draw`` gives them.
    view : {"AP", "LL"}
    inverted : bool
        Store as MONOCHROME1; it looks the same.
    """
    limb = _Limb.of(seed)
    key = f"{seed} {fractured} {pixels.shape}"
    ds = Dataset()
    _describe_study(ds, limb, key, seed)
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = _uid(f"instance {key} {view} {hashlib.sha256(pixels.tobytes()).hexdigest()}")
    _describe_view(ds, limb, view)
    _describe_pixels(ds, pixels, inverted)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _uid(text: str) -> str:
    """A UID that the text decides (PS3.5 B.2: 2.25 and a UUID as a number)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'drawn phantom {text}').int}"


def _describe_study(ds: Dataset, limb: _Limb, key: str, seed: int) -> None:
    ds.PatientName, ds.PatientID = "PHANTOM^DRAWN", f"PHANTOM-{seed}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(f"study {key}"), _uid(f"series {key}")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = f"2001{seed % 12 + 1:02}{seed % 28 + 1:02}"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = "120000"
    ds.ReferringPhysicianName, ds.StudyID, ds.AccessionNumber = "", str(seed), f"DRAWN{seed}"
    ds.StudyDescription = ds.SeriesDescription = "drawn phantom, not a patient"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "DX", 1, 1
    ds.Manufacturer, ds.ManufacturerModelName = "drawn by a program", "phantom"
    ds.BodyPartExamined, ds.ImageLaterality = limb.part.name, limb.side
    ds.AnatomicRegionSequence = [_code(limb.part.region)]


def _describe_view(ds: Dataset, limb: _Limb, view: View) -> None:
    ds.ImageType = ["DERIVED", "PRIMARY", ""]
    ds.DerivationDescription = "drawn by a program from random numbers"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ViewPosition = view
    ds.ViewCodeSequence = [_code(codes.SCT.AnteroPosterior if view == "AP" else codes.SCT.LateralProjection)]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    ds.PatientOrientation = ["L", "F"] if view == "AP" else ["A", "F"]
    ds.PositionerType, ds.DetectorType, ds.AcquisitionContextSequence = "NONE", "", []


def _describe_pixels(ds: Dataset, pixels: NDArray[np.uint16], inverted: bool) -> None:
    center, width = WINDOW
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.ImagerPixelSpacing = [round(_HEIGHT / len(pixels), 5)] * 2
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if inverted else -1  # -1: brighter values saw less of the beam
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter, ds.WindowWidth = (4096 - center if inverted else center), width
    ds.LossyImageCompression, ds.BurnedInAnnotation = "00", "NO"
    ds.PixelData = (4095 - pixels if inverted else pixels).astype("<u2").tobytes()


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
