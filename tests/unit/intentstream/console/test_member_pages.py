"""What Member, Search and Map answer, from records that were published; there is no server."""

from __future__ import annotations

import asyncio
import csv
import time
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from intentstream.console.app import create_app
from intentstream.console.live import Live, live_of
from intentstream.console.pages.map import described, moved
from intentstream.console.pages.member import active_now
from stream.domain import codec
from stream.domain.catalogue import CATALOGUE_FILE
from stream.domain.event_types import event_of
from stream.domain.heads import HEADS
from stream.domain.intent_map import MAP_FILE, IntentMap
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.settings import Settings
from tests.unit.features.samples import SAMPLE, sample, to_json

if TYPE_CHECKING:
    from fastapi import FastAPI
    from httpx import Response

SCRIPT = "<script>alert(1)</script>"
CENTRES = np.array([[0, 0, 0], [4, 0, 0], [0, 3, 0]], np.float32)
VERSION = SAMPLE.model_version


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """A console whose version carries two titles and a map, and whose servers don't answer."""
    settings = Settings(
        redis_url=SecretStr("127.0.0.1:1"), kafka_bootstrap="127.0.0.1:1", triton_models=tmp_path
    )
    folder = tmp_path / settings.model_name / VERSION
    folder.mkdir(parents=True)
    titles = {
        "title_id": ["tt1", "tt2"],
        "name": [f"Dark {SCRIPT}", "Darker"],
        "kind": ["movie", "show"],
        "genres": [["drama"], []],
        "release_day": [0, None],
        "duration_s": [60.0, None],
    }
    pq.write_table(pa.table(titles), folder / CATALOGUE_FILE)
    (folder / MAP_FILE).write_text(IntentMap.of(CENTRES, [5, 3, 1]).model_dump_json())
    app = create_app(settings)
    app.state.live = Live(settings)
    return app


@pytest.fixture
def live(app: FastAPI) -> Live:
    return live_of(app)


def published(live: Live, profile_id: str = "p-1", **changes: Any) -> None:
    now_ms = round(time.time() * 1000)
    row = sample(profile_id=profile_id, **{"last_event_at_ms": now_ms, **changes})
    live.members.take_row(profile_id.encode(), to_json(row))


def asked(app: FastAPI, path: str, **more: Any) -> Response:
    async def ask() -> Response:
        async with AsyncClient(
            transport=ASGITransport(app), base_url="http://127.0.0.1:9467"
        ) as client:
            method = "POST" if more else "GET"
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def profile(live: Live, profile_id: str = "p-1") -> dict[str, Any]:
    return asyncio.run(live.profile(profile_id, from_store=False))


def test_a_member_is_told_in_the_words_of_its_version(live: Live) -> None:
    published(live, intent_cluster=1)
    told = profile(live)
    row = told["row"]
    assert told["freshness"] == "fresh"
    assert [head["name"] for head in row["heads"]] == [head.name for head in HEADS]
    assert row["heads"][2] | {"attention": 0} == {
        "name": "kind",
        "attention": 0,
        "labels": ["movie", "show"],
        "probs": [0.25, 0.75],
    }
    assert [one["title"]["name"] for one in row["next"]] == [
        f"Dark {SCRIPT}",
        "Darker",
        "ein Zähler",
    ]
    assert row["cluster"] == {"number": 1, "description": "", "size": 3}


def test_an_intent_of_a_session_that_has_ended_is_stale(live: Live) -> None:
    published(live, last_event_at_ms=1_700_000_000_000)
    assert profile(live)["freshness"] == "stale"


def test_of_an_unknown_profile_nothing_is_told_but_why(live: Live) -> None:
    told = profile(live, "nobody")
    assert (told["freshness"], told["row"], told["steps"]) == ("absent", None, None)
    assert "Redis" in told["problem"] or "127.0.0.1:1" in told["problem"]


def test_a_head_that_the_version_does_not_predict_is_left_out(live: Live) -> None:
    published(live, kind_probs=[], kind="")
    assert "kind" not in [head["name"] for head in profile(live)["row"]["heads"]]


def test_what_the_last_events_changed_is_told_of_each_head(live: Live) -> None:
    for number, share in ((1, 0.25), (2, 0.5)):
        published(live, sequence_no=number, kind_probs=[share, 1 - share])
    assert [one["probs"]["kind"][0] for one in profile(live)["moments"]] == [0.25, 0.5]


def test_moments_of_another_version_are_not_compared(live: Live) -> None:
    published(live, sequence_no=1, model_version="3")
    published(live, sequence_no=2)
    assert [one["sequence_no"] for one in profile(live)["moments"]] == [2]


