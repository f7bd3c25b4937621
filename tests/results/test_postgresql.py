"""What only a server has: others who write at the same time, rights, a locale of its own, and being away."""

import os
import random
import string
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fracture_watch.errors import DatabaseUnavailable, InvalidSettings
from fracture_watch.outcomes import Failed
from fracture_watch.records import Kind
from fracture_watch.results import queries, worklist
from fracture_watch.results.database import Database, look_at
from fracture_watch.results.outbox import Outbox, Subscription
from fracture_watch.results.postgresql import require_version
from fracture_watch.results.queries import Filter, StudyFilter
from fracture_watch.results.removal import Wanted, count_of_others, rows_to_remove, shared_places
from fracture_watch.results.store import Store
from fracture_watch.results.trail import quarantined
from fracture_watch.times import now
from tests.databases import query
from tests.results.test_plans import COMBINATIONS, FILTERS
from tests.results.test_store import MODEL, classified, record, source

pytestmark = pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="session")


@pytest.fixture
def server(kind, postgresql):
    return postgresql


def said_of(url):
    with pytest.raises((DatabaseUnavailable, InvalidSettings)) as caught:
        Database(url)
    password = make_url(url).password
    assert password not in str(caught.value)
    assert password not in repr(caught.value.__cause__)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"host": "no-such-host.invalid"}, "see the host in database.url"),
        ({"port": 1}, "; see that the server runs, and listens on that host and port"),
        ({"password": "wr0ng-guess"}, "see the user and the password in database.url"),
        ({"username": "nobody_here"}, "see the user and the password in database.url"),
        ({"query": {"nonsense": "1"}}, 'invalid connection option "nonsense"; see what stands behind the ?'),
        ({"query": {"connect_timeout": "soon"}}, "see what stands behind the ? in database.url"),
        ({"database": "no_such_database"}, 'database "no_such_database" does not exist; make it with createdb'),
    ],
)
def test_what_cannot_be_reached_is_said_with_what_to_do(server, change, said):
    wrong = make_url(server.emptied()).set(**change)
    assert said in said_of(wrong.render_as_string(hide_password=False))


def test_what_is_not_ours_or_newer_is_refused(server):
    foreign, newer = server.of(server.empty()), server.of(server.empty())
    database = Database(newer)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert "newer schema 9999" in said_of(newer)
    other = Database(foreign)
    with other.writing() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    other.close()
    assert "not a fracture_watch database" in said_of(foreign)
    with pytest.raises(DatabaseUnavailable, match="not a fracture_watch database"):
        look_at(foreign)


def test_another_encoding_or_an_old_server_is_refused(server):
    name = server.empty("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    assert "has the encoding LATIN1" in said_of(server.of(name))
    require_version((13, 0))
    with pytest.raises(InvalidSettings, match=r"PostgreSQL 12\.22; 13 or newer is needed"):
        require_version((12, 22))


@pytest.fixture
def guest(server):
    """The URL of an empty database, as a user who may connect and nothing else; and how to give rights."""
    name, role = server.empty(), f"guest_{os.getpid()}"
    owner = Database(server.of(name))
    server.run(f"DROP ROLE IF EXISTS {role}")
    server.run(f"CREATE ROLE {role} LOGIN PASSWORD 'gu3st-pw'")

    def run(sql):
        with owner.writing() as connection:
            connection.exec_driver_sql(sql.format(role))

    url = make_url(server.of(name)).set(username=role, password="gu3st-pw")
    yield url.render_as_string(hide_password=False), run
    run("DROP OWNED BY {}")
    owner.close()
    server.run(f"DROP ROLE {role}")


def test_rights_that_are_missing_are_named_at_the_start_and_while_it_runs(guest):
    url, run = guest
    assert "permission denied for table alembic_version; GRANT what is missing" in said_of(url)
    run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}")
    database = Database(url)
    store = Store(database, MODEL)
    with pytest.raises(DatabaseUnavailable, match="its user has no right to; GRANT it"):
        store.ping()
    run("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}")
    run("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}")
    record(store, "a", classified("aa"))
    run("REVOKE SELECT ON study FROM {}")
    with pytest.raises(DatabaseUnavailable, match="permission denied"):
        record(store, "b", classified("bb"))
    run("GRANT SELECT ON study TO {}")
    record(store, "b", classified("bb"))
    database.close()


def test_whoever_may_make_no_tables_is_told(guest):
    url, run = guest
    run("DROP VIEW results, studies; DROP TABLE alembic_version, verdict, outbox, event, file, study, model")
    run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert "permission denied for schema public; GRANT what is missing" in said_of(url)


