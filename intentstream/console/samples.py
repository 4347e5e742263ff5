"""What metrics endpoints tell, and the arithmetic on it: sums, increases, quantiles. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import inf
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name, and the labels by their names in order."""

Samples = dict[Series, float]

INSTANCE: Final = "instance"
"""The label that tells whose sample it is: the address that was asked."""

_OURS: Final = ("intentstream_", "fm_intent_", "kafka_consumergroup_", "nv_inference_")
MOST_SERIES: Final = 20_000
"""Of one endpoint; what is more isn't looked at."""


def parsed(text: str, instance: str) -> Samples:
    """The samples of the product's metrics in an endpoint's text.

    Args:
        text: Prometheus' text format.
        instance: becomes the label `instance` of each.

    Raises:
        ValueError: when it isn't that format.
    """
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(_OURS):
            continue
        for sample in family.samples:
            labels = {**sample.labels, INSTANCE: instance}
            found[sample.name, tuple(sorted(labels.items()))] = float(sample.value)
            if len(found) == MOST_SERIES:
                return found
    return found


def named(samples: Samples, *names: str) -> Samples:
    """The samples of some metrics."""
    return {series: value for series, value in samples.items() if series[0] in names}


def total(samples: Samples, name: str, *by: str) -> dict[tuple[str, ...], float]:
    """Sums of a metric by labels."""
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for (of, labels), value in samples.items():
        if of == name:
            told = dict(labels)
            sums[tuple(told.get(label, "") for label in by)] += value
    return dict(sums)


def largest(samples: Samples, name: str, *by: str) -> dict[tuple[str, ...], float]:
    """The largest values of a metric by labels."""
    found: dict[tuple[str, ...], float] = {}
    for (of, labels), value in samples.items():
        if of == name:
            told = dict(labels)
            key = tuple(told.get(label, "") for label in by)
            found[key] = max(found.get(key, -inf), value)
    return found


def increase(before: Samples, now: Samples) -> Samples:
    """How much each counter has grown.

    One that is less began anew, and so did one that its instance didn't have before. Of an instance
    that wasn't there before nothing is known.
    """
    known = {dict(labels)[INSTANCE] for _, labels in before}
    return {
        series: value - earlier if (earlier := before.get(series, 0.0)) <= value else value
        for series, value in now.items()
        if dict(series[1])[INSTANCE] in known
    }


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """A quantile of a histogram, as Prometheus' `histogram_quantile` tells it.

    Args:
        buckets: observations up to and with each upper bound, the last one infinite.
        share: 0 to 1.

    Returns:
        It, between the bounds of its bucket in proportion; the last finite bound where it lies
        beyond; None where nothing was observed.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = share * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            if bound == inf:
                return lower
            return lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
        lower, below = bound, buckets[bound]
    return lower


def quantiles(
    grown: Samples, name: str, label: str, shares: Iterable[float]
) -> dict[str, list[float | None]]:
    """Quantiles of a histogram's increase, by one of its labels.

    Args:
        grown: what came of `increase`.
        name: the histogram's.
        label: by which.
        shares: which quantiles.
    """
    wanted = [*shares]
    found: dict[str, dict[float, float]] = defaultdict(dict)
    for (of, bound), count in total(grown, f"{name}_bucket", label, "le").items():
        found[of][float(bound)] = count
    return {of: [quantile(one, share) for share in wanted] for of, one in found.items()}


def seconds_behind(ends: Iterable[tuple[float, int]], committed: int, now_s: float) -> float:
    """How long a log's end has been beyond what a group has committed.

    Args:
        ends: when, in seconds, the log ended where: ascending.
        committed: the group's place.
        now_s: now.

    Returns:
        Seconds, between two looks in proportion; at most as far back as `ends` reach, so it may be
        more where the first of them is beyond already.
    """
    seen = [*ends]
    if not seen or seen[-1][1] <= committed:
        return 0.0
    if seen[0][1] > committed:
        return now_s - seen[0][0]
    for (at_s, end), (next_s, next_end) in pairwise(seen):
        if next_end > committed:
            return now_s - (at_s + (next_s - at_s) * (committed - end) / (next_end - end))
    return 0.0
