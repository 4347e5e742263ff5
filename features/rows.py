"""The row that is published for a profile: one typed record, one JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class IntentRow:
    """Features of one profile after its newest event.

    Probabilities follow the label order of `stream.taxonomy`; a head that the model version was not
    trained for has an empty list and an empty label. Times are Unix milliseconds.
    """

    profile_id: str
    action_probs: list[float]
    action: str
    genre_probs: list[float]
    genre: str
    kind_probs: list[float]
    kind: str
    release_age_probs: list[float]
    release_age: str
    intent_attention: list[float]
    intent_embedding: list[float]
    next_title_ids: list[str]
    next_title_scores: list[float]
    user_embedding: list[float]
    session_id: str
    session_length: int
    intent_cluster: int
    model_version: str
    sequence_no: int
    last_event_id: str
    last_event_at_ms: int
    published_at_ms: int

    def to_json(self) -> bytes:
        """The value of this row's record on the topic `intent-features`."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, value: bytes) -> IntentRow:
        """The row of one `intent-features` record.

        Raises:
            TypeError: when fields are missing or unknown.
            orjson.JSONDecodeError: when the value is not JSON.
        """
        fields: dict[str, Any] = orjson.loads(value)
        return cls(**fields)
