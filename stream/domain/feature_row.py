"""The row that is published for a profile: one typed record, one JSON form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from stream.exceptions import BadRowError

ProfileId = Annotated[str, Field(min_length=1)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Milliseconds = Annotated[int, Field(ge=0, lt=253_402_300_800_000)]
"""Unix milliseconds, up to the year 9999."""


class Erasure(NamedTuple):
    """That a profile was erased, in Unix milliseconds."""

    at_ms: int
    """Broker time of the request."""

    newest_ms: int
    """Event time of the newest that was erased; 0 where nothing is known of it."""

    def to_headers(self) -> list[tuple[str, bytes]]:
        """Of the tombstone on `intent-features` behind the profile's rows from before."""
        return [(name, b"%d" % time) for name, time in zip(_HEADERS, self, strict=True)]

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes]]) -> Erasure | None:
        """The erasure that a tombstone tells of; None where it is another's tombstone."""
        told = dict(headers)
        try:
            return cls(*(int(told[name]) for name in _HEADERS))
        except (LookupError, ValueError):
            return None

    def covers(self, event_at_ms: int, published_at_ms: int) -> bool:
        """Whether a row of the profile is one of before the erasure.

        What was under way when it was asked for is published after it, with an older event.
        """
        return event_at_ms <= max(self) or published_at_ms <= self.at_ms


_HEADERS: Final = ("intent.erased_at_ms", "intent.newest_erased_ms")


@dataclass(frozen=True, slots=True)
class IntentRow:
    """Features of one profile after its newest event.

    Probabilities follow the label order of `stream.domain.labels`; a head that the model version
    was not trained for has an empty list and an empty label. Times are Unix milliseconds.
    """

    profile_id: ProfileId
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
    title_log_norm: float
    user_embedding: list[float]
    session_id: str
    session_length: Int64
    intent_cluster: Int64
    model_version: str
    sequence_no: Int64
    last_event_id: str
    last_event_at_ms: Milliseconds
    published_at_ms: Milliseconds

    def to_json(self) -> bytes:
        """The value of this row's record on the topic `intent-features`."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, value: bytes) -> IntentRow:
        """The row of one `intent-features` record; fields that a newer worker added are ignored.

        Raises:
            BadRowError: when the value is no JSON object, or a field is missing or of another type.
        """
        try:
            return _ADAPTER.validate_json(value, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the value"
            raise BadRowError(f"{place}: {first['msg']}") from error


_ADAPTER: Final = TypeAdapter(IntentRow)