def test_a_database_that_is_read_only_says_so(server):
    name = server.empty()
    Database(server.of(name)).close()
    server.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database = Database(server.of(name))
    assert query(database, "SELECT id FROM file") == []
    with pytest.raises(DatabaseUnavailable, match="is read-only: it is a standby"):
        Store(database, MODEL).ping()
    database.close()


def test_many_that_start_at_once_on_an_empty_database_make_it_once(server):
    url, together = server.of(server.empty()), threading.Barrier(4)

    def start():
        together.wait(10)
        database = Database(url)
        database.close()
        return database.check()

    with ThreadPoolExecutor(4) as pool:
        found = [future.result(60) for future in [pool.submit(start) for _ in range(4)]]
    assert len(set(found)) == 1
    assert "schema 0007; 0 files recorded" in found[0]


def test_watchers_that_get_the_same_bytes_at_the_same_time_classify_them_once(url):
    """Each content goes to every watcher, in an order of its own; studies have some of each."""
    watchers, contents, together = 4, 40, threading.Barrier(4)

    def watch(number):
        database = Database(url)
        store = Store(database, MODEL, [Subscription("webhook:x", frozenset(Kind))], f"watcher-{number}")
        order = list(range(contents))
        random.Random(number).shuffle(order)
        together.wait(10)
        for start in range(0, contents, 8):
            batch = order[start : start + 8]
            facts = [{"study_uid": f"1.{n % 5}", "sop_instance_uid": f"2.{n % 20}"} for n in batch]
            outcomes = [classified(f"{n:064}", 0.9, **known) for n, known in zip(batch, facts, strict=True)]
            store.record([(source(f"{number}-{n}"), o, None) for n, o in zip(batch, outcomes, strict=True)])
        database.close()

    with ThreadPoolExecutor(watchers) as pool:
        for future in [pool.submit(watch, number) for number in range(watchers)]:
            future.result(60)
    database = Database(url)
    counts = query(
        database, "SELECT status, count(*) AS n, count(DISTINCT sha256) AS of FROM file GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row.values()) for row in counts] == [("classified", 40, 40), ("duplicate", 120, 40)]
    lost = "SELECT count(*) AS n FROM file d JOIN file o ON o.id = d.duplicate_of AND o.sha256 = d.sha256"
    assert query(database, f"{lost} WHERE o.status = 'classified' AND o.id < d.id") == [{"n": 120}]
    studies = query(database, "SELECT study_uid, files, classified, fractured FROM studies ORDER BY 1")
    assert [tuple(row.values()) for row in studies] == [(f"1.{n}", 8, 8, 8) for n in range(5)]
    # Of the two contents under a SOP Instance UID the later one says so, and neither is overlooked.
    noted = query(database, "SELECT count(*) AS n FROM file WHERE notes LIKE '%same SOP Instance UID%'")
    assert noted == [{"n": 20}]
    # Numbers, times and commits are in one order: whoever reads page by page misses nothing.
    times = [row["completed_at"] for row in query(database, "SELECT completed_at FROM file ORDER BY id")]
    assert times == sorted(times)
    told = query(database, "SELECT kind, count(*) AS n FROM outbox GROUP BY kind ORDER BY kind")
    assert [tuple(row.values()) for row in told] == [("result", 160), ("study", 5)]
    database.close()


def test_one_sender_at_a_time_for_a_destination(url):
    one, other = Database(url), Database(url)
    with Outbox(one).turn("webhook:x") as ours, Outbox(other).turn("webhook:x") as theirs:
        assert (ours, theirs) == (True, False)
        with Outbox(other).turn("webhook:y") as another:
            assert another
    with Outbox(other).turn("webhook:x") as theirs:
        assert theirs
    one.close()
    other.close()


def test_paths_are_of_the_watcher_who_has_them(database):
    """Two machines, the same folders: neither takes the other's files for its own."""
    mine, theirs = (Store(database, MODEL, watcher=name) for name in ("mine", "theirs"))
    kept = source("kept")
    mine.record([(kept, classified("aa", patient_id="P"), kept.path)])
    ours, failed = record(mine, "a", classified("bb")), record(mine, "b", Failed("corrupt", "x", "cc"))
    assert (mine.unchanged([kept]), theirs.unchanged([kept])) == ({kept}, set())
    assert [[r.id for r in store.unfiled(Path("/in"))] for store in (mine, theirs)] == [[ours.id, failed.id], []]
    mine.filed([(ours, Path("/done/a")), (failed, Path("/bad/b"))])
    assert [len(quarantined(database, Path("/bad"), watcher=name)) for name in ("mine", "theirs", None)] == [1, 0, 0]
    wanted = Wanted(patient=("P",))
    assert [[len(rows) for rows in rows_to_remove(database, wanted, name)] for name in ("mine", "theirs")] == [[1], []]
    assert [count_of_others(database, wanted, name) for name in ("mine", "theirs", None)] == [0, 1, 1]
    old = Wanted(before=now())
    [rows] = rows_to_remove(database, old, "mine")
    record(theirs, "a", classified("dd"))
    assert shared_places(database, rows, old, "mine") == set()
    new = Store(database, replace(MODEL, id="new"), watcher="theirs")
    assert list(new.outdated()) == [Path("/done/a")]  # their own of that name


def test_text_that_a_server_refuses_finds_nothing_and_names_of_any_length_are_recorded(database):
    store = Store(database, MODEL)
    folder = "/".join("".join(random.Random(n).choices(string.printable.replace("/", ""), k=250)) for n in range(15))
    path = Path("/in") / folder.replace("\0", "")
    long = replace(source("x"), path=path)
    store.record([(long, classified("aa", patient_id="P1", study_uid="1.2"), path)])
    assert store.unchanged([long]) == {long}
    store.note_postponed(long, "nul \0 and half \ud800 a character")
    for evil in ("P1\0", "\0", "\ud800", "'; DROP TABLE file; --"):
        assert list(queries.results(database, Filter(patient=evil))) == []
        assert queries.studies(database, StudyFilter(patient=evil)).rows == []
        assert worklist.page(database, worklist.Wanted(text=evil)).rows == []
    start = str(path)[4:40]
    for inside in (start, str(path)[4:600]):
        assert len(worklist.page(database, worklist.Wanted(text=inside, inbox="/in")).rows) == 1
    assert queries.one(database, 2**62) is None


def test_the_order_is_that_of_sqlite_whatever_the_servers_locale(server):
    name = server.empty("LOCALE_PROVIDER icu ICU_LOCALE 'en' TEMPLATE template0")
    database = Database(server.of(name))
    store, names = Store(database, MODEL), ["a", "B", "_", "ä", "Z", "10", "9", "-a"]
    for text_ in names:
        record(store, text_, classified(text_ * 2, 0.9, study_uid=text_, body_part=text_, patient_id=text_))
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE study SET last_result_at = '2026'")
    assert worklist.choices(database, "body_part") == sorted(names)
    pages, cursor = [], None
    while cursor or not pages:
        page = queries.studies(database, StudyFilter(), cursor, 3)
        pages, cursor = pages + [row["study_uid"] for row in page.rows], page.next_cursor
    assert pages == sorted(names, reverse=True)
    assert [row["study_uid"] for row in worklist.page(database, worklist.Wanted(text="Z")).rows] == ["Z"]
    database.close()


def steps(database, statement):
    """The plan where reading a whole table is the last resort; on few rows it would be the first."""
    with database.reading() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {str(compiled).replace('%', '%%')}"))


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_no_filter_has_to_read_a_whole_table(database, names):
    wanted = Filter(**{name: FILTERS[name] for name in names}, limit=50)
    assert "Seq Scan on file" not in steps(database, wanted.statement())
    if not {"study", "status"} & set(names):
        ordered = StudyFilter(**{name: FILTERS[name] for name in names}).statement()
        assert "Seq Scan on study" not in steps(database, ordered)


def test_a_connection_that_breaks_is_a_fault_of_the_database_and_the_next_one_works(server, database):
    store = Store(database, MODEL)
    record(store, "a", classified("aa"))
    name = database.url.database
    kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    with pytest.raises(DatabaseUnavailable, match="work goes on by itself"), database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO model VALUES ('i', 'n', 'v', 't')")
        server.run(kill)
        connection.exec_driver_sql("SELECT 1")
    server.run(kill)  # what waits idle in the pool is found out before it is used
    record(store, "b", classified("bb"))
    assert query(database, "SELECT status FROM results") == [{"status": "classified"}] * 2
    assert query(database, "SELECT id FROM model") == [{"id": MODEL.id}]


@pytest.mark.slow
def test_a_lock_that_outlasts_the_patience_is_said(url):
    one, other = Database(url), Database(url)
    with (
        one.writing(),
        pytest.raises(DatabaseUnavailable, match="lock timeout; another program has it locked"),
        other.writing(),
    ):
        pass
    one.close()
    other.close()
