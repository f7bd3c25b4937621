"""Who is let in: tokens, logins, guessers, other web sites."""

import re

import pytest

from fracture_watch.pipeline import Pipeline
from fracture_watch.web.access import COOKIE, SESSION_SECONDS, Access, Throttle, safe_next
from fracture_watch.web.app import create_app
from tests.test_pipeline import CountingClassifier, TableDecoder, prepared
from tests.web.test_app import client as open_client
from tests.web.test_app import send, site_of

TOKEN = "the-token-of-the-tests"
HTML = {"Accept": "text/html,application/xhtml+xml"}


class Clock:
    """Time that goes on when the test says so."""

    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client(tmp_path, clock):
    pipeline = Pipeline(TableDecoder(**{"a.dcm": prepared("aa")}), CountingClassifier())
    return create_app(site_of(tmp_path, pipeline), Access("0.0.0.0", TOKEN, 1 << 20), clock).test_client()


def log_in(client, token=TOKEN, **fields):
    return client.post("/login", data={"token": token} | fields)


def csrf(client):
    return re.search(r'name="csrf_token" value="([^"]+)"', client.get("/").get_data(as_text=True))[1]


def test_a_browser_is_led_to_the_form_and_a_program_is_told(client):
    answer = client.get("/?patient=Ana", headers=HTML)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/")
    told = client.get("/")
    assert (told.status_code, told.get_json()["error"]["code"]) == (401, "unauthorized")
    assert told.headers["WWW-Authenticate"].startswith("Bearer")
    assert send(client, Accept="text/html").status_code == 401  # what was posted would be lost on the way
    assert client.get("/static/style.css").status_code == 200


def test_a_login_opens_the_page_and_a_logout_closes_it(client):
    answer = log_in(client, next="/")
    cookie = answer.headers["Set-Cookie"]
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    assert client.get("/login").headers["Location"] == "/"
    number, stolen = csrf(client), client.get_cookie(COOKIE).value
    assert client.post("/logout", data={"csrf_token": number}).headers["Location"] == "/login"
    client.set_cookie(COOKIE, stolen)
    assert client.get("/").status_code == 401


