"""Schema registries for tests: a small one of the API's contract, and Apicurio's real one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest

from intentstream.paths import LOCAL
from stream.ports import free_ports
from tests.workers import until

APICURIO: Final = "2.6.13.Final"
"""The newest that runs on Java 17."""

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


@dataclass
class Contract:
    """As much of Confluent's API as reading and writing a value asks for, held in memory.

    https://docs.confluent.io/platform/current/schema-registry/develop/api.html
    """

    url: str = ""
    schemas: list[dict[str, Any]] = field(default_factory=list)
    fails: tuple[int, bytes] | None = None
    """What it answers instead: a fault that no real registry can be made to show."""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        if by_id := re.fullmatch(r"/schemas/ids/(\d+)", path.partition("?")[0]):
            number = int(by_id[1])
            if not 0 < number <= len(self.schemas):
                return 404, {"error_code": 40403, "message": f"Schema {number} not found"}
            return 200, self.schemas[number - 1]
        if method == "POST" and re.match(r"/subjects/[^/]+(/versions)?", path):
            schema = json.loads(body)
            if schema not in self.schemas:
                self.schemas.append(schema)
            return 200, {"id": self.schemas.index(schema) + 1, "version": 1, **schema}
        return 404, {"error_code": 40401, "message": "Subject not found"}


@contextmanager
def contract() -> Iterator[Contract]:
    """A registry of the contract, on loopback."""
    told = Contract()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if told.fails:
                status, data = told.fails
            else:
                status, given = told.answer(self.command, self.path, body)
                data = json.dumps(given).encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def apicurio(home: Path, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Apicurio's registry on loopback, in memory; its address by Confluent's API, and its process.

    Maven fetches it once, into `.local/apicurio`; where it can't, the test is skipped.
    """
    jar = next(_installed().glob("*-runner.jar"))
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    options = ("-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}")
    with (home / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            ["java", "-Xmx384m", *options, "-jar", jar], cwd=home, stdout=log, stderr=log
        )
        try:
            until(lambda: _answers(f"{url}/subjects"), "a registry that answers")
            yield url, process
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """A port for a registry."""
    return free_ports(1)[0]


def _installed() -> Path:
    folder = LOCAL / "apicurio" / APICURIO
    if folder.exists():
        return folder
    fetched = folder.parent / f"fetched-{APICURIO}"
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
    artifact = f"io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all"
    maven = ("mvn", "--quiet", "--batch-mode", goal, f"-Dartifact={artifact}")
    try:
        subprocess.run([*maven, f"-DoutputDirectory={fetched}"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"Maven can't fetch Apicurio's registry: {error}")
    unpacked = fetched / "unpacked"
    with tarfile.open(next(fetched.glob("*.tar.gz"))) as archive:
        archive.extractall(unpacked, filter="data")
    unpacked.rename(folder)
    shutil.rmtree(fetched)
    return folder


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
