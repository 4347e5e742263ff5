"""The alerts, their state, and what to do.

With Prometheus, its own word is told. Without, the rules come from its file and the console judges
those that it can by what it has read itself; it has no engine for PromQL, and says which it can't.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from intentstream.console.samples import Samples, increase, largest, quantiles, total
from stream.exceptions import InvalidSettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from intentstream.console.readings import Readings

_LABEL: Final = re.compile(r"\{\{\s*\$labels\.(\w+)\s*\}\}")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PARTS: Final = re.compile(r"(\d+)([smhd])")
_ERASED_WITHIN_S: Final = 3 * 86_400
_MOST_LAG: Final = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert, as the file of rules has it."""

    name: str
    for_s: float
    severity: str
    summary: str
    description: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule and its state.

    Attributes:
        name: the rule's.
        severity: page or ticket.
        summary: what it means; of one that fires, of what.
        description: what to do.
        state: firing, pending (not for long enough yet), inactive, or unknown: nobody can judge it
            here, or no worker answers.
        about: what it fires for.
    """

    name: str
    severity: str
    summary: str
    description: str
    state: str
    about: list[str] = field(default_factory=list)


def read_rules(path: Path) -> list[Rule]:
    """The rules of Prometheus' file.

    Raises:
        InvalidSettingsError: when it can't be read.
    """
    import yaml

    try:
        groups = yaml.safe_load(path.read_text())["groups"]
        return [
            Rule(
                name=one["alert"],
                for_s=_seconds(one.get("for", "0s")),
                severity=one["labels"]["severity"],
                summary=one["annotations"]["summary"],
                description=one["annotations"]["description"],
            )
            for group in groups
            for one in group["rules"]
            if "alert" in one
        ]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InvalidSettingsError(
            f"INTENT_CONSOLE_ALERT_RULES names {path}, which holds no rules that can be read "
            f"({error!r})"
        ) from error


def told_by_prometheus(answer: dict[str, Any]) -> list[Alert]:
    """The alerts in an answer of Prometheus' `/api/v1/rules`."""
    return [
        Alert(
            name=rule["name"],
            severity=rule["labels"].get("severity", ""),
            summary=_without_labels(
                (rule["alerts"] or [rule])[0]["annotations"].get("summary", rule["name"])
            ),
            description=rule["annotations"].get("description", ""),
            state=rule["state"],
            about=[one["annotations"].get("summary", "") for one in rule["alerts"]],
        )
        for group in answer["data"]["groups"]
        for rule in group["rules"]
        if rule["type"] == "alerting"
    ]


class Judge:
    """Judges rules by readings, and remembers since when each holds.

    Args:
        rules: what is judged.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [*rules]
        self._since_s: dict[str, float] = {}

    def judged(self, readings: Readings, now_s: float) -> list[Alert]:
        """The state of each rule."""
        return [self._judged(rule, readings, now_s) for rule in self._rules]

    def _judged(self, rule: Rule, readings: Readings, now_s: float) -> Alert:
        holds = CONDITIONS.get(rule.name)
        about = holds(readings) if holds else []
        if about:
            since_s = self._since_s.setdefault(rule.name, now_s)
            state = "firing" if now_s - since_s >= rule.for_s else "pending"
        else:
            self._since_s.pop(rule.name, None)
            state = "inactive" if holds and _is_told(readings) else "unknown"
        summary = _without_labels(rule.summary)
        return Alert(rule.name, rule.severity, summary, rule.description, state, about)


def _is_told(readings: Readings) -> bool:
    """Whether anybody tells: that nothing is heard doesn't mean that all is well."""
    return any(name.startswith("intentstream_") for name, _ in readings.samples)


def _lately(readings: Readings) -> Samples:
    _, past = readings.long_before()
    return increase(past, readings.samples)


def _slow(readings: Readings) -> list[str]:
    found = quantiles(_lately(readings), "intentstream_freshness_seconds", "leg", [0.99])
    (p99,) = found.get("produced_readable", [None])
    return [f"p99 is {p99:.1f} s"] if p99 is not None and p99 > 1 else []


