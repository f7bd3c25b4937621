"""SQLite and PostgreSQL side by side, in one run on one machine.

    python -m benchmarks.databases

Prints the tables of docs/postgresql.md: rows a second through the store in batches, as the watcher commits them, and
what the documented questions take on many rows. PostgreSQL is started in a temporary folder as it is installed, or is
the one of `PGURL`, where a database is made and dropped.
"""

import argparse
import contextlib
import multiprocessing
import os
import platform
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text

from benchmarks.archive import NEW, build
from benchmarks.cluster import Cluster
from benchmarks.million import PAGE, pages, questions
from fracture_watch.outcomes import Classified
from fracture_watch.records import Facts, Label, Prediction, SourceFile
from fracture_watch.results.database import Database
from fracture_watch.results.store import Store
from fracture_watch.times import now

BATCH = 16  # model.batch_size
SPELLED = PAGE.with_name("postgresql.md")  # questions that PostgreSQL wants in other words
KINDS = ("SQLite", "PostgreSQL")


@dataclass(frozen=True, slots=True)
class Server:
    """Where databases are made."""

    url: str

    def make(self) -> str:
        """The URL of an empty database."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        self._run(f"CREATE DATABASE {name}")
        return f"{self.url}/{name}"

    def drop(self, url: str) -> None:
        """It is not needed any more."""
        self._run(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def _run(self, sql: str) -> None:
        url = make_url(f"{self.url}/postgres").set(drivername="postgresql+psycopg")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(sql))
        engine.dispose()


def main() -> None:
    """Write, and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="that questions are asked of")
    parser.add_argument("--written", type=int, default=4_000, help="rows that each writer writes through the store")
    parser.add_argument("--repeats", type=int, default=5, help="of each question; the median counts")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(_server())
        _say_machine(server)
        _compare_writing(folder, server, asked.written)
        _compare_asking(folder, server, asked.rows, asked.repeats)


def _say_machine(server: Server) -> None:
    url = server.make()
    database = Database(url)
    version = database.check().partition(",")[0]
    database.close()
    server.drop(url)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, SQLite {sqlite3.sqlite_version}, {version} on the same machine", flush=True)


@contextlib.contextmanager
def _server() -> Iterator[Server]:
    given = os.environ.get("PGURL")
    if given:
        yield Server(given.rstrip("/"))
        return
    cluster = Cluster(uuid.uuid4().hex)
    try:
        yield Server(cluster.url)
    finally:
        cluster.remove()


def _compare_writing(folder: Path, server: Server, rows: int) -> None:
    print(f"\n| {rows:,} rows a writer, {BATCH} a commit | writers | rows/s |\n|---|---|---|")
    for kind, writers in (("SQLite", 1), ("PostgreSQL", 1), ("PostgreSQL", 2), ("PostgreSQL", 4)):
        url = f"sqlite:///{folder / 'written.db'}" if kind == "SQLite" else server.make()
        Database(url).close()
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(writers + 1)
        processes = [context.Process(target=write, args=(url, n, rows, ready)) for n in range(writers)]
        for process in processes:
            process.start()
        ready.wait(120)
        begun = time.perf_counter()
        for process in processes:
            process.join()
        print(f"| {kind} | {writers} | {writers * rows / (time.perf_counter() - begun):,.0f} |", flush=True)
        if kind == "PostgreSQL":
            server.drop(url)


def write(url: str, number: int, rows: int, ready: Any) -> None:
    """What one watcher records: every content its own, three files a study."""
    database = Database(url)
    store = Store(database, NEW, watcher=None if url.startswith("sqlite") else f"watcher {number}")
    ready.wait(120)
    for start in range(0, rows, BATCH):
        entries = [_entry(number, n) for n in range(start, min(rows, start + BATCH))]
        recorded = store.record(entries)
        store.filed([(item, item.filed_path) for item in recorded])
    database.close()


def _entry(writer: int, n: int) -> tuple[SourceFile, Classified, Path]:
    uid = f"1.2.826.0.1.3680043.10.5432.{writer}.{n // 3}"
    facts = Facts(patient_id=f"P{n}", study_uid=uid, sop_instance_uid=f"{uid}.{n}", modality="DX", body_part="HAND")
    label = Label.FRACTURED if n % 7 == 0 else Label.NOT_FRACTURED
    path = Path(f"/data/inbox-{writer}/{n}.dcm")
    source = SourceFile(path, 9_000_000, n, n, now())
    return source, Classified(f"{writer:04}{n:060}", facts, Prediction(label, 0.5, 0.5, NEW)), path.with_suffix(".done")


def _compare_asking(folder: Path, server: Server, rows: int, repeats: int) -> None:
    urls = {"SQLite": f"sqlite:///{folder / 'asked.db'}", "PostgreSQL": server.make()}
    databases = {kind: Database(url) for kind, url in urls.items()}
    for kind, database in databases.items():
        begun = time.perf_counter()
        build(database, rows)
        print(f"\n{kind}: {rows:,} rows built in {time.perf_counter() - begun:.0f} s", flush=True)
    with databases["PostgreSQL"].writing() as connection:
        connection.execute(text("ANALYZE"))  # as the server does by itself, some time later
    print("\n| a page of 50, newest first, by | SQLite, ms | PostgreSQL, ms |\n|---|---|---|")
    asked = {kind: pages(database) for kind, database in databases.items()}
    for name in asked["SQLite"]:
        _row(name, repeats, {kind: asked[kind][name] for kind in KINDS})
    print("\n| question of docs/queries.md | SQLite, ms | PostgreSQL, ms |\n|---|---|---|")
    spelled = dict(questions(SPELLED.read_text(encoding="utf-8")))
    for name, sql in questions(PAGE.read_text(encoding="utf-8")):
        texts = {"SQLite": sql, "PostgreSQL": spelled.get(name, sql)}
        _row(name, repeats, {kind: partial(_fetched, databases[kind], texts[kind]) for kind in KINDS})
    for database in databases.values():
        database.close()
    server.drop(urls["PostgreSQL"])


def _row(name: str, repeats: int, questions_: dict[str, Callable[[], Any]]) -> None:
    print(f"| {name} | {' | '.join(_median(questions_[kind], repeats) for kind in KINDS)} |", flush=True)


def _median(ask: Callable[[], Any], repeats: int) -> str:
    """In milliseconds; the first time is not counted."""
    ask()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - begun)
    return f"{statistics.median(seconds) * 1000:,.1f}"


def _fetched(database: Database, sql: str) -> list[Any]:
    with database.reading() as connection:
        return list(connection.exec_driver_sql(sql))


if __name__ == "__main__":
    main()
