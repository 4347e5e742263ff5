from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest

from infra.local.programs import programs
from intentstream.console.alerts import CONDITIONS, Judge, read_rules, told_by_prometheus
from intentstream.console.event_types import EventTypes
from intentstream.console.figures import figures, point
from intentstream.console.pages import dead_letters, models
from intentstream.console.prometheus import LINES, Prometheus
from intentstream.console.readings import Lag, Readings, targets_of
from intentstream.console.samples import parsed
from stream.exceptions import InvalidSettingsError, MetricsUnavailableError
from stream.kafka.lag import PartitionLag
from stream.settings import Settings
from tests.checkout import REPOSITORY

RULES: Final = REPOSITORY / "infra" / "prometheus" / "rules.yml"
SCRIPT: Final = "<script>alert(1)</script>"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def metrics(events: int, *, slow: int = 0, more: str = "") -> str:
    """A worker's metrics after so many events, of which `slow` took more than a second."""
    return f"""
# TYPE intentstream_events_total counter
intentstream_events_total{{topic="browse-events",outcome="applied"}} {events}
# TYPE intentstream_freshness_seconds histogram
intentstream_freshness_seconds_bucket{{leg="produced_readable",le="0.016"}} {events - slow}
intentstream_freshness_seconds_bucket{{leg="produced_readable",le="2.0"}} {events}
intentstream_freshness_seconds_bucket{{leg="produced_readable",le="+Inf"}} {events}
# TYPE intentstream_batch_events histogram
intentstream_batch_events_sum {events}
intentstream_batch_events_count {events / 4}
# TYPE intentstream_model_release gauge
intentstream_model_release{{role="live",version="7"}} 1
intentstream_model_release{{role="live",version="6"}} 0
intentstream_model_release{{role="shadow",version="8"}} 0.1
{more}
"""


def readings(*texts: str, step_s: float = 10.0) -> tuple[Readings, Clock]:
    """What the console has read when its worker told these, one after another."""
    clock = Clock()
    found = Readings(Settings(), clock)
    for at, text in enumerate(texts):
        clock.now_s += step_s * bool(at)
        found.take(parsed(text, "worker:1"))
    return found, clock


def test_the_figures_are_of_the_last_ten_seconds() -> None:
    found, clock = readings(metrics(100), metrics(300, slow=100))
    told = figures(found, clock())
    assert told["events_per_s"] == pytest.approx(20)
    assert told["outcomes"] == {"applied": pytest.approx(20)}
    assert told["batches"]["events"] == pytest.approx(4)
    assert told["freshness"]["produced_readable"]["p50"] == pytest.approx(0.016)
    assert told["freshness"]["produced_readable"]["p99"] > 1
    assert told["versions"] == {"lives": {"7": 1}, "shadows": {"8": 0.1}}
    assert point(told)["freshness_p99"] == told["freshness"]["produced_readable"]["p99"]


def test_nothing_is_made_up_where_nobody_tells() -> None:
    told = figures(Readings(Settings()), 1000.0)
    assert told["events_per_s"] is None
    assert told["freshness"] == {}
    assert told["cache"]["hit_share"] is None
    assert told["lag"] == []
    assert {one["name"] for one in told["sources"] if one["problem"]} == {
        "worker",
        "sink",
        "triton",
        "kafka",
        "redis",
    }


def test_a_targets_end_is_seen_in_its_samples() -> None:
    found, clock = readings(metrics(100), metrics(300))
    clock.now_s += 10
    found.take({})
    assert figures(found, clock())["events_per_s"] is None


def test_what_is_remembered_is_bounded() -> None:
    found, clock = readings(*(metrics(100) for _ in range(200)), step_s=60.0)
    past_s, _ = found.long_before()
    assert clock() - past_s <= 31 * 60


def test_lag_is_told_in_records_and_in_seconds() -> None:
    clock = Clock()
    found = Readings(Settings(topic_prefix="mine-"), clock)
    for end in (100, 200, 300):
        found.take_lags([_lag(committed=200, end=end)])
        clock.now_s += 10
    assert found.lags == [Lag("browse-events", 0, records=100, seconds=pytest.approx(10))]


def _lag(committed: int, end: int) -> PartitionLag:
    return PartitionLag("group", "mine-browse-events", 0, start=0, committed=committed, end=end)


