"""Thin commands. Nothing heavy is imported until a command needs it."""

import sys

from fracture_watch.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line: 0 done, 1 at least one file failed or a check found something, 2 wrong use."""
    from fracture_watch.cli.common import complain
    from fracture_watch.errors import FractureWatchError, WrongUse

    try:
        app(prog_name="fracture-watch")
    except FractureWatchError as error:
        complain(f"fracture-watch: {error.detail}")
        sys.exit(2 if isinstance(error, WrongUse) else 1)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(1)
