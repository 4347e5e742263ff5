"""What a feature, a view and its batch source are, for those who do without Feast."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FieldType(Enum):
    """Types of features; the values are what they are in Python when they are read."""

    STRING = "str"
    INT64 = "int"
    FLOAT32 = "float"
    UNIX_TIMESTAMP = "int, whole Unix seconds"
    STRINGS = "list[str]"
    INT64S = "list[int]"
    FLOAT32S = "list[float]"


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of a view, and what its readers are told of it."""

    name: str
    type: FieldType
    description: str
    shape: str
    values: str
    """The range, in words."""
    freshness: str = "after every event of the profile"

    @property
    def row_field(self) -> str:
        """The name in a published row that holds it; a row's times are in milliseconds."""
        return f"{self.name}_ms" if self.type is FieldType.UNIX_TIMESTAMP else self.name


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of Parquet files that a view's history is in."""

    name: str
    description: str
    timestamp_field: str = "event_timestamp"
    created_timestamp_column: str = "created_timestamp"

    @property
    def path(self) -> str:
        """Within the folder of the offline store."""
        return f"data/{self.name}"


@dataclass(frozen=True, slots=True)
class View:
    """The features of one entity, which has one join key, a string."""

    name: str
    entity: str
    join_key: str
    description: str
    features: tuple[Feature, ...]
    source: Source
    days: int = 0
    """For how many days after its event history knows a row; 0: always."""
