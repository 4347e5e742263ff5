"""Purpose-built edges for the pipeline: they record what happens, and fail when told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.domain.feature_row import Erasure, IntentRow
from stream.domain.heads import HEADS
from stream.domain.prediction import Intents
from stream.domain.window import WindowBatch
from stream.kafka.outbox import Outgoing

NOW_S = 1_700_000_000.0
NOW_MS = round(NOW_S * 1000)


@dataclass
class Message:
    """A consumed record."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = 0
    offset: int = 0
    timestamp: float = NOW_S
    headers: list[tuple[str, bytes]] | None = None


def message(fields: dict[str, Any], topic: str = "browse-events", **kwargs: Any) -> Message:
    """A record of `fields`, over those of a valid `title_open`."""
    event = {
        "event_id": "e1",
        "profile_id": "p1",
        "event_type": "title_open",
        "occurred_at_ms": NOW_MS,
        "title_id": "t1",
        **fields,
    }
    kwargs.setdefault("key", event["profile_id"].encode())
    return Message(topic, value=orjson.dumps(event), **kwargs)


def erasure(profile_id: str = "p1", **kwargs: Any) -> Message:
    """A request to erase a profile."""
    return Message("profile-erasures", profile_id.encode(), None, **kwargs)


@dataclass
class Edges:
    """States, outbox, inference and store in one; `log` tells in which order they were used."""

    log: list[str] = field(default_factory=list)
    states: dict[bytes, bytes] = field(default_factory=dict)
    kept_at_s: dict[bytes, float] = field(default_factory=dict)
    delivered: list[Outgoing] = field(default_factory=list)
    windows: list[WindowBatch] = field(default_factory=list)
    rows: list[IntentRow] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    emptied: dict[str, Erasure] = field(default_factory=dict)
    failures: dict[str, list[Exception]] = field(default_factory=dict)

    def _use(self, name: str) -> None:
        self.log.append(name)
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    def fetch(self, key: bytes) -> bytes | None:
        return self.states.get(key)

    def keep(self, partition: int, key: bytes, value: bytes, at_s: float) -> None:
        self._use("keep")
        self.states[key] = value
        self.kept_at_s[key] = at_s

    def kept_last_s(self, key: bytes) -> float:
        return self.kept_at_s.get(key, 0.0)

    def idle_since(self, at_s: float) -> list[tuple[int, bytes]]:
        return [(0, key) for key, kept_at_s in self.kept_at_s.items() if kept_at_s < at_s]

    def drop(self, key: bytes) -> None:
        self._use("drop")
        del self.states[key], self.kept_at_s[key]

    async def deliver(self, records: Sequence[Outgoing]) -> None:
        self._use("deliver")
        self.delivered += records

    async def infer(self, batch: WindowBatch) -> Intents:
        self._use("infer")
        self.windows.append(batch)
        return answer(len(batch))

    async def write(self, rows: Sequence[IntentRow]) -> int:
        self._use("write")
        self.rows += rows
        return 0

    async def forget(self, profile_hash: NDArray[np.int64]) -> None:
        self._use("forget")
        self.forgotten += profile_hash.tolist()

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        self._use("erase")
        self.emptied |= erasures

    def topics(self) -> list[str]:
        return [record.topic for record in self.delivered]


def answer(rows: int) -> Intents:
    """An answer of a version that was not trained for movie/show."""

    def head(width: int) -> Any:
        return np.tile(np.linspace(0, 1, width, dtype=np.float32), (rows, 1))

    return Intents(
        probs={
            one.name: head(len(one.labels))
            if one.name != "kind"
            else np.zeros((rows, 2), np.float32)
            for one in HEADS
        },
        intent_attention=head(len(HEADS)),
        intent_embedding=head(8),
        intent_cluster=np.full((rows, 1), -1, np.int32),
        next_title_hash=np.tile(np.arange(1, 21, dtype=np.int64), (rows, 1)),
        next_title_score=head(20),
        title_log_norm=head(1),
        user_embedding=head(8),
        model_version=["7"] * rows,
    )
