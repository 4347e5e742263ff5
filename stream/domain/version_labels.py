"""The labels that a model version was trained with: genres, kinds and devices of its service.

A version carries its own, so a number in its answers means what it meant in its training. Whatever
compares two versions compares names, never numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream.domain.heads import Head
from stream.domain.labels import DEVICES, GENRES, KINDS, device_hash
from stream.exceptions import LabelsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABELS_FILE: Final = "labels.json"
OTHER: Final = "other"
"""Label of whatever has none of its own."""


def beside_other(labels: Sequence[str]) -> int:
    """How many labels there are that name something."""
    return len({*labels} - {OTHER})


class VersionLabels(BaseModel):
    """Label sets in the order of their numbers, and the source's names that stand for them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    genres: tuple[str, ...] = GENRES
    kinds: tuple[str, ...] = KINDS
    devices: tuple[str, ...] = DEVICES
    genre_aliases: Mapping[str, str] = Field(default_factory=dict)
    kind_aliases: Mapping[str, str] = Field(default_factory=dict)
    device_aliases: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_labels(self) -> Self:
        for what, labels, aliases in (
            ("genres", self.genres, self.genre_aliases),
            ("kinds", self.kinds, self.kind_aliases),
            ("devices", self.devices, self.device_aliases),
        ):
            if not labels or len(set(labels)) < len(labels) or "" in labels:
                raise ValueError(f"{what} must be different names, at least one")
            if unknown := sorted(set(aliases.values()) - {*labels, OTHER}):
                raise ValueError(f"aliases of {what} stand for labels that aren't there: {unknown}")
        if OTHER not in self.devices:
            raise ValueError(f"devices must have {OTHER!r}, for events that name none")
        return self

    @cached_property
    def id(self) -> str:
        """The same for versions whose genres and kinds have the same numbers: 16 hex digits."""
        return xxhash.xxh3_64_hexdigest(repr((self.genres, self.kinds)).encode())

    def of_head(self, head: Head) -> tuple[str, ...]:
        """The labels of a head, in the order of its probabilities."""
        own: tuple[str, ...] = getattr(self, head.own_labels) if head.own_labels else head.labels
        return own

    def genre_numbers(self, names: Sequence[str]) -> list[int]:
        """A title's genres, ascending; unknown ones count as `OTHER` where that is one."""
        return _numbers(names, self.genres, self.genre_aliases)

    def kind_number(self, name: str | None) -> int | None:
        """The number of a title's kind; None where it has none."""
        return next(iter(_numbers([name] if name else [], self.kinds, self.kind_aliases)), None)

    def unknown_genres(self, names: Sequence[str]) -> list[str]:
        """Those of these genres that the version doesn't know."""
        return [name for name in names if self.genre_aliases.get(name, name) not in self.genres]

    def device_numbers(self, hashes: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Numbers by `device_hash` of the names; unknown devices, and none, are `OTHER`."""
        import numpy as np  # here, because who reads features does without

        known, numbers = self._device_table
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        other = self.devices.index(OTHER)
        found: NDArray[np.int32] = np.where(known[place] == hashes, numbers[place], other)
        return found.astype(np.int32)

    def unknown_devices(self, hashes: NDArray[np.uint32]) -> int:
        """How many of these are devices that the version doesn't know."""
        import numpy as np

        known, _ = self._device_table
        return int((~np.isin(hashes, known) & (hashes != 0)).sum())

    @cached_property
    def _device_table(self) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        import numpy as np

        names = {name: name for name in self.devices} | dict(self.device_aliases)
        hashes = np.array([device_hash(name) for name in names], np.uint32)
        numbers = np.array([self.devices.index(label) for label in names.values()], np.int32)
        order = np.argsort(hashes)
        return hashes[order], numbers[order]

    @classmethod
    def of_json(cls, text: str | bytes, where: str) -> Self:
        """The labels in a version's file.

        Raises:
            LabelsError: when it isn't one.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise LabelsError(
                f"{where} has no labels of a version: {error.errors()[0]['msg']}; "
                "train the version anew"
            ) from error


BUILT_IN: Final = VersionLabels()
"""The labels of the sources that come along, and of versions from before versions had their own."""


def _numbers(
    names: Sequence[str], labels: tuple[str, ...], aliases: Mapping[str, str]
) -> list[int]:
    known = (aliases.get(name, name) for name in names)
    found = {name if name in labels else OTHER for name in known}
    return sorted(labels.index(name) for name in found if name in labels)
