"""Versions change hands under load: no gap, no mixture, and no bad one comes through."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import orjson
import pyarrow as pa
import pytest
import torch
from pydantic import SecretStr

from features.store import open_store
from features.titles import exported_vectors
from fm_intent.exceptions import VersionRefusedError
from fm_intent.export import export
from infra.exceptions import ModelVersionError, ReleaseError, TitlesNotServedError
from infra.local.paths import LOCAL
from infra.local.programs import worker_environment
from infra.local.topics import create_topics
from infra.release import Publication, publish, rollback, served_models
from infra.titles import publish_live_titles
from stream import topics
from stream.release import Release, read_release, write_release
from stream.taxonomy import hash64
from tests.conftest import isolate
from tests.traffic import Traffic
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest
from tests.workers import http, lag, online, records, until, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from infra.local.stack import Stack
    from stream.settings import Settings

SOURCE = "movietweetings"
TITLE = "tt0002844"
"""A title of the source."""

PROFILES = [f"member-{number}" for number in range(60)]
EVENTS_PER_S = 200


@dataclass
class Scene:
    """What was done to the releases while events flowed, and what came of it."""

    settings: Settings
    traffic: Traffic
    first: str
    second: str
    published: Publication
    refused: dict[str, Exception]
    after_refusals: tuple[Release, list[str]]
    rolled_back: str
    titles: list[tuple[str, list[float]]]
    """`title_vector` after each switch."""
    metrics: str
    triton_metrics: str
    rows: dict[int, list[Any]] = field(default_factory=dict)
    """Of `intent-features`, by partition, in order."""


def exported(model_repository: Path, *, noise: float = 0.0) -> str:
    """A version of the small network that knows `TITLE`, its weights moved by a little noise."""
    data = tiny.sequences()
    model = tiny.network(data)
    model.hash_T[-1] = hash64(TITLE)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("recall"):  # its scores would be too large to be exact
                parameter += noise * torch.randn_like(parameter)
    return str(export(model, manifest(SOURCE), tiny.windows(data), model_repository).version)


def spoiled(model_repository: Path, version: str, name: str, before: str, after: str) -> str:
    """A copy of a version in which the code says something else."""
    home = model_repository / "fm_intent"
    number = max(int(path.name) for path in home.glob("[0-9]*")) + 1
    shutil.copytree(home / version, home / str(number))
    for file, old, new in (
        (name, before, after),
        ("manifest.json", f'"version": {version}', f'"version": {number}'),
    ):
        path = home / str(number) / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    return str(number)


PROGRAM = """\
import sys
from pathlib import Path
from infra.local import paths
paths.MODEL_REPOSITORY = Path(sys.argv.pop(1))
from stream.cli import main
main()
"""
"""The command line, with a model repository of the test's own."""


def run(settings: Settings, model_repository: Path, *arguments: str) -> CompletedProcess[str]:
    environment = {**os.environ, **worker_environment(settings), "COLUMNS": "200"}
    line = [sys.executable, "-c", PROGRAM, str(model_repository), *arguments]
    return subprocess.run(line, env=environment, check=False, capture_output=True, text=True)


