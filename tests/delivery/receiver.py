"""A receiver of webhooks: a real HTTP server that keeps what it was sent, and answers as it is told."""

import hashlib
import hmac
import json
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "0123456789abcdef-shared"


class Receiver:
    """Listens on a port that it keeps, so that it can be down and come back."""

    def __init__(self, certificate=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.certificate = certificate
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}/hook?key=k3y"
        self.got = []  # (headers, body) of every request
        self.answer = lambda body: 204
        self.headers = {}

    @contextmanager
    def up(self):
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        server.daemon_threads = True
        server.block_on_close = False
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def messages(self):
        """The bodies whose signature is right."""
        for headers, body in self.got:
            signed = f"{headers['X-Fracture-Watch-Timestamp']}.".encode() + body
            wanted = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
            assert headers["X-Fracture-Watch-Signature"] == f"sha256={wanted}"
            assert headers["X-Fracture-Watch-Delivery"] == json.loads(body)["delivery"]
        return [json.loads(body) for _, body in self.got]

    def _handler(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.answer(json.loads(body)))
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self):
                receiver.got.append((dict(self.headers), b""))

            def log_message(self, *arguments):
                pass

        return Handler


@contextmanager
def answering(talk):
    """A port where ``talk(connection, over)`` has each connection to itself; gives back its URL."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve():
            while not over.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    threading.Thread(target=_quietly, args=(talk, connection, over), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            thread.join()


def _quietly(talk, connection, over):
    with suppress(OSError), connection:  # the other side may be gone
        talk(connection, over)


def hang(connection, over):
    """Take the request and never answer."""
    over.wait(60)