def test_the_window_is_told_with_names(live: Live) -> None:
    published(live)
    event = event_of(
        {
            "event_id": "e",
            "profile_id": "p-1",
            "event_type": "title_open",
            "occurred_at_ms": 1,
            "title_id": "tt2",
        }
    )
    live.members.take_state(b"p-1", codec.encode(state_of([event], Rules())))
    (step,) = profile(live)["steps"]
    assert (step["action"], step["title"]["name"]) == ("open", "Darker")


def test_a_damaged_state_leaves_the_rest_of_the_page(live: Live) -> None:
    published(live)
    live.members.take_state(b"p-1", b"damaged")
    told = profile(live)
    assert told["steps"] is None
    assert told["row"] is not None


def test_who_is_active_is_told_with_what_each_wants(live: Live) -> None:
    published(live, "p-1")
    published(live, SCRIPT)
    told = asyncio.run(active_now(live))["members"]
    assert [one["profile_id"] for one in told] == [SCRIPT, "p-1"]
    assert told[0]["labels"]["genre"] == "drama"


def test_nobody_acts_by_default(app: FastAPI) -> None:
    assert "INTENT_CONSOLE_MAY_ACT" in asked(app, "/api/member/acting").json()["refused"]
    answer = asked(
        app, "/api/member/act", json={"profile_id": "p", "act": "open", "title_id": "tt1"}
    )
    assert answer.status_code == 403


def test_another_site_acts_as_nobody(app: FastAPI) -> None:
    acted = {"profile_id": "p", "act": "open", "title_id": "tt1"}
    origin = {"Origin": "https://elsewhere.example"}
    assert asked(app, "/api/member/act", json=acted, headers=origin).status_code == 403


@pytest.mark.parametrize(
    "acted", [{}, {"profile_id": "p"}, {"profile_id": "", "act": "open"}, {"more": 1}]
)
def test_what_is_no_act_is_refused(app: FastAPI, acted: dict[str, Any]) -> None:
    assert asked(app, "/api/member/act", json=acted).status_code == 422


def test_a_search_for_nobody_is_in_the_engine_s_order(app: FastAPI, live: Live) -> None:
    published(live)
    told = asked(app, "/api/search?q=dark").json()
    assert [one["title"]["title_id"] for one in told["candidates"]] == ["tt1", "tt2"]
    assert told["order"] == "engine"
    assert told["weights"]["engine_score"] == 0.7


def test_titles_are_data_whatever_they_say(app: FastAPI, live: Live) -> None:
    published(live)
    answer = asked(app, "/api/search/titles?q=script")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()[0]["name"] == f"Dark {SCRIPT}"


def test_a_store_that_does_not_answer_is_named(app: FastAPI, live: Live) -> None:
    published(live)
    assert asked(app, "/api/search?q=dark&profile=p-1").status_code == 503


def test_a_member_lies_where_its_embedding_does_and_moves_with_it(live: Live) -> None:
    mapped = asyncio.run(live.map(VERSION))
    assert mapped is not None
    drawn: dict[str, Any] = {}
    published(live, "a", intent_embedding=CENTRES[1].tolist(), intent_cluster=1)
    published(live, "b", intent_embedding=CENTRES[2].tolist(), intent_cluster=2)
    told = moved(live, VERSION, mapped, drawn)["moved"]
    assert {one[0]: one[3] for one in told} == {"a": 1, "b": 2}
    for name, x, y, cluster, _ in told:
        assert (x, y) == pytest.approx(mapped.clusters[cluster].at, abs=1e-3), name
    assert moved(live, VERSION, mapped, drawn)["moved"] == []
    published(live, "a", intent_embedding=CENTRES[2].tolist(), intent_cluster=2, sequence_no=18)
    assert [one[0] for one in moved(live, VERSION, mapped, drawn)["moved"]] == ["a"]


def test_who_is_erased_leaves_the_map(live: Live) -> None:
    mapped = asyncio.run(live.map(VERSION))
    assert mapped is not None
    drawn: dict[str, Any] = {}
    published(live, "a", intent_embedding=CENTRES[0].tolist())
    moved(live, VERSION, mapped, drawn)
    live.members.take_row(b"a", None)
    assert moved(live, VERSION, mapped, drawn)["gone"] == ["a"]


def test_a_version_without_clusters_has_no_map(live: Live) -> None:
    assert asyncio.run(live.map("7")) is None
    assert described("7", None, "")["clusters"] is None


def test_segments_are_a_table_that_no_spreadsheet_runs(app: FastAPI, live: Live) -> None:
    published(live, "a", intent_cluster=1, published_at_ms=60_000)
    published(live, "b", intent_cluster=1, published_at_ms=61_000, model_version="=1+1")
    answer = asked(app, "/api/map/segments.csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = [*csv.DictReader(StringIO(answer.text))]
    assert [(one["minute"], one["model_version"], one["members"]) for one in rows] == [
        ("1970-01-01T00:01+00:00", VERSION, "1"),
        ("1970-01-01T00:01+00:00", "'=1+1", "1"),
    ]