def command(settings: Settings, model_repository: Path, *arguments: str) -> str:
    done = run(settings, model_repository, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def title_vector(settings: Settings) -> tuple[str, list[float]]:
    """The version and the vector of `TITLE`, as they are served."""
    names = ["title_embedding_version", "title_embedding"]
    asked = [f"title_profile:{name}" for name in names]
    read = open_store(settings).get_online_features(asked, {"title_id": [TITLE]}).to_dict()
    version, vector = (read[name][0] for name in names)
    return version, vector


def vector_of(model_repository: Path, version: str) -> list[float]:
    """The vector of `TITLE` that a version has."""
    model = model_repository / "fm_intent" / version / "model.pt"
    return exported_vectors(model, pa.table({"title_id": [TITLE]}))[TITLE]


@pytest.fixture(scope="module")
def scene(
    stack: Stack,
    kafka: str,
    redis: str,
    triton: str,
    model_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("release")
    settings = isolate(stack.settings, home)
    asyncio.run(create_topics(settings))
    first = exported(model_repository)
    second = exported(model_repository, noise=0.02)
    bad = {
        "fails validation": spoiled(
            model_repository, second, "network.py", "logits[:, 0].softmax(-1)", "logits[:, 0]"
        ),
        "fails in the server": spoiled(
            model_repository, second, "model.py", "answer.user_BD,", "answer.user_BD + 1,"
        ),
        "does not load": spoiled(
            model_repository, second, "model.py", "torch.set_num_threads", "torch.no_such_function"
        ),
        "drifts": exported(model_repository, noise=2.0),
    }

    def attempt(version: str, **shadow: float) -> Publication:
        return asyncio.run(publish(settings, version, exports=model_repository, **shadow))

    stack.load_model(first)
    log = home / "worker.log"
    with worker(settings, log, wait=True), Traffic(settings, PROFILES, EVENTS_PER_S) as traffic:
        command(settings, model_repository, "model", "publish", first, "--shadow-s", "0")
        titles = [title_vector(settings)]
        published = attempt(second, share=0.5, shadow_s=4.0)
        until_published(settings, second)
        refused = {}
        for why, version in bad.items():
            with pytest.raises((VersionRefusedError, ModelVersionError)) as caught:
                attempt(version)
            refused[why] = caught.value
        served = served_models(settings, model_repository)
        after_refusals = asyncio.run(read_release(settings)), served.versions()
        publish_live_titles(settings, LOCAL)
        titles.append(title_vector(settings))
        rolled_back = command(settings, model_repository, "model", "rollback")
        titles.append(title_vector(settings))
        until_published(settings, first)
        traffic.end()
        until(lambda: lag(settings) == 0, "no lag")
        _, metrics = http(settings, "/metrics")
        with urlopen(f"http://127.0.0.1:{settings.triton_metrics_port}/metrics") as page:
            triton_metrics = page.read().decode()
        rows: dict[int, list[Any]] = {}
        for record in records(settings, topics.INTENT_FEATURES):
            rows.setdefault(record.partition, []).append(orjson.loads(record.value))
        yield Scene(
            settings,
            traffic,
            first,
            second,
            published,
            refused,
            after_refusals,
            rolled_back,
            titles,
            metrics,
            triton_metrics,
            rows,
        )


def until_published(settings: Settings, version: str) -> None:
    """Wait until every profile's features are of this version."""
    store = open_store(settings)
    entities = [{"profile_id": profile} for profile in PROFILES]

    def versions() -> set[str]:
        answer = store.get_online_features(["profile_intent:model_version"], entities)
        return set(answer.to_dict()["model_version"])

    until(lambda: versions() == {version}, f"features of version {version}")


def test_no_event_is_lost_while_versions_change(scene: Scene) -> None:
    assert scene.traffic.sent.total() > 1000
    for profile, sent in scene.traffic.sent.items():
        assert online(scene.settings, profile) == scene.traffic.last[profile]
        assert online(scene.settings, profile, "sequence_no") == sent


def test_no_request_of_the_live_path_fails(scene: Scene) -> None:
    assert 'intentstream_retries_total{dependency="triton"}' not in scene.metrics


def test_each_partition_s_rows_are_of_one_version_after_the_other(scene: Scene) -> None:
    assert len(scene.rows) == scene.settings.topic_partitions
    for rows in scene.rows.values():
        runs = [version for version, _ in itertools.groupby(row["model_version"] for row in rows)]
        assert runs == [scene.first, scene.second, scene.first]


def test_the_shadow_is_compared_on_live_traffic(scene: Scene) -> None:
    drift = scene.published.shadow
    assert drift is not None
    assert drift.rows > 20
    assert 0 < drift.heads["genre"] <= scene.settings.release_max_divergence
    assert scene.settings.release_min_overlap <= drift.overlap < 1
    told = [orjson.loads(one.value) for one in records(scene.settings, topics.MODEL_SHADOW)]
    assert len(told) >= drift.rows
    assert {one["live"]["model_version"] for one in told} == {scene.first}
    assert {one["shadow"]["model_version"] for one in told} == {scene.second}
    share = len({one["profile_hash"] for one in told}) / len(PROFILES)
    assert 0.3 < share < 0.7
    assert f'intentstream_shadow_rows_total{{outcome="compared"}} {len(told)}.0' in scene.metrics
    assert 'intentstream_shadow_divergence_bits_count{head="genre"}' in scene.metrics


def test_a_version_is_compared_on_recent_windows_before_any_traffic(scene: Scene) -> None:
    assert scene.published.recent is not None
    assert scene.published.recent.rows == len(PROFILES)


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("fails validation", "action_probs does not sum to 1"),
        ("fails in the server", "the server's user_embedding is off by"),
        ("does not load", "no_such_function"),
        ("drifts", "on recent windows, .*diverges by .* bits"),
    ],
)
def test_a_bad_version_is_refused_with_the_reason(scene: Scene, why: str, reason: str) -> None:
    assert scene.refused[why]
    with pytest.raises(type(scene.refused[why]), match=reason):
        raise scene.refused[why]


