"""Rows of `profile_intent` as Feast's own `online_write_batch` takes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.online.encoding import ENCODERS
from features.schema.views import profile_intent

if TYPE_CHECKING:
    from stream.domain.feature_row import Erasure, IntentRow

FeastRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""Key, values by feature, event time, and when the row was made."""


def to_protos(row: IntentRow) -> FeastRow:
    """A row of features."""
    published = row.published()
    values = {
        feature.name: Value.FromString(ENCODERS[feature.type](published[feature.row_field]))
        for feature in profile_intent.features
    }
    key = _entity_key(row.profile_id)
    return key, values, _datetime(row.last_event_at_ms), _datetime(row.published_at_ms)


def emptied(profile_id: str, erasure: Erasure) -> FeastRow:
    """What takes an erased profile's place: every feature null, at the time of the erasure."""
    nothing = {feature.name: Value() for feature in profile_intent.features}
    at = _datetime(erasure.at_ms)
    return _entity_key(profile_id), nothing, at, at


def _entity_key(profile_id: str) -> EntityKey:
    return EntityKey(
        join_keys=[profile_intent.join_key], entity_values=[Value(string_val=profile_id)]
    )


def _datetime(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
