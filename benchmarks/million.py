"""A database of a million results, and what the documented questions take on it.

    python -m benchmarks.million

Prints the tables of docs/queries.md: for every filter of `results`, the worklist and every question of the page the
median time and SQLite's plan. `--database FILE` keeps the database, and uses it again.
"""

import argparse
import os
import platform
import re
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from benchmarks.archive import build
from fracture_watch.results.database import Database
from fracture_watch.results.queries import Filter, StudyFilter, page, studies

PAGE = Path(__file__).parent.parent / "docs" / "queries.md"
AT_ONCE = 50  # rows of a page
FILTERS = {
    "none": Filter(),
    "`prediction`": Filter(prediction="fractured"),
    "`status`": Filter(status="failed"),
    "`since`": Filter(since="2026-11-01"),
    "`until`": Filter(until="2025-03-01"),
    "`since` and `until`": Filter(since="2025-06-01", until="2025-06-02"),
    "`patient`": Filter(patient="P000123"),
    "`study`": Filter(study="1.2.826.0.1.3680043.10.5432.4242"),
    "`min_probability` 0.9": Filter(min_probability=0.9),
    "`min_probability` 0.1": Filter(min_probability=0.1),
    "`prediction`, `since`": Filter(prediction="fractured", since="2026-11-01"),
    "`prediction`, `until`": Filter(prediction="fractured", until="2025-03-01"),
    "`prediction`, `min_probability` 0.99": Filter(prediction="fractured", min_probability=0.99),
    "`since`, `min_probability` 0.99": Filter(since="2025-01-01", min_probability=0.99),
    "`status`, `since`": Filter(status="duplicate", since="2026-11-01"),
    "`status`, `patient`": Filter(status="classified", patient="P000123"),
}
WORKLISTS = {
    "worklist": StudyFilter(),
    "worklist, `prediction`": StudyFilter(prediction="not fractured"),
    "worklist, `since`": StudyFilter(since="2026-11-01"),
    "worklist, `patient`": StudyFilter(patient="P000123"),
}


def main() -> None:
    """Build it, and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", type=Path, help="keep it here; by default it is built in a temporary folder")
    parser.add_argument("--repeats", type=int, default=5, help="of each question; the median counts")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.database or Path(folder) / "million.db"
        begun, there = time.perf_counter(), path.exists()
        database = Database(f"sqlite:///{path}")
        if not there:
            build(database, asked.rows)
            print(f"{asked.rows:,} rows, built in {time.perf_counter() - begun:.0f} s")
        machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{machine}, SQLite {sqlite3.sqlite_version}, {path.stat().st_size / 1e6:,.0f} MB")
        print("\n| a page of 50, newest first, by | ms | plan |\n|---|---|---|")
        for name, ask in pages(database).items():
            row(path, name, asked.repeats, ask)
        print("\n| question | ms | plan |\n|---|---|---|")
        with sqlite3.connect(path) as connection:
            for name, sql in questions(PAGE.read_text(encoding="utf-8")):
                row(path, name, asked.repeats, partial(_fetched, connection, sql), sql)
        database.close()


def questions(text: str) -> Iterator[tuple[str, str]]:
    """Title and SQL of each question of the page."""
    for title, sql in re.findall(r"^### (.+?)\n(?:(?!^#).)*?```sql\n(.*?)```", text, re.MULTILINE | re.DOTALL):
        yield title, sql.strip()


def pages(database: Database) -> dict[str, Callable[[], Any]]:
    """What the command line and the web service ask, by name."""
    found: dict[str, Callable[[], Any]] = {}
    found |= {name: partial(page, database, wanted, limit=AT_ONCE) for name, wanted in FILTERS.items()}
    found |= {name: partial(studies, database, wanted, limit=AT_ONCE) for name, wanted in WORKLISTS.items()}
    return found


def row(path: Path, name: str, repeats: int, ask: Callable[[], Any], sql: str | None = None) -> None:
    """Print one line of a table."""
    statements: list[tuple[str, Any]] = [(sql, ())] if sql else []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", keep)
    ask()
    event.remove(Engine, "before_cursor_execute", keep)
    seconds = [_timed(ask) for _ in range(repeats)]
    print(f"| {name} | {statistics.median(seconds) * 1000:,.1f} | {'; '.join(_plans(path, statements))} |")


def _fetched(connection: sqlite3.Connection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


def _timed(ask: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    ask()
    return time.perf_counter() - begun


def _plans(path: Path, statements: list[tuple[str, Any]]) -> list[str]:
    """What SQLite does, each step once, without the look-up of a row's model."""
    with sqlite3.connect(path) as connection:
        steps = [r[3] for s, p in statements for r in connection.execute(f"EXPLAIN QUERY PLAN {s}", p)]
    return list(dict.fromkeys(step for step in steps if "SEARCH model" not in step))


if __name__ == "__main__":
    main()