def test_a_refusal_changes_nothing(scene: Scene) -> None:
    assert scene.after_refusals == (
        Release(live=scene.second, previous=scene.first),
        sorted([scene.first, scene.second], key=int),
    )


def test_after_a_rollback_the_versions_have_changed_places(
    scene: Scene, model_repository: Path
) -> None:
    assert f"version {scene.first} is live again; {scene.second} is kept" in scene.rolled_back
    status = command(scene.settings, model_repository, "model", "status")
    roles = [tuple(map(str.strip, line.split("│")[1:3])) for line in status.splitlines()]
    assert (scene.first, "live") in roles
    assert (scene.second, "previous") in roles


def test_the_title_vectors_that_are_served_are_always_those_of_the_live_version(
    scene: Scene, model_repository: Path
) -> None:
    live = [scene.first, scene.second, scene.first]
    assert [version for version, _ in scene.titles] == live
    vectors = {version: vector_of(model_repository, version) for version in live}
    assert vectors[scene.first] != vectors[scene.second]
    assert [vector for _, vector in scene.titles] == [vectors[version] for version in live]


def test_title_vectors_that_can_t_be_served_are_told_with_the_command_that_serves_them(
    scene: Scene,
) -> None:
    settings = scene.settings.model_copy(update={"redis_url": SecretStr("127.0.0.1:1")})
    with pytest.raises(TitlesNotServedError, match=f"`intentstream titles {scene.first}`"):
        publish_live_titles(settings, LOCAL)


def test_without_the_feature_store_nothing_is_published(
    scene: Scene, model_repository: Path
) -> None:
    settings = scene.settings.model_copy(update={"redis_url": SecretStr("127.0.0.1:1")})
    before = asyncio.run(read_release(settings))
    done = run(settings, model_repository, "model", "publish", scene.second, "--shadow-s", "0")
    assert done.returncode == 1
    assert "StoreUnavailableError" in done.stderr
    assert asyncio.run(read_release(settings)) == before


def test_a_version_that_is_live_is_not_published_again(
    scene: Scene, model_repository: Path
) -> None:
    with pytest.raises(ReleaseError, match="is live already"):
        asyncio.run(publish(scene.settings, scene.first, exports=model_repository))


def test_without_a_version_before_there_is_no_way_back(isolated: Settings, kafka: str) -> None:
    asyncio.run(create_topics(isolated))
    with pytest.raises(ReleaseError, match="no version to go back to"):
        asyncio.run(rollback(isolated))


def test_who_asks_for_the_release_is_told_the_newest_every_time(
    isolated: Settings, kafka: str
) -> None:
    asyncio.run(create_topics(isolated))

    async def written_and_read() -> list[Release]:
        for live in ("1", "2", "3"):
            await write_release(isolated, Release(live=live))
        return [await read_release(isolated) for _ in range(20)]

    assert asyncio.run(written_and_read()) == [Release(live="3")] * 20
