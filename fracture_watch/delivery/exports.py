"""Results as JSON lines, CSV and tables."""

import csv
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import IO, Any

from fracture_watch.labels import BEFORE, SIGN
from fracture_watch.outcomes import Classified, Duplicate, Outcome, Recorded
from fracture_watch.texts import json_text, printable

# What a spreadsheet may run as a formula, though blanks or quotes come first (in CJK locales full-width signs, too);
# and what it may run once it takes semicolons, tabs or line ends within a cell for the ends of cells.
_FORMULA = re.compile(rf"[\t\r\n]|{BEFORE}{SIGN}")
_INNER = re.compile(rf"([;\t\r\n]{BEFORE})(?={SIGN})")


def file_record(file: str, outcome: Outcome, milliseconds: float | None = None) -> dict[str, Any]:
    """One file's JSON line, everywhere the same (docs/contract.md 2.2); absent facts are ``None``."""
    prediction = outcome.prediction if isinstance(outcome, Classified) else None
    return {
        "file": os.fsencode(file).decode("utf-8", "backslashreplace"),
        "status": str(outcome.status),
        "code": getattr(outcome, "code", None),
        "detail": getattr(outcome, "detail", None),
        "notes": list(outcome.notes) if isinstance(outcome, Classified | Duplicate) else [],
        "sha256": outcome.sha256,
        "prediction": prediction and str(prediction.label),
        "probability": prediction and prediction.probability,
        "threshold": prediction and prediction.threshold,
        "frame": prediction and prediction.frame,
        "study_uid": outcome.facts.study_uid,
        "sop_instance_uid": outcome.facts.sop_instance_uid,
        "model": prediction and asdict(prediction.model),
        "milliseconds": milliseconds and round(milliseconds, 1),
    }


def sentence(file: str, outcome: Outcome) -> str:
    """One line for a person or the log; names cannot forge a second line."""
    name = printable(file)
    if isinstance(outcome, Classified):
        p = outcome.prediction
        notes = f" ({'; '.join(outcome.notes)})" if outcome.notes else ""
        return f"{name}: {p.label}, probability {p.probability:.3f} (threshold {p.threshold:.3f}){printable(notes)}"
    if isinstance(outcome, Duplicate):
        return f"{name}: duplicate of a file that was classified before"
    return f"{name}: {outcome.status}, {outcome.code}: {printable(outcome.detail)}"


def log_line(recorded: Recorded) -> str:
    """A line for the log. File names are often patients' names, so only what somebody has to see to has one."""
    outcome = recorded.outcome
    known = f"result {recorded.id}, sha256 {(outcome.sha256 or 'unknown')[:12]}"
    if isinstance(outcome, Classified | Duplicate):
        return sentence(known, replace(outcome, notes=()))  # and notes may quote the file
    return sentence(f"{recorded.source.name} ({known})", outcome)


def write_csv(rows: Iterable[dict[str, Any]], columns: Iterable[str], out: IO[str]) -> None:
    """CSV with a header; text that a spreadsheet would run as a formula gets a leading apostrophe; numbers stay."""
    names = list(columns)
    writer = csv.writer(out)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])


def write_json(rows: Iterable[dict[str, Any]], out: IO[str]) -> None:
    """One JSON array, streamed."""
    separator = "["
    for row in rows:
        out.write(f"{separator}\n{json_text(json_row(row))}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def write_jsonl(rows: Iterable[dict[str, Any]], out: IO[str]) -> None:
    """A JSON object a line."""
    for row in rows:
        out.write(json_text(json_row(row)) + "\n")


def json_row(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its notes as a list, as in every other JSON here."""
    return row | {"notes": json.loads(row["notes"]) if row["notes"] else []}


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or (value[:1].isalnum() and value.isprintable() and ";" not in value):
        return value  # most of them; what follows takes ten times as long
    inner = _INNER.sub(r"\1'", value)
    return f"'{inner}" if _FORMULA.match(inner) else inner
