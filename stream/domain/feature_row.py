"""The row that is published for a profile: one typed record.

`stream.domain.intent_rows` writes many as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple, Self, get_type_hints

from pydantic import ConfigDict, Field, ValidationError, create_model

from stream.domain.heads import HEADS
from stream.domain.version_labels import BUILT_IN
from stream.exceptions import BadRowError

ProfileId = Annotated[str, Field(min_length=1)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Milliseconds = Annotated[int, Field(ge=0, lt=253_402_300_800_000)]
"""Unix milliseconds, up to the year 9999."""


class Erasure(NamedTuple):
    """The erasure of a profile; times are Unix milliseconds."""

    at_ms: int
    """Broker time of the request."""

    newest_ms: int
    """Event time of the newest that was erased; 0 where nothing is known of it."""

    def to_headers(self) -> list[tuple[str, bytes]]:
        """Headers of the tombstone on `intent-features` that follows the profile's earlier rows."""
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
    """Features of one profile after its newest event. Times are Unix milliseconds.

    Where it is published its heads' answers stand side by side, behind the profile: of each head
    `<name>_probs` and `<name>`.
    """

    profile_id: ProfileId
    probs: Mapping[str, list[float]]
    """By the head's name, in the order of its labels; empty where the model version was not trained
    for the head."""
    labels: Mapping[str, str]
    """By the head's name, the likeliest label; empty where the model version was not trained for
    the head."""
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
    labels_id: str = BUILT_IN.id
    """`VersionLabels.id` of the labels that the probabilities are of."""

    @classmethod
    def of(cls, published: Mapping[str, Any]) -> Self:
        """The row of these values, by the names in `PUBLISHED`."""
        return cls(
            profile_id=published["profile_id"],
            probs={head.name: published[head.probs] for head in HEADS},
            labels={head.name: published[head.name] for head in HEADS},
            **{name: published[name] for name in _OTHERS if name != "labels_id"},
            labels_id=published["labels_id"] or BUILT_IN.id,
        )

    def published(self) -> dict[str, Any]:
        """The values by the names in `PUBLISHED`, in that order."""
        values: dict[str, Any] = {"profile_id": self.profile_id}
        for probs, name in _OF_HEADS:
            values[probs] = self.probs[name]
            values[name] = self.labels[name]
        values.update(zip(_OTHERS, _others_of(self), strict=True))
        return values

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """The row of one `intent-features` record; fields that a newer worker added are ignored.

        Raises:
            BadRowError: when the value is no JSON object, or a field is missing or of another type.
        """
        try:
            return cls.of(_Record.model_validate_json(value, strict=True).__dict__)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the value"
            raise BadRowError(f"{place}: {first['msg']}") from error


_TYPES: Final = get_type_hints(IntentRow, include_extras=True)
_OTHERS: Final = tuple(name for name in _TYPES if name not in ("profile_id", "probs", "labels"))
_OF_HEADS: Final = tuple((head.probs, head.name) for head in HEADS)
_others_of: Final = attrgetter(*_OTHERS)

PUBLISHED: Final = ("profile_id", *chain.from_iterable(_OF_HEADS), *_OTHERS)
"""Names of a published row's fields, in their order."""

_TYPES_OF_HEADS: Final[dict[str, Any]] = {
    name: type_
    for probs, label in _OF_HEADS
    for name, type_ in ((probs, list[float]), (label, str))
}
_BARE_TYPES: Final = get_type_hints(IntentRow) | _TYPES_OF_HEADS
FIELD_TYPES: Final[Mapping[str, Any]] = {name: _BARE_TYPES[name] for name in PUBLISHED}
"""The types of a published row's fields, by name."""

_FIELDS: Final[dict[str, Any]] = {
    name: ((_TYPES | _TYPES_OF_HEADS)[name], ...) for name in PUBLISHED
}
# Rows of a release before lack it; all of theirs have these labels.
_FIELDS["labels_id"] = (str, BUILT_IN.id)
_Record: Final = create_model(
    "_Record",
    __config__=ConfigDict(protected_namespaces=()),
    **_FIELDS,
)
"""A published row, as it is validated."""
