"""What is recorded of one row, and of nothing else."""

from sqlalchemy import text

from benchmarks.archive import build
from fracture_watch.results.trail import What, note, trail, trail_of


def test_another_patients_accession_number_may_look_like_a_rows_id(database):
    build(database, 50)
    with database.writing() as connection:
        connection.execute(text("UPDATE file SET accession_number = '1' WHERE id = 2"))
    assert {row["id"] for row in trail(database, "1").files} >= {1, 2}
    told = trail_of(database, 1)
    assert 1 in {row["id"] for row in told.files}
    assert {row["sha256"] for row in told.files} == {row["sha256"] for row in told.files if row["id"] == 1}


def test_a_path_may_come_again_with_another_file(database):
    build(database, 50)
    with database.writing() as connection:
        connection.execute(text("UPDATE file SET source_path = '/in/IMG0001.dcm' WHERE id IN (1, 2)"))
        note(connection, "/in/IMG0001.dcm", What.PUT_BACK, "the other's", 2)
        note(connection, "/in/IMG0001.dcm", What.PUT_BACK, "its own", 1)
    assert [event["detail"] for event in trail_of(database, 1).events] == ["its own"]
    assert len(trail(database, "/in/IMG0001.dcm").events) == 2


def test_of_a_row_that_is_not_there_nothing_is_recorded(database):
    build(database, 50)
    assert trail_of(database, 10**9).files == []
