"""A token endpoint on loopback for the tests, whose tokens Kafka's unsecured handler takes."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs

import orjson

CLIENT: Final = "intent"
SECRET: Final = "hush-hush"


class Endpoint(ThreadingHTTPServer):
    """Gives the client a token for a grant of client credentials.

    `issued` are the scopes that tokens were given for; with a `fault`, a status and a body, it
    answers that instead.
    """

    lifetime_s = 3600
    fault: tuple[int, bytes] | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issued: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/token"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        who = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        if self.server.fault:
            self._answer(*self.server.fault)
        elif who != f"{CLIENT}:{SECRET}" or form["grant_type"] != ["client_credentials"]:
            self._answer(401, b'{"error": "invalid_client"}')
        else:
            (scope,) = form.get("scope", [""])
            self.server.issued.append(scope)
            lifetime_s = self.server.lifetime_s
            token = unsecured_token(CLIENT, lifetime_s)
            self._answer(200, orjson.dumps({"access_token": token, "expires_in": lifetime_s}))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A test's output is its own."""


def unsecured_token(subject: str, lifetime_s: int) -> str:
    """A JWT without a signature (RFC 7519, section 6)."""
    now_s = int(time.time())
    claims = {"sub": subject, "iat": now_s, "exp": now_s + lifetime_s}
    parts = (base64.urlsafe_b64encode(orjson.dumps(part)) for part in ({"alg": "none"}, claims))
    return ".".join(part.decode().rstrip("=") for part in parts) + "."


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """A running token endpoint."""
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
