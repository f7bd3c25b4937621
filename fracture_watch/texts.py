"""Sentences that several rooms say, and text that others wrote, made harmless for whoever reads it on a terminal."""

import json
from typing import Any


def how_to_install(extra: str) -> str:
    """What brings an extra of this package: where it is installed, and in a checkout of it."""
    checkout = f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"
    return f"pip install 'fracture-watch[{extra}]', or in a checkout: {checkout}"


def printable(text: str) -> str:
    """Text that stays on one line and can be written to any terminal or log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in which every character that a terminal might obey is an escape; letters of any language stay."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    # Outside of strings JSON has no such characters but the line breaks of its indentation.
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
