"""The intent heads. Whatever knows of heads is derived from this one table.

A head is a question about the next interaction; its answer is a distribution over the head's
labels. `docs/extending.md` tells how to add one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from stream.domain.labels import ACTIONS, GENRES, KINDS, RELEASE_AGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Happened(Protocol):
    """What a head may ask of interactions; every column is `[N]`."""

    @property
    def action(self) -> NDArray[np.int8]:
        """Indices into `ACTIONS`."""

    @property
    def start_ms(self) -> NDArray[np.int64]:
        """Unix milliseconds."""

    @property
    def device(self) -> NDArray[np.uint32]:
        """`device_hash` of each one's device, 0 where there is none."""


class Entries(Protocol):
    """What a head may ask of the catalogue's entries; every column has one row per title."""

    @property
    def genres(self) -> NDArray[np.float32]:
        """`[T, G]`, 1 where the title has the genre, of those of the version."""

    @property
    def kind(self) -> NDArray[np.int64]:
        """`[T]`, 1 + number of the kind; 0 where unknown."""

    @property
    def kinds(self) -> int:
        """How many kinds there are."""

    @property
    def release_day(self) -> NDArray[np.int64]:
        """`[T]`, days since 1970-01-01; far below any date where unknown."""


@dataclass(frozen=True, slots=True)
class OfInteraction:
    """An interaction itself has the label; its title says nothing of it."""

    code: Callable[[Happened], NDArray[np.integer[Any]]]
    """Gives `[N]` indices of labels, -1 where unknown."""


@dataclass(frozen=True, slots=True)
class OfTitle:
    """The label stands in the title's entry of the catalogue."""

    shares: Callable[[Entries], NDArray[np.float32]]
    """Gives `[T, C]`, each label's share of the title; all 0 where the entry says nothing."""

    several: bool = False
    """Whether a title may have several labels at a time."""


@dataclass(frozen=True, slots=True)
class OfAge:
    """The label is how old the title is at the interaction, in the buckets `RELEASE_AGES`."""


@dataclass(frozen=True, slots=True)
class Head:
    """One intent head."""

    name: str
    """Of the label's feature; the probabilities are `<name>_probs`."""

    labels: tuple[str, ...]
    """In the order of the probabilities, of versions without labels of their own. They only ever
    grow at the end."""

    label: OfInteraction | OfTitle | OfAge
    """Where the label comes from, and so what the next titles' distribution says of it."""

    probability_of: str
    """What the probabilities are of, for readers of the features."""

    likeliest: str
    """What the likeliest label is, for readers of the features."""

    own_labels: Literal["genres", "kinds", ""] = ""
    """The field of `VersionLabels` with those that a version brings; empty: all have `labels`."""

    @property
    def probs(self) -> str:
        """Name of the probabilities, as a tensor and as a feature."""
        return f"{self.name}_probs"

    @property
    def several(self) -> bool:
        """Whether several labels may apply at a time."""
        return isinstance(self.label, OfTitle) and self.label.several


def _genre_shares(entries: Entries) -> NDArray[np.float32]:
    import numpy as np  # here, because who reads features does without

    shares: NDArray[np.float32] = entries.genres / np.maximum(
        entries.genres.sum(1, keepdims=True), 1
    )
    return shares


def _kind_shares(entries: Entries) -> NDArray[np.float32]:
    import numpy as np

    return np.eye(1 + entries.kinds, dtype=np.float32)[entries.kind, 1:]


HEADS: Final = (
    Head(
        name="action",
        labels=ACTIONS,
        label=OfInteraction(lambda happened: happened.action),
        probability_of="the next interaction's action",
        likeliest="action of the next interaction",
    ),
    Head(
        name="genre",
        labels=GENRES,
        label=OfTitle(_genre_shares, several=True),
        probability_of="the next interaction's genres",
        likeliest="genre of the next interaction",
        own_labels="genres",
    ),
    Head(
        name="kind",
        labels=KINDS,
        label=OfTitle(_kind_shares),
        probability_of="a movie or a show next",
        likeliest="kind of the next title",
        own_labels="kinds",
    ),
    Head(
        name="release_age",
        labels=RELEASE_AGES,
        label=OfAge(),
        probability_of="the next title's age since its release",
        likeliest="age since release of the next title",
    ),
)
"""In the order of tensors, features and the attention vector; it only ever grows at the end."""

INTENTS: Final = tuple(head.name for head in HEADS)
"""The heads' names, in the order of the attention vector."""

LABELS: Final = {head.name: head.labels for head in HEADS}
"""The labels of each head, by its name."""
