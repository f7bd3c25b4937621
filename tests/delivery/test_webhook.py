"""One POST: what it says, how it is signed, and what counts as taken."""

import http.client
import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fracture_watch.delivery.exports import file_record
from fracture_watch.delivery.webhook import Webhook, body, signature
from fracture_watch.outcomes import Delivery, Failed
from fracture_watch.records import Facts, Kind
from fracture_watch.results.database import Database
from fracture_watch.results.outbox import Outbox, Subscription
from fracture_watch.results.store import Store
from tests.conftest import needs
from tests.delivery.receiver import SECRET, Receiver, answering, hang
from tests.results.test_store import MODEL, classified, record

STUDY = {
    "study_uid": "1.2",
    "patient_id": "P1",
    "study_date": "2026-01-31",
    "files": 2,
    "classified": 1,
    "fractured": 1,
    "max_probability": 0.9,
    "prediction": "fractured",
    "last_result_at": "2026-01-31T08:00:00.000000Z",
}
DELIVERY = Delivery("d-1", Kind.STUDY, "webhook:x", 0, "2026-01-31T08:00:00.000000Z", STUDY)


@pytest.fixture
def receiver():
    with Receiver().up() as receiver:
        yield receiver


def webhook(receiver, **options):
    return Webhook(receiver.url, SECRET, **options)


def test_a_delivery_is_one_signed_post(receiver):
    assert webhook(receiver, agent="fracture-watch/9", clock=lambda: 1234.9).send(DELIVERY) is None
    [(headers, content)] = receiver.got
    assert headers["User-Agent"] == "fracture-watch/9"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Fracture-Watch-Delivery"] == "d-1"
    assert headers["X-Fracture-Watch-Timestamp"] == "1234"
    assert headers["X-Fracture-Watch-Signature"] == f"sha256={signature(SECRET, '1234', content)}"
    assert receiver.messages == [json.loads(content)]


def test_the_signature_is_the_hmac_that_openssl_makes():
    needs("openssl")
    command = ["openssl", "dgst", "-sha256", "-hmac", SECRET, "-r"]
    made = subprocess.run(command, input=b'1234.{"a": 1}', capture_output=True, check=True).stdout.decode()
    assert made.split()[0] == signature(SECRET, "1234", b'{"a": 1}')


def test_a_study_says_what_the_view_says_but_not_who_it_is():
    message = json.loads(body(DELIVERY))
    assert message == {
        "event": "study",
        "delivery": "d-1",
        **{name: value for name, value in STUDY.items() if name != "patient_id"},
        "disclaimer": "Research use only. Not a medical device.",
    }


@pytest.mark.parametrize(
    "outcome",
    [
        classified("aa", 0.75, patient_id="P1", study_uid="1.2", sop_instance_uid="1.3"),
        Failed("corrupt", "broken \u00fc", "aa", Facts(patient_id="P1")),
    ],
)
def test_a_result_is_the_json_line_of_everywhere(tmp_path, outcome):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    record(Store(database, MODEL, [Subscription("webhook:x", frozenset(Kind))]), "a.dcm", outcome)
    delivery = Outbox(database).next_due("webhook:x", "9998-01-01T00:00:00.000000Z")
    message = json.loads(body(delivery))
    line = file_record("/in/a.dcm", outcome)
    assert {name: message[name] for name in line} == line
    assert set(message) - set(line) == {
        "event", "delivery", "id", "received_at", "completed_at", "duplicate_of", "disclaimer",
    }  # fmt: skip
    assert (message["event"], message["delivery"], message["id"]) == ("result", delivery.id, 1)
    assert b"P1" not in body(delivery)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_is_taken(receiver, status):
    receiver.answer = lambda _: status
    assert webhook(receiver).send(DELIVERY) is None


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (301, "redirections are not followed"),
        (307, "redirections are not followed"),
        (401, "the same secret"),
        (404, "the path of its url"),
        (410, "it answered 410"),
        (500, "it answered 500"),
        (503, "it answered 503"),
    ],
)
def test_anything_else_is_not(receiver, status, said):
    receiver.answer = lambda _: status
    assert said in webhook(receiver).send(DELIVERY)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_sent_to_where_a_redirection_leads(receiver, status):
    with Receiver().up() as other:
        receiver.answer, receiver.headers = lambda _: status, {"Location": other.url}
        assert str(status) in webhook(receiver).send(DELIVERY)
        assert (len(receiver.got), other.got) == (1, [])


