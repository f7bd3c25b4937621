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


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_every_page_and_route_answers_from_a_server(tmp_path, weights, runtime, url):
    house = Served(tmp_path, weights, runtime, database={"url": url})
    with house.working():
        house.drop(1, 2, 3)
        house.all_done(1, 2, 3)
        (house.inbox / "a.txt").write_text("no picture")
        assert until(lambda: house.rows("SELECT status FROM file WHERE filed AND status = 'rejected'"))
        client = house._client
        [number] = house.rows("SELECT min(id) FROM file")[0]
        uid = client.get("/api/studies").json["studies"][0]["study_uid"]
        assert client.post(f"/files/{number}/verdict", data={"verdict": "agree"}).status_code in (200, 302, 303)
        for path in (
            *("/", "/problems", "/accuracy", "/verdicts.csv", "/api/status", "/api/results", "/metrics", "/readyz"),
            *("/?q=sha256&modality=DX", "/?q=1.png", "/?body_part=%F0%9F%A6%B4", "/?since=2026-01-01"),
            *("/api/results?patient=%27--", "/api/results?min_probability=0.1&limit=1", "/api/studies?patient=%25"),
            *(f"/files/{number}", f"/api/results/{number}", f"/api/studies/{uid}", f"/api/files/{number}/image.png"),
        ):
            assert (path, client.get(path).status_code) == (path, 200)
        for path in ("/?q=%00", "/?body_part=a%00", "/api/results?patient=a%00b", "/api/studies/%00"):
            assert client.get(path).status_code in (200, 400, 404), path
        first = client.get("/api/results?limit=2").json
        assert len(client.get(f"/api/results?limit=2&cursor={first['next_cursor']}").json["results"]) == 2
        assert client.get("/api/results/99999999999999").status_code == 404
        assert client.get(f"/api/files/{2**70}/image.png").status_code == 404
        [broken] = house.rows("SELECT id FROM file WHERE status = 'rejected'")[0]
        assert client.post("/problems/retry", data={"id": broken}).status_code == 303
        assert until(lambda: len(house.rows("SELECT id FROM file WHERE status = 'rejected'")) == 2)
