"""Lists, predictions and bounds, asked of the running daemon."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from tests.conftest import png
from tests.dicoms import dicom
from tests.web.conftest import PATIENT, PIXELS, STUDY

HAND = dicom(PIXELS)


def get(live, path, **options):
    return requests.get(live.url + path, timeout=60, **options)


def test_pages_hold_every_result_once(live):
    ids, path = [], "/api/results?limit=2"
    while path:
        page = get(live, path).json()
        assert len(page["results"]) <= 2
        ids += [row["id"] for row in page["results"]]
        path = page["next_cursor"] and f"/api/results?limit=2&cursor={page['next_cursor']}"
    assert sorted(ids) == sorted(row["id"] for row in get(live, "/api/results").json()["results"])
    assert len(ids) == len(set(ids)) >= 6


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (f"patient={PATIENT}", {"hand.dcm", "hand-2.dcm"}),
        (f"study={STUDY}&prediction=not+fractured&status=classified", {"hand.dcm", "hand-2.dcm"}),
        ("status=rejected", {"notes.txt"}),
        ("min_probability=1", set()),
        ("since=2020-01-01&until=2021-01-01T00:00:00Z", set()),
    ],
)
def test_results_are_filtered(live, asked, names):
    rows = get(live, f"/api/results?{asked}").json()["results"]
    assert {row["source_path"].rsplit("/", 1)[-1] for row in rows} == names


def test_one_result_and_one_study(live):
    result = get(live, "/api/results/1").json()
    assert (result["patient_id"], result["status"], result["modality"]) == (PATIENT, "classified", "DX")
    assert isinstance(result["notes"], list)
    study = get(live, f"/api/studies/{STUDY}").json()
    assert (study["files"], study["classified"], len(study["results"])) == (2, 2, 2)
    picture = get(live, "/api/results?status=duplicate").json()["results"][0]
    assert get(live, f"/api/studies/sha256:{picture['sha256']}").json()["files"] == 1
    assert "Not a medical device" in study["disclaimer"]


def test_the_worklist_begins_with_what_is_fractured(live):
    studies = get(live, "/api/studies").json()["studies"]
    assert [s["prediction"] for s in studies] == sorted((s["prediction"] for s in studies), key=lambda p: p or "z")
    assert get(live, "/api/studies?prediction=fractured").json()["studies"][0] == studies[0]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/results?patinet=x", 400, "bad_request"),
        ("/api/results?limit=1&limit=2", 400, "bad_request"),
        ("/api/results?limit=501", 400, "bad_request"),
        ("/api/results?since=yesterday", 400, "bad_request"),
        ("/api/results?min_probability=nan", 400, "bad_request"),
        ("/api/results?cursor=made-up", 400, "invalid_cursor"),
        ("/api/results/9999", 404, "not_found"),
        ("/api/results/99999999999999999999", 404, "not_found"),
        ("/api/studies/1.2.3", 404, "not_found"),
        ("/api/nothing", 404, "not_found"),
    ],
)
def test_what_cannot_be_answered_says_why(live, path, status, code):
    answer = get(live, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["detail"]


def test_a_complaint_names_the_parameter(live):
    assert "no parameter 'patinet' here; there are prediction, since" in get(live, "/api/results?patinet=x").text
    assert "since: is no ISO 8601" in get(live, "/api/results?since=yesterday").text


def test_the_status_says_what_the_daemon_does_and_with_which_model(live):
    body = get(live, "/api/status").json()
    assert body["watcher"]["running"] is True
    assert body["watcher"]["paused"] is None
    assert (body["model"]["name"], body["model"]["threshold"]) == ("tiny", 0.5)


def test_a_list_that_has_not_changed_is_not_sent_again(live):
    first = get(live, "/api/results?limit=5")
    same = get(live, "/api/results?limit=5", headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.content, first.headers["Cache-Control"]) == (304, b"", "private, no-cache")
    live.drop("new.png", png(77))
    changed = get(live, "/api/results?limit=5", headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.headers["ETag"] != first.headers["ETag"]) == (200, True)


def test_many_files_are_answered_in_order_with_their_own_errors(live):
    files = [("file", ("a.dcm", HAND)), ("file", ("b.txt", b"text")), ("file", ("c.dcm", HAND[:-9]))]
    files += [("file", (f"{number}.png", png(number))) for number in range(4)]
    answer = requests.post(f"{live.url}/api/predictions?heatmap=1", files=files, timeout=60)
    entries = answer.json()
    assert answer.status_code == 200
    assert [entry["file"] for entry in entries] == ["a.dcm", "b.txt", "c.dcm", "0.png", "1.png", "2.png", "3.png"]
    assert [entry["code"] for entry in entries] == [None, "not_an_image", "truncated", None, None, None, None]
    assert entries[0]["heatmap"].startswith("data:image/png;base64,")
    assert entries[0]["prediction"] in ("fractured", "not fractured")
    assert all("Not a medical device" in entry["disclaimer"] for entry in entries)


@pytest.mark.parametrize(("count", "code"), [(0, "no_file"), (65, "too_many_files")])
def test_no_file_and_too_many_are_refused(live, count, code):
    answer = requests.post(f"{live.url}/api/predictions", files=[("file", ("a", b"x"))] * count, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_head_options_and_methods_that_there_are_not(live):
    head = requests.head(f"{live.url}/api/results", timeout=60)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(get(live, "/api/results").content)
    allowed = requests.options(f"{live.url}/predict", timeout=60)
    assert (allowed.status_code, set(allowed.headers["Allow"].split(", "))) == (200, {"POST", "OPTIONS"})
    wrong = requests.delete(f"{live.url}/api/results/1", timeout=60)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize(("given", "kept"), [("a-b_c.1", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_every_answer_has_a_name_that_the_log_knows(live, given, kept):
    for path in ("/api/status", "/api/results/9999"):
        name = get(live, path, headers={"X-Request-ID": given}).headers["X-Request-ID"]
        assert (name == given) is kept
        live.process.until(lambda name=name: f"request {name})" in live.process.said())


def test_the_log_names_routes_and_no_patients(live):
    get(live, f"/api/results?patient={PATIENT}")
    get(live, f"/api/studies/{STUDY}")
    live.process.until(lambda: "GET /api/studies/<path:uid>: 200" in live.process.said())
    assert PATIENT not in live.process.said()
    assert STUDY not in live.process.said()


def test_an_upload_over_the_limit_is_refused(live):
    answer = requests.post(f"{live.url}/predict", files={"file": ("a.dcm", bytes(1_500_000))}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "1 MiB (web.max_upload_mb)" in answer.json()["error"]["detail"]


@pytest.mark.parametrize("length", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_an_upload_without_end_is_cut_off_while_it_is_read(live, length):
    place = urlsplit(live.url)
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    lines = "POST /predict HTTP/1.1", f"Host: {place.netloc}", "Content-Type: multipart/form-data; boundary=x", length
    sent = 0
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        try:
            while sent < 100 << 20:
                sent += connection.send(chunk)
        except OSError:  # the server has closed it
            pass
    assert sent < 20 << 20  # twice the limit, and what the system's buffers take
    assert get(live, "/healthz").status_code == 200


def test_a_chunked_upload_within_the_limit_is_answered(live):
    parts = requests.Request("POST", f"{live.url}/predict", files={"file": ("a.dcm", HAND)}).prepare()
    body, kind = parts.body, parts.headers["Content-Type"]
    pieces = (body[start : start + 5000] for start in range(0, len(body), 5000))
    answer = requests.post(f"{live.url}/predict", data=pieces, headers={"Content-Type": kind}, timeout=60)
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    assert (answer.status_code, answer.json()["model"]["name"]) == (200, "tiny")


def test_a_burst_is_answered_or_told_to_come_back(live):
    def ask(_):
        return requests.post(f"{live.url}/predict", files={"file": ("a.dcm", HAND)}, timeout=120)

    with ThreadPoolExecutor(64) as clients:
        answers = [clients.submit(ask, number) for number in range(64)]
        time.sleep(0.05)
        assert get(live, "/healthz").status_code == 200
        answers = [answer.result() for answer in answers]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 8
    for answer in answers:
        if answer.status_code == 503:
            assert (answer.json()["error"]["code"], answer.headers["Retry-After"]) == ("busy", "1")
    assert ask(0).status_code == 200