def test_targets_are_those_of_the_setting_else_of_this_machine() -> None:
    named = Settings(console_targets="worker=a:1, worker=b:2,triton=c:3")
    assert targets_of(named) == [("worker", "a:1"), ("worker", "b:2"), ("triton", "c:3")]
    assert ("worker", "127.0.0.1:9464") in targets_of(Settings())
    with pytest.raises(ValueError, match="console_targets"):
        Settings(console_targets="a:1")


def test_every_rule_that_the_console_judges_is_one_of_the_files() -> None:
    names = {rule.name for rule in read_rules(RULES)}
    assert names >= CONDITIONS.keys()
    # No judgement of its own: it would have to remember a day.
    assert names - CONDITIONS.keys() == {"IntentBridgeGone"}


def test_the_local_stack_names_its_own_rules(tmp_path: Path) -> None:
    environment = programs(tmp_path, Settings())["console"].environment
    assert read_rules(Path(environment["INTENT_CONSOLE_ALERT_RULES"])) == read_rules(RULES)


def test_rules_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for text in ("groups: 3", "a: [", "groups: [{rules: [{alert: x}]}]"):
        (tmp_path / "rules.yml").write_text(text)
        with pytest.raises(InvalidSettingsError, match="INTENT_CONSOLE_ALERT_RULES"):
            read_rules(tmp_path / "rules.yml")


def states(found: Readings, clock: Clock, judge: Judge) -> dict[str, str]:
    return {one.name: one.state for one in judge.judged(found, clock())}


def test_an_alert_is_pending_until_it_has_held_for_as_long_as_its_rule_says() -> None:
    judge = Judge(read_rules(RULES))
    held = "# TYPE intentstream_back_pressure gauge\nintentstream_back_pressure 1\n"
    found, clock = readings(metrics(1), metrics(2, more=held))
    assert states(found, clock, judge)["IntentDependencyDown"] == "pending"
    clock.now_s += 61
    assert states(found, clock, judge)["IntentDependencyDown"] == "firing"
    found.take(parsed(metrics(3), "worker:1"))
    assert states(found, clock, judge)["IntentDependencyDown"] == "inactive"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("IntentDeadLetters", 'intentstream_dead_letters_total{topic="t",reason="not_json"} 1'),
        ("IntentStoreLostRows", 'intentstream_healed_rows_total{loss="missing"} 2'),
        ("IntentLogReplaced", 'intentstream_log_resets_total{topic="t",partition="0"} 1'),
        ("IntentKafkaAway", "intentstream_kafka_up 0"),
        ("IntentTopicMissing", "intentstream_missing_topics 1"),
        ("IntentTitleVectorsLost", "intentstream_title_vectors_lost 1"),
        ("IntentModelServerLeft", 'intentstream_model_server_left{server="s"} 1'),
        (
            "IntentTransactionHangs",
            'intentstream_open_transaction_records{topic="t",partition="0"} 1',
        ),
        (
            "IntentEventsForwarded",
            'intentstream_events_total{topic="t",outcome="forwarded"} 1',
        ),
        ("IntentErasureUndone", "intentstream_sink_oldest_erasure_timestamp_seconds 1"),
    ],
)
def test_what_an_alert_is_for_makes_it_hold(name: str, more: str) -> None:
    found, clock = readings(metrics(1), metrics(2, more=more))
    clock.now_s += 4 * 86_400
    judge = Judge(read_rules(RULES))
    assert states(found, clock, judge)[name] in ("pending", "firing")
    quiet, clock = readings(metrics(1), metrics(2))
    assert states(quiet, clock, Judge(read_rules(RULES)))[name] == "inactive"


def test_no_alert_is_quiet_while_nobody_tells() -> None:
    found, clock = readings(metrics(1))
    found.take({})
    told = states(found, clock, Judge(read_rules(RULES)))
    assert "inactive" not in told.values()
    assert told["IntentTargetDown"] == "pending"


def test_slow_events_and_a_cache_that_is_too_small_are_judged() -> None:
    cache = "\n".join(
        f'# TYPE fm_intent_cache_{name}_total counter\nfm_intent_cache_{name}_total{{version="1"}} '
        for name in ("hits", "evictions")
    )
    hits, evictions = cache.rsplit("\n# TYPE", 1)
    more = f"{hits}50\n# TYPE{evictions}"
    found, clock = readings(metrics(0, more=f"{more}0"), metrics(100, slow=5, more=f"{more}20"))
    told = states(found, clock, Judge(read_rules(RULES)))
    assert told["IntentFreshnessSlow"] == "pending"
    assert told["IntentModelCacheMisses"] == "pending"


