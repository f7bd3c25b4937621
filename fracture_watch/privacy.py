"""What may be said of whom a file is about: identifiers are kept, hashed or dropped before anything else sees them.

``Guarded`` stands around the decoder, so the pipeline never meets a raw header value, and ``Privacy.source`` gives each
file the alias under which it is recorded, shown and logged. Whatever comes later has nothing left to give away.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from fracture_watch.errors import FileFailed, FileRejected, FractureWatchError, Internal, SystemicError, WrongUse
from fracture_watch.records import DROPPED, Facts, Filed, Pixels, Prepared, Source, SourceFile

if TYPE_CHECKING:
    from fracture_watch.pipeline import Decoding, Drawing, Workers

Identifiers = Literal["keep", "hash", "drop"]
Made = TypeVar("Made")
_TOKEN_CHARACTERS = 32  # 128 bits: no two of a million patients meet, and it fits into any field
_HASHED = ("patient_id", "accession_number", "manufacturer")
_UIDS = ("study_uid", "series_uid", "sop_instance_uid")
_PLAIN = ("study_date", "rows", "columns", "spacing")  # numbers, and a date that was parsed
# Words of coded fields. Anything else that stands there was typed by somebody, and may be a name.
_WORDS = {
    "modality": "CR DX RG RF XA OT MG CT MR US NM PT IO PX ES GM SM XC ECG HD BI BMD DG SR PR KO SEG REG DOC",
    "body_part": "HAND FINGER THUMB WRIST FOREARM RADIUS ULNA ELBOW HUMERUS ARM UPPER LOWER SHOULDER CLAVICLE SCAPULA "
    "HIP PELVIS FEMUR THIGH KNEE PATELLA LEG TIBIA FIBULA TIBFIB ANKLE CALCANEUS HEEL FOOT TOE EXTREMITY LIMB EXM "
    "JOINT CHEST RIB STERNUM ABDOMEN SPINE CSPINE TSPINE LSPINE SSPINE CERVICAL THORACIC LUMBAR SACRUM COCCYX SKULL "
    "HEAD FACE JAW MANDIBLE NOSE NECK BREAST WHOLEBODY BODY WHOLE LEFT RIGHT BOTH L R AP PA LAT OF AND",
    "laterality": "L R U B LEFT RIGHT BOTH UNPAIRED",
    "view_position": "AP PA LL RL LLD RLD LLO RLO LAT LATERAL MEDIAL OBLIQUE AXIAL ANTERO POSTERO ANTERIOR POSTERIOR "
    "MEDIOLATERAL LATEROMEDIAL DORSAL VOLAR PALMAR PLANTAR DORSOPALMAR DORSOPLANTAR PALMODORSAL PLANTODORSAL "
    "TANGENTIAL FRONTAL DECUBITUS SUPINE PRONE LEFT RIGHT TO",
}
_PLAIN_NOTE = re.compile(
    r"(Modality|BodyPartExamined) missing|RescaleSlope 0 ignored|broken Exif data ignored"
    r"|invalid (Modality LUT|RescaleSlope|RescaleIntercept) ignored"
    r"|signed codestream of unsigned values: raised by half its range"
    r"|Modality LUT of a LOG or DISP image not applied"
    r"|PresentationLUTShape IDENTITY of a MONOCHROME1 image: not inverted|\d+ invalid window or VOI LUT ignored"
    r"|no window: shown from least to greatest value|first (VOI LUT|window) of \d+ VOI transformations"
    r"|(Shutter|Collimator)Shape (RECTANGULAR|CIRCULAR|POLYGONAL|BITMAP) (applied|ignored: it cannot be applied)"
    r"|pixels of [\d.e+-]+:1 cannot be meant; shown as square ones|pixels made square: \d+ x \d+ shown as \d+ x \d+"
    r"|first of (\d+|several) images in the file|\d+ of \d+ frames classified"
)
# Whose details quote nothing that stands in a file.
_PLAIN_CODES = frozenset(
    "timeout out_of_memory decoder_crashed unreadable too_large not_an_image own_output not_for_presentation".split()
)
_PLAIN_DETAILS = {
    "truncated": "the file ends before its own declared end; send it again",
    "corrupt": "the file contradicts itself or its format; send it again from its source, or convert it",
    "unsupported_transfer_syntax": "no decoder here reads its transfer syntax; convert it, for example with dcmdjpeg",
    "no_pixel_data": "the object has no image",
    "out_of_scope": "Modality or BodyPartExamined is not among the accepted ones; see scope in config.yaml",
    "internal": "a defect in this program",
}
_WITHHELD = "what the file says is withheld (privacy.identifiers)"
_ANONYMOUS = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}(-\d+)?(\.[a-z]{3,5})?")


@dataclass(frozen=True, slots=True)
class Privacy:
    """The settings of ``privacy``, put to use.

    Parameters
    ----------
    identifiers : {"keep", "hash", "drop"}
    salt : bytes
        The key of the hashes.
    ours : tuple of Path
        Folders in which files are filed under names that identify nobody.
    """

    identifiers: Identifiers = "keep"
    salt: bytes = field(default=b"", repr=False)
    ours: tuple[Path, ...] = ()

    def token(self, kind: str, value: str) -> str:
        """HMAC-SHA-256 of a value, cut to 128 bits; the same number as patient and as accession gives two tokens."""
        digest = hmac.new(self.salt, f"{kind}\0{value}".encode("utf-8", "backslashreplace"), hashlib.sha256)
        return digest.hexdigest()[:_TOKEN_CHARACTERS]

    def facts(self, facts: Facts) -> Facts:
        """What may be known of a file's header. A fact that has no rule here is dropped."""
        if self.identifiers == "keep":
            return facts
        known = {name: value for name, value in asdict(facts).items() if value is not None}
        left = {name: known.get(name) for name in _PLAIN}
        left |= {name: _known_words(known.get(name), words) for name, words in _WORDS.items()}
        if self.identifiers == "hash":
            left |= {name: self.token(name, known[name]) for name in _HASHED if name in known}
            left |= {name: self._uid(name, known[name]) for name in _UIDS if name in known}
        return Facts(**left)

    def notes(self, notes: tuple[str, ...]) -> tuple[str, ...]:
        """Notes that quote nothing, and in the place of others that there was one."""
        if self.identifiers == "keep":
            return notes
        told = (note if _PLAIN_NOTE.fullmatch(note) else f"a note: {_WITHHELD}" for note in notes)
        return tuple(dict.fromkeys(told))

    def error(self, error: FractureWatchError) -> FractureWatchError:
        """The same kind of error without what it quotes."""
        if self.identifiers == "keep" or not isinstance(error, FileRejected | FileFailed):
            return error
        plain = error.code in _PLAIN_CODES
        told = type(error)(error.detail if plain else f"{_PLAIN_DETAILS.get(error.code, error.code)}; {_WITHHELD}")
        told.sha256, told.facts = error.sha256, self.facts(error.facts)
        return told

    def _uid(self, name: str, value: str) -> str:
        """A UID; what only stands in its place may be anything."""
        return value if re.fullmatch(r"[0-9.]{1,64}", value) else self.token(name, value)

    def source(self, source: SourceFile) -> SourceFile:
        """The file with the alias under which it goes."""
        return replace(source, alias=self.alias(source))

    def alias(self, source: SourceFile) -> str | None:
        """The same for the same file, also after a restart. ``drop`` has no key: the file's stamp stands for it."""
        path = source.path
        if self.identifiers == "keep" or any(_is_anonymous(path, folder) for folder in self.ours):
            return None
        if self.identifiers == "hash":
            return f"hmac:{self.token('path', str(path))}"
        return f"{DROPPED}{source.inode:x}-{source.size:x}-{source.modified_ns:x}"

    def patient(self, asked: str | None) -> str | None:
        """What rows hold for a PatientID that somebody asks for.

        Raises
        ------
        WrongUse
            Where they hold no patient.
        """
        if asked is None or self.identifiers == "keep":
            return asked
        if self.identifiers == "hash":
            return self.token("patient_id", asked)
        raise WrongUse(
            "privacy.identifiers is drop, so results hold no patient to ask for. What was recorded before that, a "
            "command finds with FRACTURE_WATCH__PRIVACY__IDENTIFIERS=keep in its environment"
        )

    def names(self, asked: str) -> tuple[str, ...]:
        """What else rows may hold for a path or an accession number that somebody asks for."""
        if self.identifiers != "hash":
            return ()
        path = os.path.normpath(Path(asked).absolute())
        return self.token("accession_number", asked), f"hmac:{self.token('path', path)}"


