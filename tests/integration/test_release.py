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
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from features.registry.store import open_store
from fm_intent.export import export
from fm_intent.exported import exported_vectors
from infra.local.programs import worker_environment
from intentstream.paths import LOCAL
from intentstream.publishing import (
    Publication,
    publish,
    publish_titles_again,
    rollback,
)
from intentstream.served_versions import served_models
from stream.domain import codec, topics
from stream.domain.event_types import Browse
from stream.domain.labels import hash64
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.domain.window import WindowBatch, window_batch
from stream.exceptions import (
    ModelVersionError,
    ReleaseError,
    TitlesNotServedError,
    VersionRefusedError,
)
from stream.inference.release import Release, read_release, write_release
from stream.kafka.admin import create_topics
from stream.kafka.connection import running
from stream.kafka.erasure import request_erasure
from tests.conftest import isolate
from tests.integration.test_incremental import counted
from tests.integration.test_inference import infer
from tests.traffic import Traffic
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest
from tests.workers import http, lag, online, records, until, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess, Popen

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
    third: str
    published: Publication
    refused: dict[str, Exception]
    after_refusals: tuple[Release, list[str]]
    after_kill: Release
    rolled_back: str
    after_rollback: list[str]
    """The versions that are served."""
    titles_command: str
    titles: list[tuple[str, list[float]]]
    """`title_vector` after each switch, and after the command `titles`."""
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
from intentstream import paths
paths.MODEL_REPOSITORY = Path(sys.argv.pop(1))
from intentstream.cli.main import main
main()
"""
"""The command line, with a model repository of the test's own."""


def started(settings: Settings, model_repository: Path, *arguments: str) -> Popen[str]:
    environment = {**os.environ, **worker_environment(settings), "COLUMNS": "200"}
    line = [sys.executable, "-c", PROGRAM, str(model_repository), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(settings: Settings, model_repository: Path, *arguments: str) -> CompletedProcess[str]:
    process = started(settings, model_repository, *arguments)
    told, complaints = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, told, complaints)


