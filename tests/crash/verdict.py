"""What must be true when the last daemon has ended."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path


@dataclass
class Verdict:
    """What was found; all three lists are empty where all is well."""

    kills: int = 0
    files: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    hits: Counter = field(default_factory=Counter)


def judge(world):
    found = Verdict(world.kills, len(world.contents), list(world.nowhere), hits=world.hits)
    rows = world.rows()
    _one_row_a_file(world, rows, found)
    _one_result_a_content(rows, found)
    _one_place_a_file(world, found)
    for row in rows:
        content = world.contents.get(world.path_of(row["source_path"]))
        if content is not None:
            _row_tells_the_truth(world, row, content, found)
    _nothing_else(world, rows, found)
    _sound_database(world, found)
    return found


def is_junk(content):
    return content.startswith(b"text ")


def digest(content):
    return sha256(content).hexdigest()


def _one_row_a_file(world, rows, found):
    counts = Counter(world.path_of(row["source_path"]) for row in rows)
    for path in world.contents:
        count = counts.pop(path, 0)
        if count == 0:
            found.lost.append(f"{path}: no row")
        elif count > 1:
            found.repeated.append(f"{path}: {count} rows")
    found.wrong += [f"{path}: a row of no file" for path in counts]


def _one_result_a_content(rows, found):
    results = Counter((row["sha256"], row["model_id"]) for row in rows if row["status"] == "classified")
    found.repeated += [f"{key}: {count} results" for key, count in results.items() if count > 1]
    unanswered = {row["sha256"] for row in rows if row["status"] == "duplicate"} - {key for key, _ in results}
    found.lost += [f"{key}: duplicates of no result" for key in unanswered]


def _one_place_a_file(world, found):
    wanted = Counter(digest(c) for c in world.contents.values() if is_junk(c) or world.processed != "delete")
    places = world.places()
    for path, content in world.contents.items():
        here, due = places[digest(content)], wanted[digest(content)]
        if here < due:
            found.lost.append(f"{path}: {here} files of {due}")
        elif here > due:
            found.repeated.append(f"{path}: {here} files of {due}")


def _row_tells_the_truth(world, row, content, found):
    source, junk = world.path_of(row["source_path"]), is_junk(content)
    statuses = ("rejected",) if junk else ("classified", "duplicate")
    if row["status"] not in statuses or not row["filed"] or row["sha256"] != digest(content):
        found.wrong.append(f"{source}: {dict(row)}")
    if row["status"] == "classified" and not (row["heatmap_path"] and Path(row["heatmap_path"]).is_file()):
        found.wrong.append(f"{source}: its heat map is not at {row['heatmap_path']}")
    if world.processed == "delete" and not junk:
        if row["filed_path"] is not None:
            found.wrong.append(f"{source}: deleted, but its row says {row['filed_path']}")
        return
    place = world.path_of(row["filed_path"] or "nowhere")
    if not place.is_file() or place.read_bytes() != content:
        found.lost.append(f"{source}: is not at {place}")
        return
    home = world.roots[1] if junk else world.inbox if world.processed == "keep" else world.roots[0]
    if not place.is_relative_to(home):
        found.wrong.append(f"{source}: is at {place}, not below {home}")
    if junk or (world.receipts and world.processed == "move"):
        found.wrong += _slip_complaints(place, row)


def _slip_complaints(place, row):
    path = place.with_name(f"{place.name}.json")
    try:
        slip = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"{path}: {error}"]
    said = {name: slip.get(name) for name in ("result", "status", "code", "sha256", "source_path")}
    due = {"result": row["id"], **{name: row[name] for name in ("status", "code", "sha256", "source_path")}}
    return [] if said == due and slip["attempts"] >= 1 and slip["when"] else [f"{path}: {slip} for {due}"]


def _nothing_else(world, rows, found):
    """No unfinished copies, no files without a row."""
    filed = {row["filed_path"] for row in rows}
    known = filed | {f"{path}.json" for path in filed} | {row["heatmap_path"] for row in rows}
    for root in (*world.roots, world.folder / "artefacts"):
        found.wrong += [
            f"{p}: nothing says why it is there" for p in root.rglob("*") if p.is_file() and str(p) not in known
        ]
    found.wrong += [f"{path}: unfinished" for path in world.inbox.rglob("*.part")]


def _sound_database(world, found):
    with closing(sqlite3.connect(world.folder / "fracture_watch.db")) as connection:
        for pragma in ("integrity_check", "foreign_key_check"):
            answer = connection.execute(f"PRAGMA {pragma}").fetchall()
            if answer not in ([("ok",)], []):
                found.wrong.append(f"{pragma}: {answer}")