def test_prometheus_own_word_on_alerts_is_taken() -> None:
    rule = {
        "type": "alerting",
        "name": "IntentDeadLetters",
        "state": "firing",
        "labels": {"severity": "ticket"},
        "annotations": {"summary": "Of {{ $labels.topic }}", "description": "Look."},
        "alerts": [{"annotations": {"summary": f"Of {SCRIPT}"}}],
    }
    quiet = rule | {"state": "inactive", "alerts": []}
    recording = {"type": "recording", "name": "x"}
    answer = {"data": {"groups": [{"rules": [rule, quiet, recording]}]}}
    firing, inactive = told_by_prometheus(answer)
    assert (firing.state, firing.about) == ("firing", [f"Of {SCRIPT}"])
    assert (inactive.state, inactive.summary, inactive.about) == ("inactive", "Of ‹topic›", [])


def test_the_last_hour_is_asked_of_prometheus() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["query"])
        values = [[1000, "1.5"], [1010, "NaN"]]
        found = {"status": "success", "data": {"result": [{"metric": {}, "values": values}]}}
        return httpx.Response(200, json=found)

    async def ask() -> list[dict[str, float | None]]:
        async with Prometheus("http://prometheus", httpx.MockTransport(answer)) as prometheus:
            return await prometheus.last_hour(2000)

    first, second = asyncio.run(ask())
    assert sorted(asked) == sorted(LINES.values())
    assert first == {"at_ms": 1_000_000, **dict.fromkeys(LINES, 1.5)}
    assert second == {"at_ms": 1_010_000, **dict.fromkeys(LINES, None)}


@pytest.mark.parametrize("text", ["<html>", '{"status": "error", "error": "no"}'])
def test_a_prometheus_that_is_none_is_told(text: str) -> None:
    async def ask() -> Any:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, text=text))
        async with Prometheus("http://prometheus", transport) as prometheus:
            return await prometheus.alerts()

    with pytest.raises(MetricsUnavailableError, match="INTENT_CONSOLE_PROMETHEUS_URL"):
        asyncio.run(ask())


class _Record:
    headers: list[tuple[str, bytes]] | None = None

    def __init__(self, value: bytes | None) -> None:
        self.value = value


def test_events_are_counted_by_type_and_strangers_text_is_no_type() -> None:
    clock = Clock()
    types = EventTypes(Settings(), clock)
    clock.now_s += 10
    values = [
        orjson.dumps({"event_type": "search"}),
        orjson.dumps({"event_type": "search", "query": SCRIPT}),
        orjson.dumps({"event_type": SCRIPT}),
        b"\xff",
        b"[1]",
        None,
    ]
    types.count([_Record(value) for value in values])  # type: ignore[misc]
    assert types.per_s() == {"other": pytest.approx(0.4), "search": pytest.approx(0.2)}
    clock.now_s += 11
    assert types.per_s() == {}


def test_a_reason_that_somebody_made_up_runs_nothing_when_its_command_is_pasted() -> None:
    assert dead_letters.replay("not_json") == "intentstream dlq replay --reason not_json"
    assert dead_letters.replay("x; rm -rf ~") == "intentstream dlq replay --reason 'x; rm -rf ~'"
    assert dead_letters.replay("") == "intentstream dlq replay"


def test_the_shadows_drift_is_the_mean_of_what_workers_compared() -> None:
    text = """
# TYPE intentstream_shadow_divergence_bits histogram
intentstream_shadow_divergence_bits_sum{head="genre"} 2
intentstream_shadow_divergence_bits_count{head="genre"} 4
# TYPE intentstream_shadow_overlap histogram
intentstream_shadow_overlap_sum 3
intentstream_shadow_overlap_count 4
# TYPE intentstream_shadow_rows_total counter
intentstream_shadow_rows_total{outcome="compared"} 4
"""
    both = parsed(text, "one:1") | parsed(text, "other:1")
    assert models.divergence(both) == {
        "heads": {"genre": 0.5},
        "overlap": 0.75,
        "answers": {"compared": 8},
    }
    assert models.divergence({}) == {"heads": {}, "overlap": None, "answers": {}}
