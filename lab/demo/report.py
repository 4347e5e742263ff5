"""What the demo shows and writes at its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from fm_intent.data.contract import CATALOGUE_FILE
from lab.replay.plan import Fate
from stream.domain.event_types import PLAYS
from stream.domain.heads import HEADS, INTENTS
from stream.domain.labels import RELEASE_AGES
from stream.plain_text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from features.reading.intents import LiveIntent
    from fm_intent.export import Manifest
    from lab.demo.ages import Ages
    from lab.replay.checker import CheckResult
    from lab.replay.plan import Plan
    from lab.replay.prober import Samples
    from stream.domain.feature_row import IntentRow

SHOWN_PLAYS: Final = 5
SHOWN_NEXT: Final = 5
SHOWN_LABELS: Final = 2
SHOWN_OF_SEVERAL: Final = 3
PERCENTILES: Final = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a demo.

    Attributes:
        source: name of the data.
        check: what became of every record.
        freshness: the prober's samples.
        manifest: of the model version that was served.
        ages: what is served of the next play's release age, beside what was held out.
        setup_s: from the demo's start to the first record sent.
        replay_s: from the first record sent until the worker had acknowledged all.
    """

    source: str
    check: CheckResult
    freshness: Samples
    manifest: Manifest
    ages: Ages
    setup_s: float
    replay_s: float

    @property
    def events_per_s(self) -> float:
        """Records sent, taken in, published and acknowledged per second."""
        return self.check.events_sent / self.replay_s

    def to_json(self) -> dict[str, Any]:
        """The content of `demo.json`."""
        check, metrics = self.check, self.manifest.metrics
        names = ("hr10", "ndcg10", "popularity_hr10", "popularity_ndcg10")
        return {
            "source": self.source,
            "events_sent": check.events_sent,
            "events_applied": check.applied,
            "duplicates": check.duplicates,
            "late": check.late,
            "dead_lettered": check.dead_lettered,
            "missing": check.missing,
            "wrong": check.wrong,
            "profiles": check.profiles,
            "freshness_ms": {f"p{p}": self.freshness.percentile(p) for p in PERCENTILES},
            "events_per_s": self.events_per_s,
            "model": {"version": self.manifest.version} | {name: metrics[name] for name in names},
            "release_ages": self.ages.to_json(),
            "setup_s": self.setup_s,
            "replay_s": self.replay_s,
        }

    def write(self, path: Path) -> None:
        """Write `demo.json`."""
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print the tables of records, speed and model."""
        check, metrics = self.check, self.manifest.metrics
        records = Table("records", "", "what became of them", title=f"Replay of {self.source}")
        for name, count, meaning in (
            ("sent", check.events_sent, "on the two event topics"),
            ("applied", check.applied, f"reflected in the features of {check.profiles:,} profiles"),
            ("without state", check.stateless, "impressions, removals from the list: counted only"),
            ("duplicates", check.duplicates, "sent again, changed nothing"),
            ("late", check.late, "on late-events"),
            ("dead-lettered", check.dead_lettered, "on *.dlq, with the reason they should have"),
            ("missing", check.missing, "nowhere to be found"),
            ("wrong", check.wrong, "in the features or on a topic where they should not be"),
        ):
            colour = "red" if name in ("missing", "wrong") and count else ""
            records.add_row(name, Text(f"{count:,}", style=colour), meaning)
        records.columns[1].justify = "right"
        console.print(records)
        if check.bounded_profiles:
            console.print(
                f"{check.bounded_profiles:,} profiles had events whose place had left the window "
                "before they came; their sequence_no was checked against bounds."
            )
        speed = Table("", *(f"p{p}" for p in PERCENTILES), "samples", title="Freshness")
        values = [self.freshness.percentile(p) for p in PERCENTILES]
        speed.add_row(
            "produced → readable through Feast",
            *("–" if value is None else f"{value:,.0f} ms" for value in values),
            f"{len(self.freshness.freshness_ms):,}",
        )
        console.print(speed)
        console.print(
            f"{self.freshness.superseded:,} of the samples were first seen as a newer event of "
            f"their profile, {self.freshness.unseen:,} never. "
            f"{self.events_per_s:,.0f} events/s over {self.replay_s:.1f} s."
        )
        model = Table("model", "HR@10", "NDCG@10", title="Held-out next titles")
        model.add_row(
            f"FM-Intent, version {self.manifest.version}",
            f"{metrics['hr10']:.4f}",
            f"{metrics['ndcg10']:.4f}",
        )
        model.add_row(
            "popularity", f"{metrics['popularity_hr10']:.4f}", f"{metrics['popularity_ndcg10']:.4f}"
        )
        console.print(model)
        ages = Table("", *RELEASE_AGES, title="Release age of the next play")
        for name, shares in (("served", self.ages.served), ("held out", self.ages.held_out)):
            ages.add_row(name, *(f"{share:.2f}" for share in shares))
        console.print(ages)


def show_mix(plan: Plan, console: Console) -> None:
    """Print what is mixed into a replay on purpose."""
    console.print(
        f"mixed in on purpose: {plan.count(Fate.REPEAT):,} duplicates, {plan.delayed:,} out of "
        f"order, {plan.count(Fate.TOO_LATE):,} too late, {plan.count(Fate.MALFORMED):,} malformed"
    )


def sample_profiles_of(plan: Plan, count: int) -> list[str]:
    """Ids of `count` profiles of a plan: the latest to have played something."""
    plays = plan.events.filter(pc.is_in(plan.events["event_type"], pa.array(PLAYS)))
    newest_first = reversed(plays["profile_id"].to_pylist())
    return list(dict.fromkeys(newest_first))[:count]


def show_profiles(
    plan: Plan, data_dir: Path, intents: Sequence[LiveIntent], console: Console
) -> None:
    """Print the titles that profiles just watched, and the intents read back for them."""
    catalogue = pq.read_table(data_dir / CATALOGUE_FILE, columns=["title_id", "name"])
    names = dict(zip(*(catalogue[c].to_pylist() for c in catalogue.column_names), strict=True))
    for intent in intents:
        table = Table(title=f"profile {intent.profile_id}", show_header=False)
        watched = _last_watched(plan.events, intent.profile_id)
        table.add_row("just watched", "\n".join(visible(names[title]) for title in watched))
        if intent.row is None:
            table.add_row("features", "none")
        else:
            for name, value in _described(intent.row, names):
                table.add_row(name, value)
        console.print(table)


def _last_watched(events: pa.Table, profile_id: str) -> list[str]:
    own = events.filter(pc.equal(events["profile_id"], profile_id))
    plays = own.filter(pc.is_valid(own["playback_id"]))
    # One title for each sitting, the latest first.
    sittings = dict(
        zip(plays["playback_id"].to_pylist(), plays["title_id"].to_pylist(), strict=True)
    )
    return list(sittings.values())[: -SHOWN_PLAYS - 1 : -1]


def _described(row: IntentRow, names: dict[str, str]) -> list[tuple[str, str]]:
    lines = [
        (
            f"{head.name.replace('_', ' ')} next",
            _top(
                head.labels,
                row.probs[head.name],
                SHOWN_OF_SEVERAL if head.several else SHOWN_LABELS,
            ),
        )
        for head in HEADS
        if row.probs[head.name]
    ]
    attention = zip(INTENTS, row.intent_attention, strict=True)
    lines.append(("intent attention", ", ".join(f"{n} {a:.2f}" for n, a in attention if a)))
    titles = zip(row.next_title_ids[:SHOWN_NEXT], row.next_title_scores, strict=False)
    listed = "\n".join(
        f"{visible(names.get(title, title))}  {score:.3f}" for title, score in titles
    )
    lines.append(("titles next", listed))
    lines.append(("session", f"{row.session_length} interactions, model {row.model_version}"))
    return lines


def _top(labels: Sequence[str], probabilities: Sequence[float], count: int) -> str:
    ranked = sorted(zip(probabilities, labels, strict=True), reverse=True)[:count]
    return ", ".join(f"{label} {probability:.2f}" for probability, label in ranked)
