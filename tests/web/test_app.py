import atexit
import functools
import io
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks.archive import build
from fracture_watch.daemon import DaemonStatus
from fracture_watch.outcomes import Classified
from fracture_watch.pipeline import Pipeline
from fracture_watch.privacy import Privacy
from fracture_watch.receive.door import Listening
from fracture_watch.records import Facts, Label, ModelFacts, Prediction
from fracture_watch.results import verdicts
from fracture_watch.results.database import Database
from fracture_watch.results.trail import Quarantined
from fracture_watch.service import PutBack
from fracture_watch.web.app import Access, create_app
from fracture_watch.web.site import Site
from tests.test_pipeline import CountingClassifier, TableDecoder, prepared


@functools.cache
def empty_database():
    """One for all: nothing is written to it."""
    folder = Path(tempfile.mkdtemp(prefix="fw-empty-"))
    atexit.register(shutil.rmtree, folder)
    return Database(f"sqlite:///{folder / 'empty.db'}")


def site_of(tmp_path, pipeline, status=None, database=None, viewer=None):
    return Site(
        pipeline=pipeline,
        illustrate=lambda item, prediction: "data:image/png;base64,AA==",
        viewer=viewer,
        status=lambda: status,
        metrics=lambda: b"fracture_watch_waiting_files 3\n",
        database=database or empty_database(),
        model=ModelFacts("m", "1", "x"),
        threshold=0.5,
        inbox=tmp_path,
        patient=lambda asked: asked,
    )


def client(tmp_path, pipeline, status=None, database=None, viewer=None, **access):
    defaults = {"host": "127.0.0.1", "token": None, "max_upload_bytes": 1 << 20}
    site = site_of(tmp_path, pipeline, status, database, viewer)
    return create_app(site, Access(**(defaults | access))).test_client()


@pytest.fixture
def pipeline():
    from fracture_watch.errors import Corrupt, NotAnImage

    decoder = TableDecoder(**{"a.dcm": prepared("aa"), "b.txt": NotAnImage("a text"), "c.dcm": Corrupt("broken")})
    return Pipeline(decoder, CountingClassifier())


def send(client, name="a.dcm", url="/predict", **headers):
    return client.post(url, data={"file": (io.BytesIO(b"x"), name)}, headers=headers)


def test_a_prediction_answers_with_the_contract_keys(tmp_path, pipeline):
    answer = send(client(tmp_path, pipeline))
    assert answer.status_code == 200
    assert answer.get_json() == {
        "prediction": "fractured",
        "probability": 0.9,
        "threshold": 0.5,
        "frame": 0,
        "model": {"name": "m", "version": "1", "id": "x"},
        "notes": ["noted"],
        "disclaimer": "Research use only. Not a medical device.",
    }


def test_a_heat_map_is_added_when_asked_for(tmp_path, pipeline):
    assert send(client(tmp_path, pipeline), url="/predict?heatmap=1").get_json()["heatmap"].startswith("data:image/png")


@pytest.mark.parametrize(("name", "status", "code"), [("b.txt", 415, "not_an_image"), ("c.dcm", 422, "corrupt")])
def test_what_cannot_be_classified_says_why(tmp_path, pipeline, name, status, code):
    answer = send(client(tmp_path, pipeline), name)
    assert answer.status_code == status
    assert answer.get_json()["error"]["code"] == code
    assert answer.get_json()["error"]["detail"]


def test_no_file_is_a_bad_request(tmp_path, pipeline):
    answer = client(tmp_path, pipeline).post("/predict")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "no_file")


def test_a_large_upload_is_refused(tmp_path, pipeline):
    answer = client(tmp_path, pipeline, max_upload_bytes=1024).post(
        "/predict", data={"file": (io.BytesIO(bytes(5000)), "a.dcm")}
    )
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (413, "too_large")


def test_a_radiograph_that_is_sent_as_text_is_no_file_and_not_too_large(tmp_path, pipeline):
    asked = client(tmp_path, pipeline)
    answer = asked.post("/predict", data={"file": "x" * 600_000}, content_type="multipart/form-data")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "no_file")
    assert "-F file=@NAME" in answer.get_json()["error"]["detail"]
    assert asked.post("/predict", data={"file": "x" * 2_000_000}).status_code == 413


