"""Plain `feast` commands in a copy of the repository's folder, as a downstream user runs them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis as redis_client

import features
from features import definitions
from features.offline.landing import PartitionLanding, Published
from features.online.writer import IntentWriter
from features.reading import http_reader
from features.reading.http_reader import HttpIntentReader
from features.reading.intents import Freshness, LiveIntent
from features.reading.reader import IntentReader
from features.registry.reference import page
from features.registry.store import apply
from stream.exceptions import DefinitionsError, StoreRefusedError
from stream.ports import free_ports
from stream.settings import Settings
from tests.unit.features.registry.test_registered import apply_older
from tests.unit.features.samples import SAMPLE, sample, to_json
from tests.workers import ANSWER_S, HANG_S, exit_code, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream.domain.feature_row import IntentRow

FEAST = str(Path(sys.executable).with_name("feast"))


def copy_of_the_repository(home: Path) -> Path:
    """The folder of the feature repository, without data."""
    copy = home / "features"
    source = Path(features.__file__).parent
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return copy


@pytest.fixture(scope="module")
def environment(redis: str) -> Iterator[dict[str, str]]:
    """The environment of a user whose Redis is an empty database of the shared server."""
    yield {**os.environ, "INTENT_REDIS_URL": f"{redis},db=8"}
    host, port = redis.split(":")
    with redis_client.Redis(host=host, port=int(port), db=8) as client:
        client.flushdb()


@pytest.fixture(scope="module")
def folder(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature repository that was applied."""
    copy = copy_of_the_repository(tmp_path_factory.mktemp("repository"))
    feast(copy, environment, "apply")
    return copy


@pytest.fixture(scope="module")
def settings(redis: str, folder: Path) -> Settings:
    return Settings(redis_url=f"{redis},db=8", feature_registry=folder / "data" / "registry.db")


