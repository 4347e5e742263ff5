"""The whole way: members are simulated, a model learns from them, and what it says is acted on."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.definitions import profile_intent, ranker_v1
from features.reading.reader import IntentReader
from features.reading.rerank import Candidate, Order, Reranker
from features.registry.store import open_store
from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_FILE
from intentstream.publishing import publish
from intentstream.served_titles import serve_titles, titles_in
from lab.replay.checker import check
from lab.replay.plan import plan_replay, span_s
from lab.replay.producer import Replayed, replay
from lab.simulator import SimulatorParameters, simulate
from stream.kafka.admin import create_topics
from tests.conftest import isolate
from tests.sinks import sink, unlanded
from tests.workers import lag, until, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infra.local.stack import Stack
    from stream.settings import Settings

FEATURES = [feature.name for feature in profile_intent.features]
TRAIN_MINUTES = 0.4


@dataclass(frozen=True)
class Whole:
    """A running system that has taken in all that the members did."""

    settings: Settings
    version: str
    replayed: Replayed
    profiles: list[str]
    titles: list[str]


@pytest.fixture(scope="module")
def whole(
    stack: Stack,
    kafka: str,
    redis: str,
    triton: str,
    model_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Whole]:
    # Here, because torch takes seconds to import and most tests do without.
    from fm_intent.train import train

    home = tmp_path_factory.mktemp("whole")
    data_dir = home / "data" / "members"
    simulate(SimulatorParameters(members=60, days=30), data_dir)
    manifest = train(data_dir, model_repository, seed=1, max_minutes=TRAIN_MINUTES)
    version = str(manifest.version)
    events = pq.read_table(data_dir / EVENTS_FILE)
    lateness_s = math.ceil(span_s(events)) + 3600
    settings = isolate(stack.settings, home).model_copy(
        update={
            "allowed_lateness_s": lateness_s,
            "catalogue": data_dir / CATALOGUE_FILE,
            "sink_interval_s": 1.0,
        }
    )
    asyncio.run(create_topics(settings))
    asyncio.run(publish(settings, version, exports=model_repository))
    now_ms = round(time.time() * 1000)
    plan = plan_replay(events, seed=1, now_ms=now_ms, lateness_s=lateness_s)
    with worker(settings, home / "worker.log", wait=True), sink(settings):
        serve_titles(settings, titles_in(manifest.version, model_repository, data_dir))
        sent = asyncio.run(replay(plan, settings, events_per_s=None, progress=lambda _: None))
        until(lambda: lag(settings) == 0, "no lag", within_s=180)
        until(lambda: unlanded(settings) == 0, "all rows in the offline store")
        titles = pq.read_table(data_dir / CATALOGUE_FILE)["title_id"].to_pylist()
        profiles = sorted(set(events["profile_id"].to_pylist()))
        yield Whole(settings, version, sent, profiles, titles)


def online(whole: Whole, profiles: list[str]) -> list[dict[str, Any]]:
    """The profiles' features, as Feast's own API returns them."""
    answer = open_store(whole.settings).get_online_features(ranker_v1, {"profile_id": profiles})
    columns = answer.to_dict()
    return [{name: columns[name][row] for name in FEATURES} for row in range(len(profiles))]


def test_every_record_is_where_it_belongs(whole: Whole) -> None:
    outcome = check(whole.replayed.sent, whole.settings)
    assert outcome.ok, outcome.mismatches[:10]
    assert outcome.applied > 1000
    assert min(outcome.late, outcome.dead_lettered, outcome.duplicates) > 0


def test_every_member_has_intents_of_the_version_that_was_published(whole: Whole) -> None:
    rows = [intent.row for intent in IntentReader(whole.settings).read(whole.profiles)]
    present = [row for row in rows if row is not None]
    assert len(present) > len(whole.profiles) / 2
    for row in present:
        assert row.model_version == whole.version
        assert 0 <= row.intent_cluster < 10
        for head in ("action", "genre", "kind", "release_age"):
            assert sum(row.probs[head]) == pytest.approx(1, abs=1e-3)
            assert row.labels[head]
        assert set(row.next_title_ids) <= set(whole.titles)


def test_members_who_did_different_things_have_different_intents(whole: Whole) -> None:
    said = {str(row["genre_probs"]) for row in online(whole, whole.profiles) if row["genre_probs"]}
    assert len(said) > len(whole.profiles) / 2


def test_a_ranker_trains_on_what_is_served(whole: Whole) -> None:
    # What came twice was published twice, the same but for rounding: history has the first.
    asked = pd.DataFrame({"profile_id": whole.profiles, "event_timestamp": datetime.now(UTC)})
    store = open_store(whole.settings)
    history = store.get_historical_features(asked, store.get_feature_service(ranker_v1.name))
    served = dict(zip(whole.profiles, online(whole, whole.profiles), strict=True))
    for row in history.to_arrow().to_pylist():
        online_row = served[row["profile_id"]]
        for name in ("sequence_no", "last_event_id", "model_version", "action", "session_id"):
            assert row[name] == online_row[name]
        for name in ("genre_probs", "user_embedding"):
            assert row[name] == pytest.approx(online_row[name], abs=1e-5)


def test_a_search_shows_what_fits_the_members_intent_first(whole: Whole) -> None:
    found = [Candidate(title_id) for title_id in whole.titles[:50]]
    reranker = Reranker(whole.settings, fresh_for_s=math.inf)
    members = [intent for intent in IntentReader(whole.settings).read(whole.profiles) if intent.row]
    orders = set()
    for member in members[:5]:
        answer = reranker.rerank(member.profile_id, found)
        assert (answer.order, answer.model_version) == (Order.INTENT, whole.version)
        scores = [one.score for one in answer.candidates]
        assert scores == sorted(scores, reverse=True)
        orders.add(tuple(one.title_id for one in answer.candidates))
    assert len(orders) > 1