def test_several_files_are_told_where_they_are_answered(tmp_path, pipeline):
    asked = client(tmp_path, pipeline)
    answer = asked.post("/predict", data={"file": [(io.BytesIO(b"x"), "a.dcm"), (io.BytesIO(b"x"), "b.txt")]})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "too_many_files")
    assert "/api/predictions" in answer.get_json()["error"]["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/predict", 405), ("GET", "/nowhere", 404)])
def test_every_error_is_json(tmp_path, pipeline, method, path, status):
    answer = client(tmp_path, pipeline).open(path, method=method)
    assert answer.status_code == status
    assert set(answer.get_json()["error"]) == {"code", "detail"}


def test_too_many_at_once_are_told_to_come_back(tmp_path):
    release, waiting = threading.Event(), threading.Semaphore(0)

    class Slow:
        def run(self, batch, draw):
            waiting.release()
            release.wait(10)
            prediction = Prediction(Label.FRACTURED, 0.9, 0.5, ModelFacts("m", "1", "x"))
            return [Classified("aa", Facts(), prediction)]

    app = client(tmp_path, Slow()).application
    threads = [threading.Thread(target=send, args=(app.test_client(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert waiting.acquire(timeout=10)
    busy = send(app.test_client())
    release.set()
    for thread in threads:
        thread.join(10)
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "1")
    assert send(app.test_client()).status_code == 200


def test_where_no_patient_is_recorded_everything_else_is_still_searched_for(tmp_path, pipeline):
    site = replace(site_of(tmp_path, pipeline), patient=Privacy("drop").patient)
    pages = create_app(site, Access("127.0.0.1", None, 1 << 20)).test_client()
    assert pages.get("/?q=1.2.840").status_code == 200
    answer = pages.get("/api/results?patient=4711")  # which can be nothing but a patient
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "wrong_use")


@pytest.mark.parametrize("number", ["99999999999999999999", "9" * 5000, "-1", "0", "one", ["3", "abc"], ["3", ""]])
def test_a_result_that_no_database_can_hold_is_not_put_back(tmp_path, pipeline, number):
    # With none left to name, everything would be: an empty list stands for all.
    refused = replace(site_of(tmp_path, pipeline), retry=lambda ids: pytest.fail(f"asked for {ids}"))
    pages = create_app(refused, Access("127.0.0.1", None, 1 << 20)).test_client()
    assert pages.post("/problems/retry", data={"id": number}).status_code == 400


def test_a_result_that_is_named_twice_is_put_back_once(tmp_path, pipeline):
    def retry(ids):
        return [PutBack(Quarantined(number, Path("/in/a"), Path("/bad/a"), "corrupt"), Path("/in/a")) for number in ids]

    pages = create_app(replace(site_of(tmp_path, pipeline), retry=retry), Access("127.0.0.1", None, 1 << 20))
    answer = pages.test_client().post("/problems/retry", data={"id": ["3", "3", "03"]})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/problems")


@pytest.fixture
def judged(tmp_path):
    """A client of a few results, and the number of one with a prediction."""
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    build(database, 50)
    with database.reading() as connection:
        number = connection.scalar(text("SELECT min(id) FROM results WHERE status = 'classified'"))
    yield client(tmp_path, None, database=database), database, number
    database.close()


def test_a_verdict_that_is_refused_is_not_recorded(judged):
    asked, database, number = judged
    for query in ("bogus=1", "since=soon"):
        answer = asked.post(f"/files/{number}/verdict?{query}", data={"verdict": "agree"})
        assert (answer.status_code, verdicts.history(database, number)) == (400, [])
    answer = asked.post(f"/files/{number}/verdict?q=a", data={"verdict": "agree"})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/files/{number}?q=a")
    assert len(verdicts.history(database, number)) == 1


def test_a_program_that_asks_a_page_for_json_gets_its_errors_as_json_too(judged):
    asked, database, number = judged
    with database.reading() as connection:
        failed = connection.scalar(text("SELECT min(id) FROM results WHERE status = 'failed'"))
    for there, verdict, status, code in (
        (number, "nonsense", 400, "bad_request"),
        (failed, "agree", 400, "wrong_use"),
        (10**9, "agree", 404, "not_found"),
    ):
        told = asked.post(f"/files/{there}/verdict", data={"verdict": verdict}, headers={"Accept": "application/json"})
        assert (told.status_code, told.get_json()["error"]["code"]) == (status, code)
        shown = asked.post(f"/files/{there}/verdict", data={"verdict": verdict}, headers={"Accept": "text/html"})
        assert (shown.status_code, shown.mimetype) == (status, "text/html")


@pytest.mark.parametrize(
    "asked",
    [
        "/?since=1700006400", "/?until=2020", "/?since=2026-01-31T08:00:00", "/verdicts.csv?since=2020-01-01",
        "/accuracy?model=m", "/try?heatmap=1",
    ],
)  # fmt: skip
def test_what_a_page_cannot_be_asked_is_refused(tmp_path, pipeline, asked):
    pages = client(tmp_path, pipeline)
    assert pages.get(asked).status_code == 400
    assert pages.get(asked.partition("?")[0]).status_code == 200


def test_days_are_iso_dates(tmp_path, pipeline):
    pages = client(tmp_path, pipeline)
    assert pages.get("/?since=2023-11-15&until=").status_code == 200
    assert "since: is no ISO 8601 date" in pages.get("/?since=1700006400").get_data(as_text=True)


@pytest.mark.parametrize("path", ["/", "/accuracy", "/verdicts.csv"])
def test_head_has_the_headers_of_get(tmp_path, pipeline, path):
    pages = client(tmp_path, pipeline)
    got, head = pages.get(path), pages.head(path)
    for name in ("Cache-Control", "ETag", "Content-Length", "Content-Type"):
        assert head.headers[name] == got.headers[name]
    assert pages.head(path, headers={"If-None-Match": got.headers["ETag"]}).status_code == 304


def imported(app, content):
    return app.test_client().post("/accuracy", data={"labels": (io.BytesIO(content), "truth.csv")})


def test_an_import_is_bounded(tmp_path, pipeline):
    app = client(tmp_path, pipeline, max_upload_bytes=64 << 20).application
    for content, said in (
        (b"path,label\n" + b"".join(b"%d,0\n" % n for n in range(200_001)), "has over 200,000 lines"),
        (b"path,label," + b"a" * (17 << 20), "is larger than 16 MiB"),
        (b"path,label," + b"a," * (7 << 20) + b"\n", "has no rows"),
        (b"path,label\n\xff,0\n", "cannot be read as a UTF-8 CSV file"),
    ):
        answer = imported(app, content)
        assert (answer.status_code, said in answer.get_data(as_text=True)) == (400, True), said


def test_one_import_goes_on_at_a_time(tmp_path, pipeline):
    release, waiting = threading.Event(), threading.Event()

    def aliases(place):
        waiting.set()
        release.wait(10)
        return ()

    app = create_app(replace(site_of(tmp_path, pipeline), aliases=aliases), Access("127.0.0.1", None, 1 << 20))
    first = threading.Thread(target=imported, args=(app, b"path,label\na,0\n"))
    first.start()
    assert waiting.wait(10)
    busy = imported(app, b"path,label\na,0\n")
    release.set()
    first.join(10)
    assert busy.status_code == 503
    assert "imports as may be at once (1)" in busy.get_data(as_text=True)
    assert imported(app, b"path,label\na,0\n").status_code == 200


def test_other_hosts_names_are_refused_on_loopback(tmp_path, pipeline):
    answer = client(tmp_path, pipeline).get("/healthz", headers={"Host": "evil.example"})
    assert answer.status_code == 403


def test_a_proxy_may_pass_on_its_own_name_where_there_is_a_token(tmp_path, pipeline):
    asked = client(tmp_path, pipeline, token="secret")
    there = {"Host": "fw.hospital.example", "Origin": "https://fw.hospital.example"}
    assert send(asked, **there).status_code == 401
    assert send(asked, **there, Authorization="Bearer secret").status_code == 200
    assert asked.post("/login", data={"token": "secret"}, headers=there).status_code == 303
    assert send(asked, **there | {"Origin": "https://evil.example"}, Authorization="Bearer secret").status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost", "[::1]:5000"])
def test_loopback_names_are_let_in(tmp_path, pipeline, host):
    assert client(tmp_path, pipeline).get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "http://[x"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_posts_from_other_sites_are_refused(tmp_path, pipeline, headers):
    assert send(client(tmp_path, pipeline), **headers).status_code == 403


def test_posts_from_the_own_page_are_let_in(tmp_path, pipeline):
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert send(client(tmp_path, pipeline), **headers).status_code == 200


def test_a_token_is_wanted_where_one_is_set(tmp_path, pipeline):
    guarded = client(tmp_path, pipeline, host="0.0.0.0", token="secret")
    assert send(guarded).status_code == 401
    assert send(guarded, Authorization="Bearer wrong").status_code == 401
    assert send(guarded, Authorization="Bearer secret").status_code == 200
    assert guarded.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("status", "code", "reasons"),
    [
        (DaemonStatus("events", None, 3, 7.25, True), 200, []),
        (DaemonStatus("events", "storage_unavailable: full", 3, 7.25, True), 503, ["storage_unavailable: full"]),
        (DaemonStatus("polling: it is a test", None, 0, 0.0, False), 503, ["the watcher is not running"]),
    ],
)
def test_readiness_has_reasons(tmp_path, pipeline, status, code, reasons):
    answer = client(tmp_path, pipeline, status).get("/readyz")
    assert (answer.status_code, answer.get_json()["reasons"]) == (code, reasons)
    assert answer.get_json()["watching"] == status.mode
    assert ("Retry-After" in answer.headers) is (code == 503)


@pytest.mark.parametrize(
    ("running", "refusing", "reasons"),
    [
        (True, None, []),
        (True, "the disk is full", ["DICOM objects are refused: the disk is full"]),
        (False, None, ["the DICOM receiver is not running"]),
    ],
)
def test_readiness_tells_of_the_receiver(tmp_path, pipeline, running, refusing, reasons):
    watcher = DaemonStatus("events", None, 0, 0.0, True)
    site = replace(
        site_of(tmp_path, pipeline, watcher), receiver=lambda: Listening("US", "127.0.0.1:1", 2, running, refusing)
    )
    answer = create_app(site, Access("127.0.0.1", None, 1 << 20)).test_client().get("/readyz")
    assert answer.status_code == (503 if reasons else 200)
    assert answer.get_json()["reasons"] == reasons
    assert answer.get_json()["receiving"] == {"ae_title": "US", "address": "127.0.0.1:1", "associations": 2}


def test_metrics_are_prometheus_text_and_want_the_token(tmp_path, pipeline):
    answer = client(tmp_path, pipeline).get("/metrics")
    assert (answer.get_data(), answer.mimetype) == (b"fracture_watch_waiting_files 3\n", "text/plain")
    assert client(tmp_path, pipeline, token="secret").get("/metrics").status_code == 401


def test_without_a_watcher_the_service_is_ready(tmp_path, pipeline):
    assert client(tmp_path, pipeline).get("/readyz").get_json() == {"ready": True, "watching": None}


def test_without_a_watcher_a_database_that_is_away_is_a_reason(tmp_path, pipeline):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    asked = client(tmp_path, pipeline, database=database)
    assert asked.get("/readyz").status_code == 200
    (tmp_path / "x.db").rename(tmp_path / "away.db")
    answer = asked.get("/readyz")
    assert (answer.status_code, answer.get_json()["ready"], answer.headers["Retry-After"]) == (503, False, "5")
    assert answer.get_json()["reasons"][0].startswith("database_unavailable: ")
    assert asked.get("/healthz").status_code == 200
    (tmp_path / "away.db").rename(tmp_path / "x.db")
    assert asked.get("/readyz").get_json() == {"ready": True, "watching": None}
    database.close()


def test_answers_carry_security_headers(tmp_path, pipeline):
    headers = client(tmp_path, pipeline).get("/").headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
