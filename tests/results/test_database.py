import sqlite3
from pathlib import Path

import alembic.command
import alembic.config
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from fracture_watch.errors import DatabaseUnavailable, InvalidSettings
from fracture_watch.results import database as database_room
from fracture_watch.results.database import Database, look_at
from fracture_watch.results.queries import COLUMNS
from fracture_watch.results.schema import Base
from fracture_watch.results.store import Store
from tests.databases import query
from tests.results.test_store import MODEL, classified, record


def url(tmp_path):
    return f"sqlite:///{tmp_path / 'x.db'}"


def rows(tmp_path, sql):
    with sqlite3.connect(tmp_path / "x.db") as connection:
        return connection.execute(sql).fetchall()


def test_a_new_database_has_the_two_views_with_the_contract_columns(tmp_path):
    Database(url(tmp_path)).close()
    assert [row[1] for row in rows(tmp_path, "PRAGMA table_info(results)")] == COLUMNS
    assert [row[1] for row in rows(tmp_path, "PRAGMA table_info(studies)")] == (
        "study_uid patient_id study_date files classified fractured max_probability prediction last_result_at".split()
    )


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_the_tables_that_the_migrations_make_are_those_of_the_schema(database):
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_writes_are_durable_and_foreign_keys_hold(tmp_path):
    database = Database(url(tmp_path))
    with database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_writer_holds_the_lock_from_its_first_moment(tmp_path):
    database = Database(url(tmp_path))
    other = sqlite3.connect(tmp_path / "x.db", timeout=0)
    with database.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")


def test_a_failed_transaction_leaves_nothing(tmp_path):
    database = Database(url(tmp_path))
    with pytest.raises(KeyError), database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO model VALUES ('i', 'n', 'v', 't')")
        raise KeyError
    assert rows(tmp_path, "SELECT count(*) FROM model") == [(0,)]


def test_opening_again_changes_nothing(tmp_path):
    Database(url(tmp_path)).close()
    Database(url(tmp_path)).close()
    assert [p.name for p in tmp_path.glob("*.bak")] == []


def test_a_database_of_something_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE recipes (id)")
    with pytest.raises(InvalidSettings, match="not a fracture_watch database"):
        Database(url(tmp_path))


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    Database(url(tmp_path)).close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidSettings, match="newer schema 9999"):
        Database(url(tmp_path))
    with pytest.raises(DatabaseUnavailable, match="has the schema 9999, of another version"):
        look_at(url(tmp_path))
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("DELETE FROM alembic_version")
    with pytest.raises(DatabaseUnavailable, match="of another version"):
        look_at(url(tmp_path))


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    (tmp_path / "x.db").write_bytes(b"this is a text file, not SQLite" * 100)
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        Database(url(tmp_path))
    assert (tmp_path / "x.db").read_bytes().startswith(b"this is a text")


def test_a_missing_folder_is_a_database_fault(tmp_path):
    with pytest.raises(DatabaseUnavailable):
        Database(f"sqlite:///{tmp_path / 'no' / 'x.db'}")


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_a_database_of_an_earlier_version_is_migrated_with_its_rows(database):
    """Back to the second schema with a row in it, and forth again."""
    record(Store(database, MODEL), "a", classified("aa", study_uid="1.2", patient_id="P1"))
    before = query(database, "SELECT * FROM results") + query(database, "SELECT * FROM studies")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(database_room.__file__).with_name("migrations")))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "0002")
    database.close()
    again = Database(database.url.render_as_string(hide_password=False))
    assert query(again, "SELECT * FROM results") + query(again, "SELECT * FROM studies") == before
    record(Store(again, MODEL), "b", classified("bb", study_uid="1.2"))
    assert query(again, "SELECT files, classified FROM studies") == [{"files": 2, "classified": 2}]
    with again.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    again.close()