def command(settings: Settings, model_repository: Path, *arguments: str) -> str:
    done = run(settings, model_repository, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_while_it_shadows(settings: Settings, model_repository: Path, version: str) -> None:
    """Publish a version that answers for nobody, and kill the publisher while it is the shadow."""
    options = "--share", "1e-9", "--shadow-s", "600"
    publisher = started(settings, model_repository, "model", "publish", version, *options)

    def shadows() -> bool:
        assert publisher.poll() is None, publisher.communicate()
        return asyncio.run(read_release(settings)).shadow == version

    with publisher:
        try:
            until(shadows, "a shadow")
        finally:
            publisher.kill()


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
    third = exported(model_repository, noise=0.02)
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
        trial = publish(settings, version, exports=model_repository, home=LOCAL, **shadow)
        return asyncio.run(trial)

    stack.load_model(first)
    log = home / "worker.log"
    with worker(settings, log, wait=True), Traffic(settings, PROFILES, EVENTS_PER_S) as traffic:
        command(settings, model_repository, "model", "publish", first, "--shadow-s", "0")
        titles = [title_vector(settings)]
        published = attempt(second, share=0.5, shadow_s=4.0)
        titles.append(title_vector(settings))
        until_published(settings, second)
        # What serves must be enough to go back to it.
        export_of_first = model_repository / "fm_intent" / first
        export_of_first.rename(home / "export of first")
        refused = {}
        for why, version in bad.items():
            with pytest.raises((VersionRefusedError, ModelVersionError)) as caught:
                attempt(version)
            refused[why] = caught.value
        served = served_models(settings, model_repository)
        after_refusals = asyncio.run(read_release(settings)), served.versions()
        kill_while_it_shadows(settings, model_repository, third)
        after_kill = asyncio.run(read_release(settings))
        rolled_back = command(settings, model_repository, "model", "rollback")
        titles.append(title_vector(settings))
        after_rollback = served.versions()
        titles_command = command(settings, model_repository, "titles")
        titles.append(title_vector(settings))
        (home / "export of first").rename(export_of_first)
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
            third,
            published,
            refused,
            after_refusals,
            after_kill,
            rolled_back,
            after_rollback,
            titles_command,
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


def test_a_publisher_that_is_killed_while_it_shadows_leaves_the_way_back(scene: Scene) -> None:
    before = Release(live=scene.second, previous=scene.first)
    trial = {"shadow": scene.third, "shadow_share": 1e-9}
    assert scene.after_kill == before.model_copy(update=trial)
    assert scene.after_rollback == [scene.first, scene.second]


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
    live = [scene.first, scene.second, scene.first, scene.first]
    assert [version for version, _ in scene.titles] == live
    assert f"their vectors of version {scene.first}\n" in scene.titles_command
    vectors = {version: vector_of(model_repository, version) for version in live}
    assert vectors[scene.first] != vectors[scene.second]
    assert [vector for _, vector in scene.titles] == [vectors[version] for version in live]


def test_a_version_is_gone_back_to_though_its_titles_can_t_be_served_and_that_is_told(
    scene: Scene, model_repository: Path
) -> None:
    away = scene.settings.model_copy(update={"redis_url": SecretStr("127.0.0.1:1")})
    with pytest.raises(TitlesNotServedError, match="Run `intentstream titles` then"):
        asyncio.run(rollback(away, exports=model_repository, home=LOCAL))
    assert asyncio.run(read_release(scene.settings)).live == scene.second
    asyncio.run(rollback(scene.settings, exports=model_repository, home=LOCAL))
    assert title_vector(scene.settings)[0] == scene.first


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


@pytest.fixture
def two_versions(
    isolated: Settings, stack: Stack, triton: str, kafka: str, model_repository: Path
) -> Release:
    """One live and one before it, both served."""
    asyncio.run(create_topics(isolated))
    previous, live = exported(model_repository), exported(model_repository, noise=0.02)
    stack.load_model(live, previous)
    release = Release(live=live, previous=previous)
    asyncio.run(write_release(isolated, release))
    return release


def test_a_live_version_that_is_not_served_is_published_again(
    isolated: Settings, stack: Stack, model_repository: Path, two_versions: Release
) -> None:
    live, previous = two_versions.live, two_versions.previous
    served = served_models(isolated, model_repository)
    stack.stop_program("triton")
    shutil.rmtree(stack.models)
    stack.start("triton")
    told = command(isolated, model_repository, "model", "status")
    assert f"Version {live} is live and not served" in told
    assert f"`intentstream model publish {live}`" in told
    asyncio.run(publish(isolated, live, exports=model_repository))
    assert asyncio.run(read_release(isolated)) == two_versions
    assert served.is_served(live)
    assert served.is_served(previous)
    # Triton goes on with what it has in memory, until it is started anew.
    shutil.rmtree(stack.models)
    asyncio.run(publish(isolated, live, exports=model_repository))
    assert served.is_served(live)


def test_a_version_in_service_that_is_gone_for_good_blocks_nothing(
    isolated: Settings, model_repository: Path, two_versions: Release
) -> None:
    without_live = two_versions.model_copy(update={"live": "9999"})
    asyncio.run(write_release(isolated, without_live))
    done = asyncio.run(publish(isolated, two_versions.live, exports=model_repository))
    assert done.release == two_versions
    asyncio.run(write_release(isolated, without_live))
    now = asyncio.run(rollback(isolated, exports=model_repository))
    assert now == Release(live=two_versions.previous)
    without_previous = two_versions.model_copy(update={"previous": "9999"})
    asyncio.run(write_release(isolated, without_previous))
    with pytest.raises(ModelVersionError, match=r"9999 .* neither in .*; put its export back, or"):
        asyncio.run(rollback(isolated, exports=model_repository))
    assert asyncio.run(read_release(isolated)) == without_previous
    assert served_models(isolated, model_repository).is_served(two_versions.live)


def test_the_status_names_what_is_in_service_though_no_folder_is_here(
    isolated: Settings, kafka: str, tmp_path: Path
) -> None:
    asyncio.run(create_topics(isolated))
    release = Release(live="12", previous="9", shadow="13", shadow_share=0.1)
    asyncio.run(write_release(isolated, release))
    away = {"triton_url": "127.0.0.1:1", "triton_models": tmp_path / "models"}
    told = command(isolated.model_copy(update=away), tmp_path, "model", "status")
    rows = [tuple(map(str.strip, line.split("│")[1:4])) for line in told.splitlines()]
    assert [row for row in rows if len(row) == 3] == [
        ("9", "previous", "no"),
        ("12", "live", "no"),
        ("13", "shadow of 10%", "no"),
    ]
    assert f"looked for in {tmp_path / 'fm_intent'} and {tmp_path / 'models'}" in told


def test_a_shadow_that_a_killed_publisher_left_is_ended_by_whoever_comes_next(
    isolated: Settings, kafka: str
) -> None:
    asyncio.run(create_topics(isolated))
    asyncio.run(write_release(isolated, Release(live="1", shadow="2", shadow_share=0.1)))
    with pytest.raises(ReleaseError, match="no version to go back to"):
        asyncio.run(rollback(isolated))
    assert asyncio.run(read_release(isolated)) == Release(live="1")


def test_where_none_is_live_the_titles_are_those_of_the_newest_export(
    isolated: Settings, kafka: str, redis: str, model_repository: Path
) -> None:
    asyncio.run(create_topics(isolated))
    newest = exported(model_repository)
    again = publish_titles_again(isolated, LOCAL, exports=model_repository)
    version, count = asyncio.run(again)
    assert (str(version), count > 0) == (newest, True)
    assert title_vector(isolated) == (newest, vector_of(model_repository, newest))


def test_who_asks_for_the_release_is_told_the_newest_every_time(
    isolated: Settings, kafka: str
) -> None:
    asyncio.run(create_topics(isolated))

    async def written_and_read() -> list[Release]:
        for live in ("1", "2", "3"):
            await write_release(isolated, Release(live=live))
        return [await read_release(isolated) for _ in range(20)]

    assert asyncio.run(written_and_read()) == [Release(live="3")] * 20


def remembered(settings: Settings, *profiles: str) -> WindowBatch:
    """The profiles' windows, as the changelog holds them."""
    states = {
        profile: state_of(
            [
                Browse(
                    event_id=f"{profile}-{minute}",
                    profile_id=profile,
                    occurred_at_ms=1_700_000_000_000 + 60_000 * minute,
                    event_type="title_open",
                    title_id=TITLE,
                )
                for minute in range(3)
            ],
            Rules(),
        )
        for profile in profiles
    }

    async def write() -> None:
        async with running(AIOKafkaProducer, settings) as producer:
            topic = settings.topic(topics.SESSIONS_CHANGELOG)
            for profile, state in states.items():
                await producer.send_and_wait(topic, codec.encode(state), key=profile.encode())

    asyncio.run(write())
    return window_batch(list(states.items()), Rules())


@pytest.mark.parametrize("noise", [0.02, 2.0], ids=["published", "refused"])
def test_whoever_is_erased_during_a_publication_is_in_no_version_s_cache(
    isolated: Settings, stack: Stack, triton: str, kafka: str, model_repository: Path, noise: float
) -> None:
    asyncio.run(create_topics(isolated))
    live, version = exported(model_repository), exported(model_repository, noise=noise)
    stack.load_model(live)
    asyncio.run(write_release(isolated, Release(live=live)))
    batch = remembered(isolated, "erased", "stays")
    # No worker runs, so its state is still in the changelog.
    asyncio.run(request_erasure(isolated, ["erased"]))
    trial = publish(isolated, version, share=1e-9, shadow_s=0.1, exports=model_repository)
    if noise > 1:
        with pytest.raises(VersionRefusedError, match="on recent windows"):
            asyncio.run(trial)
    else:
        asyncio.run(trial)
    for one in served_models(isolated, model_repository).versions():
        before = counted(stack, one)
        infer(isolated.model_copy(update={"model_version": one}), batch)
        now = counted(stack, one)
        assert [now[name] - before[name] for name in ("hits", "misses")] == [1, 1]