def _behind(readings: Readings) -> list[str]:
    sums: dict[str, int] = {}
    for lag in readings.lags:
        sums[lag.topic] = sums.get(lag.topic, 0) + lag.records
    return [f"{topic}: {lag:,} records" for topic, lag in sums.items() if lag > _MOST_LAG]


def _above(name: str, *by: str, least: float = 0.0) -> Callable[[Readings], list[str]]:
    """Whether a gauge is above a bound anywhere."""
    return lambda readings: [
        ", ".join(key)
        for key, value in largest(readings.samples, name, *by).items()
        if value > least
    ]


def _grown(name: str, *by: str, **only: str) -> Callable[[Readings], list[str]]:
    """Whether a counter has grown lately."""
    return lambda readings: [
        f"{', '.join(key)}: {value:,.0f}"
        for key, value in total(_having(_lately(readings), only), name, *by).items()
        if value > 0
    ]


def _having(samples: Samples, only: dict[str, str]) -> Samples:
    return {
        series: value
        for series, value in samples.items()
        if only.items() <= dict(series[1]).items()
    }


def _kafka_away(readings: Readings) -> list[str]:
    return [
        dict(labels)["instance"]
        for (name, labels), value in readings.samples.items()
        if name == "intentstream_kafka_up" and value == 0
    ]


def _down(readings: Readings) -> list[str]:
    return [
        f"{target.job} {target.address}: {target.problem}"
        for target in readings.targets
        if target.problem
    ]


def _undone(readings: Readings) -> list[str]:
    name = "intentstream_sink_oldest_erasure_timestamp_seconds"
    oldest = largest(readings.samples, name).get((), 0.0)
    is_old = oldest > 0 and readings.now_s() - oldest > _ERASED_WITHIN_S
    return ["of the sink"] if is_old else []


def _evicting(readings: Readings) -> list[str]:
    lately = _lately(readings)
    hits, misses, evictions = (
        total(lately, f"fm_intent_cache_{what}_total", "version")
        for what in ("hits", "misses", "evictions")
    )
    return [
        f"version {version}"
        for (version,), count in evictions.items()
        if count > 0.1 * (hits.get((version,), 0.0) + misses.get((version,), 0.0))
    ]


CONDITIONS: Final[dict[str, Callable[[Readings], list[str]]]] = {
    "IntentFreshnessSlow": _slow,
    "IntentLagGrows": _behind,
    "IntentDependencyDown": _above("intentstream_back_pressure", "instance"),
    "IntentKafkaAway": _kafka_away,
    "IntentModelServerLeft": _above("intentstream_model_server_left", "server"),
    "IntentTargetDown": _down,
    "IntentErasureUndone": _undone,
    "IntentDeadLetters": _grown("intentstream_dead_letters_total", "topic", "reason"),
    "IntentStoreLostRows": _grown("intentstream_healed_rows_total", "loss"),
    "IntentTitleVectorsLost": _above("intentstream_title_vectors_lost", "instance"),
    "IntentEventsForwarded": _grown("intentstream_events_total", "topic", outcome="forwarded"),
    "IntentLogReplaced": _grown("intentstream_log_resets_total", "topic"),
    "IntentTopicMissing": _above("intentstream_missing_topics", "instance"),
    "IntentTransactionHangs": _above("intentstream_open_transaction_records", "topic", "partition"),
    "IntentModelCacheMisses": _evicting,
}
"""What makes an alert fire, by its name: for what it does, empty where it doesn't."""


def _seconds(duration: str) -> float:
    return sum(float(count) * _UNITS[unit] for count, unit in _PARTS.findall(duration))


def _without_labels(summary: str) -> str:
    """A summary of nothing in particular: the name of a label in place of its value."""
    return _LABEL.sub(lambda found: f"‹{found[1]}›", summary)
