"""Thin commands. Nothing heavy is imported until a command needs it."""

import errno
import os
import sys
from pathlib import Path

from fracture_watch.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line: 0 done, 1 at least one file failed or a check found something, 2 wrong use."""
    from fracture_watch.cli.common import complain
    from fracture_watch.errors import FractureWatchError, WrongUse

    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  for as long as we run
    try:
        app(prog_name="fracture-watch")
    except FractureWatchError as error:
        complain(f"fracture-watch: {error.detail}")
        sys.exit(2 if isinstance(error, WrongUse) else 1)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        complain(f"fracture-watch: the output cannot be written: {error.strerror}; make room, or write it elsewhere")
        sys.exit(1)
