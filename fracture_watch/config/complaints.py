"""What is wrong with ``config.yaml``, and at which line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_CONFIDENTIAL = {"webhooks", "token", "salt", "database"}  # whose values no message quotes


def repeated_keys(node: yaml.Node | None, path: Path) -> Iterator[str]:
    """Complaints of keys that are set twice, of which YAML takes the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            yield f"{path}, line {key.start_mark.line + 1}: {key.value}: is set twice"
        seen.add(key.value)
        yield from repeated_keys(value, path)


def line_of(node: yaml.Node | None, key: tuple[str, ...]) -> str:
    """The line of a key, or of the nearest part of it that the file has."""
    line = 1
    for part in key:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdecimal():
            found = next(((item, item) for item in node.value[int(part) :]), None)
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return f"line {line}"


def complaint(problem: Any) -> str:
    """One of pydantic's errors in plain words; it quotes no secret."""
    if problem["type"] == "extra_forbidden":
        return "unknown key"
    found = problem["input"]
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "string_type" and isinstance(found, int | float):
        message = "is no text as it stands; put it in quotes"
    if isinstance(found, dict) or _CONFIDENTIAL.intersection(problem["loc"]):
        return message
    return f"{message} (it is {found!r})"