@dataclass(frozen=True, slots=True)
class Guarded:
    """Workers whose answers, errors included, hold no identifier that is not to be kept; pictures are as they are."""

    decoder: "Workers"
    privacy: Privacy

    def submit(self, source: Source) -> "Decoding":
        """Start decoding one file."""
        return _GuardedDecoding(self.decoder.submit(source), self.privacy)

    def draw(self, filed: Filed, finish: Callable[[Pixels], bytes]) -> "Drawing":
        """Start drawing one frame."""
        return _GuardedDrawing(self.decoder.draw(filed, finish), self.privacy)


@dataclass(frozen=True, slots=True)
class _GuardedDecoding:
    decoding: "Decoding"
    privacy: Privacy

    def result(self) -> Prepared:
        """Wait for it."""
        prepared = _told(self.decoding.result, self.privacy)
        facts, notes = self.privacy.facts(prepared.facts), self.privacy.notes(prepared.notes)
        return replace(prepared, facts=facts, notes=notes)


@dataclass(frozen=True, slots=True)
class _GuardedDrawing:
    drawing: "Drawing"
    privacy: Privacy

    def result(self) -> bytes | None:
        """Wait for it."""
        return _told(self.drawing.result, self.privacy)


def _told(result: Callable[[], Made], privacy: Privacy) -> Made:
    """The result, or an error that quotes nothing."""
    try:
        return result()
    except SystemicError:
        raise
    except FractureWatchError as error:
        told = privacy.error(error)
    except Exception as error:  # noqa: BLE001  a defect, whose text may quote the file
        told = privacy.error(Internal(type(error).__name__))
    raise told  # outside of the handler: no traceback leads back to what was withheld


def _is_anonymous(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and bool(_ANONYMOUS.fullmatch(path.relative_to(folder).as_posix()))


def _known_words(value: str | None, words: str) -> str | None:
    """The value where it consists of known words, else those of its words that are."""
    if value is None:
        return None
    found, known = re.findall(r"[^\W_]+", value), set(words.split())
    if value.isascii() and all(word.upper() in known for word in found):
        return value if found else None
    return " ".join(word for word in found if word.upper() in known) or None