def feast(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [FEAST, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(settings: Settings, *rows: IntentRow) -> None:
    async def run() -> None:
        writer = IntentWriter(settings)
        await writer.start()
        await writer.write(rows)
        await writer.close()

    asyncio.run(run())


def test_applied_views_are_listed(folder: Path, environment: dict[str, str]) -> None:
    assert "profile_intent" in feast(folder, environment, "feature-views", "list")


def test_the_writer_finds_what_feast_applied(folder: Path, settings: Settings) -> None:
    registry = folder / "data" / "registry.db"
    before = registry.stat().st_mtime_ns
    write(settings, SAMPLE)
    assert registry.stat().st_mtime_ns == before


def test_sqlite_is_applied_by_its_own_configuration(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    copy = copy_of_the_repository(tmp_path)
    feast(copy, environment, "-f", "feature_store_sqlite.yaml", "apply")
    registry = copy / "data" / "registry.db"
    settings = Settings(online_store="sqlite", feature_registry=registry)
    write(settings, SAMPLE)
    assert IntentReader(settings).read([SAMPLE.profile_id])[0].row is not None


@contextmanager
def served(
    folder: Path, environment: dict[str, str], command: str, path: str, *options: str
) -> Iterator[str]:
    """Base URL of what a `feast` command serves, once it answers at `path`."""
    (port,) = free_ports(1)
    with (folder / f"{command}.log").open("wb") as log:
        server = subprocess.Popen(
            [FEAST, command, "--host", "127.0.0.1", "--port", str(port), *options],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        base = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{base}{path}", server)
            yield base
        finally:
            server.terminate()
            exit_code(server)


@pytest.fixture(scope="module")
def feature_server(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Base URL of a running `feast serve`."""
    with served(folder, environment, "serve", "/health", "--no-access-log") as base:
        yield base


def test_the_user_interface_shows_what_each_feature_is(
    folder: Path, environment: dict[str, str]
) -> None:
    with served(folder, environment, "ui", "/") as base:
        path = f"/api/v1/features?project={definitions.project.name}"
        with urllib.request.urlopen(f"{base}{path}", timeout=ANSWER_S) as response:
            shown = {one["name"]: one for one in json.load(response)["features"]}
    for feature in (*definitions.profile_intent.features, *definitions.title_profile.features):
        assert shown[feature.name]["description"] == feature.description
        assert shown[feature.name]["tags"] == feature.tags


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        assert server.poll() is None, "the feature server ended"
        try:
            urllib.request.urlopen(url, timeout=ANSWER_S).close()
        except (URLError, OSError):
            return False
        return True

    until(answers, f"an answer from {url}")


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def test_the_feature_server_answers_over_http(feature_server: str, settings: Settings) -> None:
    write(settings, sample(profile_id="served", genre_probs=[], genre=""))
    answer = _post(
        f"{feature_server}/get-online-features",
        {"feature_service": "ranker_v1", "entities": {"profile_id": ["served", "nobody"]}},
    )
    names = answer["metadata"]["feature_names"]
    values = {name: result["values"] for name, result in zip(names, answer["results"], strict=True)}
    assert values["next_title_ids"] == [SAMPLE.next_title_ids, None]
    assert values["genre_probs"] == [[], None]
    assert values["sequence_no"] == [SAMPLE.sequence_no, None]


def test_the_http_reader_answers_what_the_sdk_reader_answers(
    feature_server: str, settings: Settings
) -> None:
    rows = [sample(profile_id=f"p-{n}", sequence_no=n + 1, genre_probs=[]) for n in range(999)]
    write(settings, *rows)
    ids = [*(row.profile_id for row in rows), "nobody"]

    def clock() -> float:
        return SAMPLE.last_event_at_ms / 1000 + 60

    http = HttpIntentReader(feature_server, fresh_for_s=30, clock=clock)

    async def read_async() -> list[LiveIntent]:
        answer = await http.read_async(ids)
        await http.close()
        return answer

    by_sdk = IntentReader(settings, fresh_for_s=30, clock=clock).read(ids)
    assert http.read(ids) == by_sdk
    assert asyncio.run(read_async()) == by_sdk
    assert {intent.freshness for intent in by_sdk} == {Freshness.STALE, Freshness.ABSENT}
    assert (by_sdk[0].age_ms, by_sdk[0].model_version) == (60_000, SAMPLE.model_version)


def test_a_feature_server_of_other_definitions_raises_the_error_for_an_operator(
    feature_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_reader, "RANKER", "ranker_v9")
    with pytest.raises(StoreRefusedError, match="ranker_v9"):
        HttpIntentReader(feature_server).read(["p-1"])


def test_a_feature_server_of_older_definitions_is_named_with_what_to_do(
    feature_server: str, settings: Settings
) -> None:
    write(settings, SAMPLE)
    reader = HttpIntentReader(feature_server)
    assert reader.read([SAMPLE.profile_id])[0].row is not None
    apply_older(settings)
    try:
        until(lambda: "title_log_norm" in refusal(reader), "the older definitions")
        assert "features apply" in refusal(reader)
    finally:
        apply(settings)
    until(lambda: not refusal(reader), "the definitions of this release")


def refusal(reader: HttpIntentReader) -> str:
    """What the reader says of the server's definitions; nothing where it reads."""
    try:
        reader.read([SAMPLE.profile_id])
    except DefinitionsError as error:
        return str(error)
    return ""


def test_the_examples_of_the_reference_run(
    feature_server: str,
    settings: Settings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    just_before_ms = round(datetime(2026, 1, 31, 11, 59, tzinfo=UTC).timestamp() * 1000)
    row = sample(
        profile_id="profile-1",
        genre="western",
        last_event_at_ms=just_before_ms,
        published_at_ms=just_before_ms,
    )
    write(settings, row)
    landing = PartitionLanding(folder / definitions.intent_features.path, "examples", 0, 1)
    assert landing.own()
    landing.land([Published(0, to_json(row))])
    monkeypatch.setenv("INTENT_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("INTENT_FEATURE_REGISTRY", str(settings.feature_registry))
    monkeypatch.setenv("INTENT_OFFLINE_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    noon = pa.scalar(datetime(2026, 1, 31, 12, tzinfo=UTC), pa.timestamp("us", "UTC"))
    asked = pa.table({"profile_id": ["profile-1"], "event_timestamp": pa.array([noon])})
    pq.write_table(asked, "requests.parquet")
    told = []
    for example in re.findall("```python\n(.+?)```", page(), re.DOTALL):
        here = example.replace("http://127.0.0.1:6566", feature_server)
        exec(here.replace("/data/", f"{tmp_path}/"), {})
        told.append(capsys.readouterr().out)
    assert [next((word for word in ("western", "stale") if word in one), "") for one in told] == [
        "western",
        "stale",
        "western",
        "western",
        "",
    ]
    (answer,) = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert answer["intent_embedding"] == pytest.approx(row.intent_embedding)
    (body,) = re.findall("-d '(.+)'", page())
    assert _post(f"{feature_server}/get-online-features", json.loads(body))["results"]


def test_materialized_rows_go_through_the_fence(
    folder: Path, environment: dict[str, str], settings: Settings
) -> None:
    newer = SAMPLE.last_event_at_ms + 1
    write(settings, sample(profile_id="live", last_event_at_ms=newer, genre="live"))
    landing = PartitionLanding(folder / definitions.intent_features.path, "intent-features", 0, 1)
    assert landing.own()
    for offset, name in enumerate(("live", "new")):
        landing.land([Published(offset, to_json(sample(profile_id=name, genre="landed")))])
    span = ("2023-01-01T00:00:00", "2024-01-01T00:00:00")
    feast(folder, environment, "materialize", *span, "--views", "profile_intent")
    read = IntentReader(settings).read(["live", "new"])
    assert [intent.row and intent.row.labels["genre"] for intent in read] == ["live", "landed"]