def test_a_port_without_anybody_is_told():
    assert webhook(Receiver()).send(DELIVERY) == "cannot be reached: Connection refused"


@pytest.mark.parametrize(
    ("url", "port"), [("http://[::1]/hook", 80), ("http://[fd00::abcd]/hook", 80), ("https://[::1]/", 443)]
)
def test_an_address_of_ipv6_needs_no_port(url, port, monkeypatch):
    met = []

    def connect(connection):
        met.append((connection.host, connection.port))
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(http.client.HTTPConnection, "connect", connect)
    assert Webhook(url, SECRET).send(DELIVERY) == "cannot be reached: Connection refused"
    assert met == [(urlsplit(url).hostname, port)]


def test_a_host_that_is_not_known_is_told():
    assert Webhook("http://nobody.invalid/", SECRET).send(DELIVERY) == "its host name is not known"


def test_a_receiver_that_never_answers_is_left():
    with answering(hang) as url:
        assert Webhook(url, SECRET, seconds=0.3).send(DELIVERY) == "no answer within 0.3 s"


def test_a_receiver_that_trickles_is_left():
    def trickle(connection, over):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not over.wait(0.05):
            connection.sendall(b"X-Filler: x\r\n")

    with answering(trickle) as url:
        assert Webhook(url, SECRET, seconds=0.5).send(DELIVERY) == "no answer within 0.5 s"


def test_a_name_with_a_dead_address_is_reached_at_the_next(receiver):
    """localhost is ::1 first, where nobody is."""
    assert Webhook(receiver.url.replace("127.0.0.1", "localhost"), SECRET).send(DELIVERY) is None


def test_what_hangs_up_or_speaks_something_else_is_told_in_our_words():
    def hang_up(connection, over):
        got = b""
        while not got.endswith(b"}"):  # with something unread it would be a reset
            got += connection.recv(1 << 16)

    def greet(connection, over):
        connection.sendall(b"220 mail <script> ready\r\n")
        over.wait(60)

    with answering(hang_up) as url:
        assert "without an answer" in Webhook(url, SECRET).send(DELIVERY)
    with answering(greet) as url:
        assert Webhook(url, SECRET).send(DELIVERY) == "what answered there does not speak HTTP"


def test_shaking_hands_has_the_whole_time():
    with answering(lambda connection, over: over.wait(0.6)) as url:  # longer than one of its addresses may take
        refused = Webhook(url.replace("http:", "https:"), SECRET, seconds=1.2).send(DELIVERY)
    assert refused != "no answer within 1.2 s"


def test_an_answer_without_end_is_not_read():
    def endless(connection, over):
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.is_set():
            connection.sendall(bytes(1 << 16))

    with answering(endless) as url:
        assert Webhook(url, SECRET).send(DELIVERY) is None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate of our own for 127.0.0.1, in one file."""
    needs("openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=receiver",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate):
    with Receiver(certificate).up() as receiver:
        assert webhook(receiver).send(DELIVERY) == "its certificate or TLS is not accepted: self-signed certificate"
        assert receiver.got == []


def test_a_certificate_that_the_administrator_vouches_for_is_accepted(certificate: Path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # OpenSSL's own variable, as docs/webhooks.md says
    with Receiver(certificate).up() as receiver:
        assert webhook(receiver).send(DELIVERY) is None
        assert len(receiver.messages) == 1
        elsewhere = receiver.url.replace("127.0.0.1", "localhost")
        assert "Hostname mismatch" in Webhook(elsewhere, SECRET).send(DELIVERY)
