"""Re-ranking against a real store: the library call, and the example service over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import redis as redis_client
from pydantic import SecretStr

from features.definitions import search_rerank_v1
from features.online.titles import publish_titles
from features.online.writer import IntentWriter
from features.reading.intents import Freshness
from features.reading.rerank import MATCHES, Candidate, Order, Reranker, Weights
from features.registry import places
from features.registry.store import open_store
from infra.local.programs import worker_environment
from stream.domain.labels import GENRES
from stream.exceptions import CandidatesError, StoreUnavailableError
from stream.ports import free_ports
from stream.settings import Settings
from tests.unit.features.samples import SAMPLE, sample
from tests.workers import ANSWER_S, exit_code, until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW_S = SAMPLE.last_event_at_ms / 1000 + 60
CATALOGUE = pa.table(
    {
        "title_id": ["drama", "comedy", "war"],
        "genres": [["drama"], ["comedy"], ["war"]],
        "kind": ["movie", "show", "movie"],
        "release_day": pa.array([0, 0, 0], pa.int32()),
    }
)
VECTORS = {"drama": [0.0, 1.0], "comedy": [1.0, 0.0], "war": [0.5, 0.0]}
FOUND = [Candidate("drama"), Candidate("unheard of"), Candidate("war"), Candidate("comedy")]


@pytest.fixture(scope="module")
def settings(redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A store with three titles, and a profile that wants comedy more than war."""
    home = tmp_path_factory.mktemp("rerank")
    host, port = redis.split(":")
    settings = Settings(
        redis_url=SecretStr(f"{redis},db=10"), feature_registry=home / "data" / "registry.db"
    )
    with pytest.MonkeyPatch.context() as patch, redis_client.Redis(host, int(port), 10) as client:
        patch.setattr(places, "REPOSITORY", home)
        publish_titles(
            settings, CATALOGUE, VECTORS, SAMPLE.model_version, datetime(2020, 1, 1, tzinfo=UTC)
        )
        genres = [0.0] * len(GENRES)
        genres[GENRES.index("comedy")], genres[GENRES.index("war")] = 0.75, 0.25
        wants = sample(
            genre_probs=genres,
            kind_probs=[0.25, 0.75],
            user_embedding=[1.0, -1.0],
            next_title_ids=["comedy", "somewhere else"],
            next_title_scores=[0.5, 0.25],
        )
        other = sample(profile_id="other model", model_version="5", genre_probs=genres)
        asyncio.run(_write(settings, [wants, other]))
        yield settings
        client.flushdb()


async def _write(settings: Settings, rows: list[Any]) -> None:
    writer = IntentWriter(settings)
    await writer.start()
    await writer.write(rows)
    await writer.close()


def _reranker(settings: Settings, **weights: float) -> Reranker:
    return Reranker(settings, Weights(**weights), clock=lambda: NOW_S)


def test_a_fresh_intent_changes_the_order(settings: Settings) -> None:
    weights = {"engine_score": 0.0, "embedding_match": 0.0}
    answer = _reranker(settings, **weights).rerank(SAMPLE.profile_id, FOUND)
    assert (answer.order, answer.freshness) == (Order.INTENT, Freshness.FRESH)
    assert (answer.age_ms, answer.model_version) == (60_000, SAMPLE.model_version)
    titles = [one.title_id for one in answer.candidates]
    assert titles == ["comedy", "unheard of", "war", "drama"]
    assert [one.engine_place for one in answer.candidates] == [4, 2, 3, 1]


def test_the_reasons_add_up_to_the_score(settings: Settings) -> None:
    scored = [Candidate(one.title_id, place) for place, one in enumerate(FOUND)]
    for one in _reranker(settings).rerank(SAMPLE.profile_id, scored).candidates:
        assert one.score == pytest.approx(sum(reason.contribution for reason in one.reasons))


def test_the_reasons_say_what_was_read(settings: Settings) -> None:
    answer = _reranker(settings).rerank(SAMPLE.profile_id, FOUND)
    read = {
        one.title_id: {reason.term: reason.value for reason in one.reasons}
        for one in answer.candidates
    }
    assert read["comedy"] == {
        "engine_score": None,
        "genre_match": 0.75,
        "kind_match": 0.75,
        "embedding_match": math.log(0.5),
    }
    assert set(read["unheard of"].values()) == {None}


@pytest.mark.parametrize("profile_id", [SAMPLE.profile_id, "other model"])
def test_the_features_are_those_that_feast_answers(settings: Settings, profile_id: str) -> None:
    store = open_store(settings)
    titles = [one.title_id for one in FOUND]
    by_feast = store.get_online_features(
        store.get_feature_service(search_rerank_v1.name),
        {"profile_id": [profile_id] * len(titles), "title_id": titles},
    ).to_dict()
    for one in _reranker(settings).rerank(profile_id, FOUND).candidates:
        read = {reason.term: reason.value for reason in one.reasons}
        place = titles.index(one.title_id)
        assert {name: read[name] for name in MATCHES} == {
            name: by_feast[name][place] for name in MATCHES
        }


