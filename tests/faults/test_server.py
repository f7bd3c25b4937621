"""A PostgreSQL server that goes away under a running daemon: intake pauses, and nothing is lost or repeated."""

import contextlib
import time

import pytest

from tests.databases import PASSWORD, needs_postgresql, query
from tests.databases import cluster as start
from tests.faults.conftest import House
from tests.test_daemon import files, until


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.delenv("PGURL", raising=False)  # that of somebody else is not to be stopped
    needs_postgresql()
    started = start()
    yield started
    started.remove()


class Served(House):
    """The same on a server."""

    def rows(self, sql):
        return [tuple(row.values()) for row in query(self.database, sql)]


def test_a_server_that_is_stopped_is_waited_for(tmp_path, weights, runtime, cluster, caplog):
    house = Served(tmp_path, weights, runtime, database={"url": f"{cluster.url}/postgres"})
    with house.working():
        house.drop(1, 2)
        house.all_done(1, 2)
        for number, mode in ((3, "fast"), (4, "immediate")):
            cluster.stop(mode)
            house.drop(number)
            said = house.paused("database_unavailable", "***@127.0.0.1")
            assert PASSWORD not in said
            time.sleep(0.5)
            assert f"{number}.png" in files(house.inbox)
            cluster.start()
            house.all_done(*range(1, number + 1))
        assert "fracture_watch_paused" in house._client.get("/metrics").text
        assert house._client.get("/api/results").json["results"]
    assert PASSWORD not in caplog.text


def test_a_server_that_crashes_in_the_middle_of_a_backlog_costs_and_repeats_nothing(
    tmp_path, weights, runtime, cluster
):
    house = Served(tmp_path, weights, runtime, database={"url": f"{cluster.url}/postgres"}, model={"batch_size": 4})
    numbers = range(40)
    house.drop(*numbers)
    with house.working():
        for _ in range(2):
            done = len(files(house.processed))
            assert until(lambda done=done: len(files(house.processed)) > min(done, 30))
            cluster.stop("immediate")
            cluster.start()
        house.all_done(*numbers)


def test_the_web_says_busy_while_the_server_is_away(tmp_path, weights, runtime, cluster):
    house = Served(tmp_path, weights, runtime, database={"url": f"{cluster.url}/postgres"})
    cluster.stop()
    answer = house._client.get("/api/results")
    assert (answer.status_code, PASSWORD in answer.text) == (503, False)
    cluster.start()
    assert house._client.get("/api/results").status_code == 200
    with contextlib.closing(house.database):
        pass
