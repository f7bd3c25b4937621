"""How the C library deals with memory that is freed and taken again a moment later."""

import ctypes
from contextlib import suppress

_PASS = 1 << 30  # bytes: what a forward pass frees, or a step of training
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory(largest: int = _PASS) -> None:
    """Let glibc keep freed blocks of up to ``largest`` bytes for the next that wants one. Elsewhere nothing happens.

    By default it gives back what is large, and gets it anew from the system page by page, each of which has to be
    cleared: that is a quarter of a forward pass, and two fifths of decoding a radiograph.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, largest)
        mallopt(_M_TRIM_THRESHOLD, largest)