def test_the_embedding_is_left_out_between_two_model_versions(settings: Settings) -> None:
    answer = _reranker(settings).rerank("other model", FOUND)
    assert answer.order is Order.INTENT
    for one in answer.candidates:
        reasons = {reason.term: reason for reason in one.reasons}
        assert reasons["embedding_match"].value is None
        assert reasons["embedding_match"].contribution == 0


def test_both_ways_to_ask_answer_alike(settings: Settings) -> None:
    async def ask() -> Any:
        reranker = _reranker(settings)
        answer = await reranker.rerank_async(SAMPLE.profile_id, FOUND)
        await reranker.close()
        return answer

    assert asyncio.run(ask()) == _reranker(settings).rerank(SAMPLE.profile_id, FOUND)


@pytest.mark.parametrize(
    ("profile_id", "seconds", "freshness"),
    [("nobody", 0.0, Freshness.ABSENT), (SAMPLE.profile_id, 86_400.0, Freshness.STALE)],
)
def test_without_a_live_intent_the_engine_s_order_is_kept(
    settings: Settings, profile_id: str, seconds: float, freshness: Freshness
) -> None:
    # Scores that contradict the engine's order don't change it either.
    found = [Candidate(one.title_id, place) for place, one in enumerate(FOUND)]
    reranker = Reranker(settings, clock=lambda: NOW_S + seconds)
    answer = reranker.rerank(profile_id, found)
    assert (answer.order, answer.freshness) == (Order.ENGINE, freshness)
    assert [one.title_id for one in answer.candidates] == [one.title_id for one in FOUND]


@pytest.mark.parametrize(
    ("candidates", "complaint"),
    [
        ([], "at least one"),
        ([Candidate("a", 1.0), Candidate("b")], "1 of 2"),
        ([Candidate("a", float("nan"))], "not finite"),
    ],
)
def test_candidates_that_cannot_be_compared_are_refused(
    settings: Settings, candidates: list[Candidate], complaint: str
) -> None:
    with pytest.raises(CandidatesError, match=complaint):
        _reranker(settings).rerank(SAMPLE.profile_id, candidates)


def test_a_store_that_is_away_is_named(settings: Settings) -> None:
    (port,) = free_ports(1)
    away = settings.model_copy(update={"redis_url": SecretStr(f"127.0.0.1:{port}")})
    with pytest.raises(StoreUnavailableError, match="INTENT_REDIS_URL"):
        asyncio.run(_reranker(away).rerank_async(SAMPLE.profile_id, FOUND))


@pytest.fixture(scope="module")
def service(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of the running service, for which an intent is never too old."""
    (port,) = free_ports(1)
    settings = settings.model_copy(update={"search_port": port, "session_gap_s": 10**9})
    log = tmp_path_factory.mktemp("service") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "intentstream", "search"],
            env={**os.environ, **worker_environment(settings)},
            stdout=out,
            stderr=out,
        )
    base = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _ask(f"{base}/health")[0] == 200, f"a healthy service; see {log}")
        yield base
    finally:
        process.terminate()
        exit_code(process)


def _ask(url: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer; status 0 when nothing listens."""
    request = urllib.request.Request(
        url, body and json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


def test_the_service_re_ranks_and_explains(service: str) -> None:
    body = {
        "profile_id": SAMPLE.profile_id,
        "query": "funny",
        "candidates": [{"title_id": one.title_id, "score": 1.0} for one in FOUND],
    }
    status, answer = _ask(f"{service}/search/rerank", body)
    assert status == 200
    assert (answer["query"], answer["order"], answer["freshness"]) == ("funny", "intent", "fresh")
    best = answer["candidates"][0]
    assert (best["title_id"], best["engine_place"]) == ("comedy", 4)
    assert {reason["term"] for reason in best["reasons"]} == {
        "engine_score",
        "genre_match",
        "kind_match",
        "embedding_match",
    }


def test_the_service_keeps_the_order_for_a_profile_without_intent(service: str) -> None:
    candidates = [{"title_id": one.title_id} for one in FOUND]
    status, answer = _ask(
        f"{service}/search/rerank", {"profile_id": "nobody", "candidates": candidates}
    )
    assert (status, answer["order"], answer["freshness"]) == (200, "engine", "absent")
    assert [one["title_id"] for one in answer["candidates"]] == [one.title_id for one in FOUND]


@pytest.mark.parametrize(
    ("candidates", "complaint"),
    [
        ([], "at least 1 item"),
        ([{"title_id": "a", "scor": 1}], "Extra inputs"),
        ([{"title_id": "a", "score": 1}, {"title_id": "b"}], "1 of 2"),
    ],
)
def test_the_service_says_what_is_wrong_with_a_query(
    service: str, candidates: list[dict[str, Any]], complaint: str
) -> None:
    status, answer = _ask(f"{service}/search/rerank", {"profile_id": "p", "candidates": candidates})
    assert status == 422
    assert complaint in json.dumps(answer)
