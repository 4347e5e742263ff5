"""The figures of the page Now, made of what was read."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from intentstream.console.samples import Samples, increase, largest, quantiles, total

if TYPE_CHECKING:
    from intentstream.console.readings import Readings

LEGS: Final = ("produced_consumed", "consumed_inferred", "inferred_readable", "produced_readable")
"""Of freshness, in their order; the last one is the whole way."""

_SHARES: Final = (0.5, 0.99)


def figures(readings: Readings, now_s: float) -> dict[str, Any]:
    """What the page shows of now, as JSON.

    Rates are a second's, over the last ten seconds; None where nobody told the counter twice.
    """
    before_s, before = readings.before()
    over_s = now_s - before_s
    now = readings.samples
    grown = increase(before, now) if over_s > 0 else {}

    def per_s(name: str) -> float | None:
        sums = total(grown, name)
        return sums[()] / over_s if sums else None

    retried = total(grown, "intentstream_retries_total", "dependency")
    return {
        "at_ms": round(now_s * 1000),
        "sources": _sources(readings),
        "outcomes": {
            outcome: count / over_s
            for (outcome,), count in total(grown, "intentstream_events_total", "outcome").items()
        },
        "events_per_s": per_s("intentstream_events_total"),
        "lag": [asdict(one) for one in readings.lags],
        "freshness": freshness(grown),
        "batches": {
            "per_s": per_s("intentstream_batch_events_count"),
            "events": _mean(grown, "intentstream_batch_events"),
            "profiles": _mean(grown, "intentstream_batch_profiles"),
        },
        "cache": _cache(now, grown, over_s),
        "rows": {
            "published_per_s": per_s("intentstream_published_rows_total"),
            "refused_per_s": per_s("intentstream_stale_rows_total"),
            "refused": total(now, "intentstream_stale_rows_total").get(()),
        },
        "dead_letters": _dead_letters(readings),
        "back_pressure": largest(now, "intentstream_back_pressure").get((), 0.0) > 0,
        "waits_for": sorted(name for (name,), count in retried.items() if count > 0),
        "versions": {
            f"{role}s": {version: share for (of, version), share in _releases(now) if of == role}
            for role in ("live", "shadow")
        },
    }


def freshness(grown: Samples) -> dict[str, dict[str, float | None]]:
    """Seconds of each leg, p50 and p99; legs of which nothing was observed are absent."""
    found = quantiles(grown, "intentstream_freshness_seconds", "leg", _SHARES)
    return {
        leg: {"p50": found[leg][0], "p99": found[leg][1]}
        for leg in LEGS
        if leg in found and found[leg][0] is not None
    }


def point(told: dict[str, Any]) -> dict[str, float | None]:
    """What is kept of the figures for the lines of the last hour."""
    whole = told["freshness"].get(LEGS[-1], {})
    lag = told["lag"]
    return {
        "at_ms": told["at_ms"],
        "events_per_s": told["events_per_s"],
        "published_per_s": told["rows"]["published_per_s"],
        "freshness_p50": whole.get("p50"),
        "freshness_p99": whole.get("p99"),
        "lag": sum(one["records"] for one in lag) if lag else None,
    }


def _sources(readings: Readings) -> list[dict[str, Any]]:
    """Everything that is asked, and how it answers."""
    told = [
        {"name": target.job, "address": target.address, "problem": target.problem}
        | ({} if target.is_ready is None else {"ready": target.is_ready})
        for target in readings.targets
    ]
    told.append({"name": "kafka", "address": "", "problem": readings.kafka_problem})
    if readings.redis_problem is not None:
        told.append({"name": "redis", "address": "", "problem": readings.redis_problem})
    return told


def _mean(grown: Samples, histogram: str) -> float | None:
    count = total(grown, f"{histogram}_count").get((), 0.0)
    return total(grown, f"{histogram}_sum")[()] / count if count else None


def _cache(now: Samples, grown: Samples, over_s: float) -> dict[str, float | None]:
    hits = total(grown, "fm_intent_cache_hits_total").get(())
    misses = total(grown, "fm_intent_cache_misses_total").get(())
    windows = None if hits is None or misses is None else hits + misses
    return {
        "hit_share": hits / windows if hits is not None and windows else None,
        "windows_per_s": None if windows is None else windows / over_s,
        "capacity": total(now, "fm_intent_cache_capacity_profiles").get(()),
    }


def _dead_letters(readings: Readings) -> list[dict[str, Any]]:
    name, now = "intentstream_dead_letters_total", readings.samples
    _, past = readings.long_before()
    lately = total(increase(past, now), name, "topic", "reason")
    return [
        {"topic": topic, "reason": reason, "count": count, "lately": lately.get((topic, reason))}
        for (topic, reason), count in sorted(total(now, name, "topic", "reason").items())
        if count > 0
    ]


def _releases(now: Samples) -> list[tuple[tuple[str, ...], float]]:
    found = largest(now, "intentstream_model_release", "role", "version")
    return [(key, share) for key, share in found.items() if share > 0]