def test_behind_tls_the_cookie_stays_there(client):
    answer = client.post("/login", data={"token": TOKEN}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["Set-Cookie"]


def test_a_login_ends_after_half_a_day(client, clock):
    log_in(client)
    clock.time += SESSION_SECONDS - 1
    assert client.get("/").status_code == 200
    clock.time += 2
    assert client.get("/").status_code == 401


def test_a_made_up_cookie_is_no_login(client):
    client.set_cookie(COOKIE, "x" * 43)
    assert client.get("/").status_code == 401


def test_with_a_cookie_posts_want_the_number_of_the_page(client):
    log_in(client)
    number = csrf(client)
    assert send(client).status_code == 403
    assert send(client, **{"X-CSRF-Token": "other"}).status_code == 403
    assert send(client, **{"X-CSRF-Token": number}).status_code == 200
    assert client.post("/logout").status_code == 403
    assert client.get("/").status_code == 200


def test_another_login_has_another_number(client):
    log_in(client)
    first = csrf(client)
    log_in(client)
    assert csrf(client) != first
    assert send(client, **{"X-CSRF-Token": first}).status_code == 403


def test_with_the_token_in_the_header_nothing_else_is_wanted(client):
    assert send(client, Authorization=f"Bearer {TOKEN}").status_code == 200
    log_in(client)
    assert send(client, Authorization="Bearer wrong").status_code == 401  # the header counts, not the cookie


def test_a_proxy_may_ask_for_a_password_of_its_own(client):
    proxied = HTML | {"Authorization": "Basic YTpi"}
    assert client.get("/", headers=proxied).headers["Location"] == "/login?next=/"
    assert client.post("/login", data={"token": TOKEN}, headers=proxied).status_code == 303
    page = client.get("/", headers=proxied)
    assert page.status_code == 200
    assert send(client, Authorization="Basic YTpi").status_code == 403  # the cookie counts, with its number
    assert send(client, **{"Authorization": "Basic YTpi", "X-CSRF-Token": csrf(client)}).status_code == 200


def test_the_name_of_the_scheme_is_no_matter_of_case(client):
    assert send(client, Authorization=f"bearer {TOKEN}").status_code == 200
    assert send(client, Authorization=TOKEN).status_code == 401


def test_who_posts_a_form_after_the_login_has_ended_gets_the_login_form(client, clock):
    log_in(client)
    form = {"verdict": "agree", "csrf_token": csrf(client)}
    clock.time += SESSION_SECONDS + 1
    answer = client.post("/files/1/verdict", data=form, headers=HTML)
    assert (answer.status_code, answer.mimetype) == (401, "text/html")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    page = answer.get_data(as_text=True)
    assert "what was sent is lost" in page
    assert 'name="token"' in page
    assert client.post("/files/1/verdict", data=form).get_json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_another_site_can_neither_log_in_nor_out(client, headers):
    assert client.post("/login", data={"token": TOKEN}, headers=headers).status_code == 403
    log_in(client)
    assert client.post("/logout", data={"csrf_token": csrf(client)}, headers=headers).status_code == 403


def test_who_guesses_has_to_wait_and_is_not_even_compared(client, clock):
    for number in range(6):
        assert log_in(client, f"guess {number}").status_code == 401
    answer = log_in(client)  # the right one
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    assert "too many wrong tokens" in answer.get_data(as_text=True)
    assert send(client, Authorization=f"Bearer {TOKEN}").get_json()["error"]["code"] == "too_many_attempts"
    clock.time += 1.1
    assert log_in(client).status_code == 303


def test_a_login_in_force_is_not_held_up_by_guesses(client):
    log_in(client)
    for number in range(9):
        client.get("/", headers={"Authorization": f"Bearer {number}"})
    assert client.get("/").status_code == 200


def test_one_wrong_token_again_and_again_is_a_mistake_and_no_guessing(client):
    for _ in range(50):
        assert send(client, Authorization="Bearer old").status_code == 401
    assert send(client, Authorization=f"Bearer {TOKEN}").status_code == 200


def test_waits_grow_to_a_bound_are_per_network_and_forgotten(clock):
    throttle, waits = Throttle(clock), []
    for number in range(12):
        throttle.failed("2001:db8::1", str(number))
        waits.append(throttle.wait("2001:db8::ffff"))
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 10, 10, 10]
    assert throttle.wait("2001:db8:0:1::1") == throttle.wait("192.0.2.1") == throttle.wait(None) == 0
    clock.time += 901
    throttle.failed("2001:db8::1", "late")
    assert throttle.wait("2001:db8::1") == 0


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
        "/\t/evil.example", "/a\r\nSet-Cookie: x=1", "evil", "", None, "/\u202e",
    ],
)  # fmt: skip
def test_a_login_never_leads_elsewhere(client, elsewhere):
    assert safe_next(elsewhere) == "/"
    assert log_in(client, next=elsewhere or "").headers["Location"] == "/"


def test_a_login_leads_back(client):
    assert log_in(client, next="/files/17").headers["Location"] == "/files/17"


def test_the_form_is_closed_to_long_and_foreign_input(client):
    evil = '"><script>alert(1)</script>'
    page = client.post("/login", data={"token": "x", "next": f"/{evil}"}).get_data(as_text=True)
    assert evil not in page
    assert log_in(client, "x" * 100_000).status_code == 413


def test_without_a_token_there_is_nothing_to_log_in_to(tmp_path):
    client = open_client(tmp_path, Pipeline(None, None))
    assert client.get("/login").headers["Location"] == client.post("/login").headers["Location"] == "/"
    assert "csrf" not in client.get("/").get_data(as_text=True)


def test_a_malformed_host_is_refused(client):
    for host in ("a b", "a/../b", "user@host", "a\u00e9"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 400


def test_every_answer_has_the_headers_that_keep_it_in_its_place(client):
    for answer in (client.get("/login"), client.get("/"), client.get("/healthz"), client.get("/static/style.css")):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in answer.headers["Permissions-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_pages_bring_nothing_from_elsewhere(client):
    log_in(client)
    for page in ("/", "/login"):
        text = client.get(page).get_data(as_text=True)
        assert not re.findall(r"(?:src|href|action)=\"(?![/#])[^\"]*", text)
        assert not re.findall(r"<style|<script>|\son\w+=|\sstyle=", text)
