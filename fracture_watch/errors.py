"""The whole error tree. Every class has a code, and says whether trying again can help.

::

    FractureWatchError
    |-- FileRejected                  a sound file that is not for this classifier     permanent
    |   |-- NotAnImage                    not_an_image
    |   |-- NoPixelData                   no_pixel_data
    |   |-- OutOfScope                    out_of_scope
    |   |-- NotForPresentation            not_for_presentation
    |   `-- OwnOutput                     own_output
    |-- FileFailed                    a file that could not be processed               permanent
    |   |-- Truncated                     truncated
    |   |-- Corrupt                       corrupt
    |   |-- TooLarge                      too_large
    |   |-- UnsupportedTransferSyntax     unsupported_transfer_syntax
    |   |-- DecoderCrashed                decoder_crashed
    |   |-- OutOfMemory                   out_of_memory
    |   |-- TimedOut                      timeout
    |   |-- Unreadable                    unreadable                                   transient
    |   `-- Internal                      internal
    |-- SystemicError                 not the file's fault: stop, say so, try again    systemic
    |   |-- StorageUnavailable            storage_unavailable
    |   |-- DatabaseUnavailable           database_unavailable
    |   |-- DecodersUnavailable           decoders_unavailable
    |   `-- EngineUnavailable             engine_unavailable
    `-- WrongUse                      wrong_use: settings or arguments that cannot work  permanent
        |-- InvalidSettings               invalid_settings
        |-- InvalidModel                  invalid_model
        `-- InvalidCursor                 invalid_cursor

``detail`` is the text for a person: what happened, to which thing, and what to do next.
"""

from enum import StrEnum
from typing import ClassVar

from fracture_watch.records import Facts

_LONGEST_DETAIL = 500  # characters


class Retry(StrEnum):
    """Whether trying the same thing again can help."""

    PERMANENT = "permanent"  # the same bytes give the same answer
    TRANSIENT = "transient"  # this file may be readable in a moment
    SYSTEMIC = "systemic"  # nothing can be processed until the cause is gone


class FractureWatchError(Exception):
    """Base of every error that this package raises on purpose.

    Parameters
    ----------
    detail : str
        What happened and what to do next, for a person.

    Attributes
    ----------
    sha256, facts
        What was known of the file when it was refused; whoever learns it fills it in.
    """

    code: ClassVar[str]
    retry: ClassVar[Retry] = Retry.PERMANENT

    def __init__(self, detail: str) -> None:
        if len(detail) > _LONGEST_DETAIL:  # a broken file's values may be megabytes long
            detail = detail[: _LONGEST_DETAIL - 1] + "\N{HORIZONTAL ELLIPSIS}"
        super().__init__(detail)
        self.detail = detail
        self.sha256: str | None = None
        self.facts = Facts()


class FileRejected(FractureWatchError):
    """A sound file that is not for this classifier."""


class NotAnImage(FileRejected):
    """The content is no image format that is known here."""

    code = "not_an_image"


class NoPixelData(FileRejected):
    """A DICOM object without an image: a report, a plan, an index."""

    code = "no_pixel_data"


class OutOfScope(FileRejected):
    """A modality or body part that the settings keep away from the model."""

    code = "out_of_scope"


class NotForPresentation(FileRejected):
    """FOR PROCESSING pixels: raw detector data, which have no display rendering."""

    code = "not_for_presentation"


class OwnOutput(FileRejected):
    """An object that this program made and that was routed back."""

    code = "own_output"


class FileFailed(FractureWatchError):
    """A file that could not be processed."""


class Truncated(FileFailed):
    """The file ends before its own declared end."""

    code = "truncated"


class Corrupt(FileFailed):
    """The file contradicts itself or its format."""

    code = "corrupt"


class TooLarge(FileFailed):
    """The file declares more than the limits in the settings allow."""

    code = "too_large"


class UnsupportedTransferSyntax(FileFailed):
    """No decoder here reads this DICOM transfer syntax."""

    code = "unsupported_transfer_syntax"


class DecoderCrashed(FileFailed):
    """The worker process died while it decoded this file."""

    code = "decoder_crashed"


class OutOfMemory(FileFailed):
    """Decoding needed more memory than ``imaging.memory_mb``."""

    code = "out_of_memory"


class TimedOut(FileFailed):
    """Decoding took longer than ``imaging.timeout_seconds``."""

    code = "timeout"


class Unreadable(FileFailed):
    """The file could not be opened or read."""

    code = "unreadable"
    retry = Retry.TRANSIENT


class Internal(FileFailed):
    """A defect in this program; the log has the traceback."""

    code = "internal"


class SystemicError(FractureWatchError):
    """Not the fault of any file: intake pauses until the cause is gone."""

    retry = Retry.SYSTEMIC


class StorageUnavailable(SystemicError):
    """A folder cannot be read or written: full, read-only, gone."""

    code = "storage_unavailable"


class DatabaseUnavailable(SystemicError):
    """The database cannot be read or written."""

    code = "database_unavailable"


class DecodersUnavailable(SystemicError):
    """The decoding workers as a whole are gone."""

    code = "decoders_unavailable"


class EngineUnavailable(SystemicError):
    """The machines that compute, or who hands out work to them, are gone."""

    code = "engine_unavailable"


class WrongUse(FractureWatchError):
    """Settings or arguments that cannot work; nothing was started."""

    code = "wrong_use"


class InvalidSettings(WrongUse):
    """``config.yaml``, the environment or the command line is wrong."""

    code = "invalid_settings"


class InvalidModel(WrongUse):
    """The weights or their card are missing, damaged or contradict each other."""

    code = "invalid_model"


class InvalidCursor(WrongUse):
    """A place to go on from that was not given out for this question."""

    code = "invalid_cursor"


TRANSIENT = frozenset(kind.code for kind in FileFailed.__subclasses__() if kind.retry is Retry.TRANSIENT)
# What a row may have in `code`.
CODES = frozenset(kind.code for base in (FileRejected, FileFailed) for kind in base.__subclasses__())
