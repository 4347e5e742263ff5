"""The labels of a service, told from the values that its catalogue and its events have."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream.domain.version_labels import OTHER, VersionLabels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from fm_intent.data.description import LabelRules, Labels


@dataclass(frozen=True, slots=True)
class Learnt:
    """What the rules make of the values of one label.

    Attributes:
        labels: By name, `other` last, or in the order that is fixed; never empty.
        folded: The values that have no label of their own, with how often each occurs.
        counts: How often each value occurs, after aliases.
        aliases: Theirs → the label that counts for it.
    """

    labels: tuple[str, ...]
    folded: dict[str, int]
    counts: dict[str, int]
    aliases: dict[str, str]


def learn(
    rules: LabelRules, counts: Mapping[str, int], of: int, *, needs_other: bool = False
) -> Learnt:
    """Tell the labels of one kind.

    A value has a label of its own where it has the least share, among the most frequent ones; equal
    ones go by name. What is excluded is passed over.

    Args:
        rules: Of `source.yaml`.
        counts: How many records have each value, in the source's spelling.
        of: How many records there are, those without a value included.
        needs_other: Whether `other` is a label even where nothing counts as that.
    """
    named: Counter[str] = Counter()
    for value, count in counts.items():
        for label in rules.named([value]):
            named[label] += count
    if rules.fixed is not None:
        kept = set(rules.fixed)
    else:
        frequent = sorted(named.keys() - {OTHER}, key=lambda name: (-named[name], name))
        kept = {
            name for name in frequent[: rules.at_most] if named[name] >= rules.minimum_share * of
        }
    folded = {name: named[name] for name in sorted(named.keys() - kept - {OTHER})}
    labels = rules.fixed
    if labels is None:
        has_other = needs_other or folded or OTHER in named or not kept
        labels = (*sorted(kept), *([OTHER] if has_other else []))
    aliases = {
        value: label if label in labels else OTHER
        for value, label in sorted(rules.aliases.items())
        if label in labels or OTHER in labels
    }
    return Learnt(labels, folded, dict(named), aliases)


def learn_all(
    rules: Labels, catalogue: pa.Table, devices: Mapping[str, int]
) -> tuple[Learnt, Learnt, Learnt]:
    """Genres, kinds and devices.

    Args:
        rules: Of `source.yaml`.
        catalogue: T titles in `CATALOGUE_SCHEMA`.
        devices: How many events name each device, in the source's spelling.
    """
    listed = catalogue["genres"].to_pylist()
    genres = Counter(genre for genres in listed for genre in rules.genres.named(genres))
    kinds = Counter(kind for kind in catalogue["kind"].to_pylist() if kind)
    return (
        learn(rules.genres, genres, len(catalogue)),
        learn(rules.kinds, kinds, len(catalogue)),
        learn(rules.devices, devices, sum(devices.values()), needs_other=True),
    )


def version_labels(rules: Labels, catalogue: pa.Table, devices: Mapping[str, int]) -> VersionLabels:
    """The labels of a version that is trained on this catalogue; arguments as of `learn_all`."""
    genres, kinds, devices_ = learn_all(rules, catalogue, devices)
    return VersionLabels(
        genres=genres.labels,
        kinds=kinds.labels,
        devices=devices_.labels,
        genre_aliases=genres.aliases,
        kind_aliases=kinds.aliases,
        device_aliases=devices_.aliases,
    )
