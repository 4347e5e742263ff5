"""Clusters of intents in the plane: where each centre lies, and where any intent embedding does.

The plane is the one in which the centres lie furthest apart: their mean and first two principal
axes. So it needs nothing but the centres, and who has only these draws the same map.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from stream.domain.heads import HEADS
from stream.exceptions import NoClustersError

MAP_FILE: Final = "intent_map.json"
"""In the folder of a model version that has clusters."""

CENTRES_FILE: Final = "centres.pt"
"""There, too: the centres, float32 `[K, D]`, as torch saves a tensor."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Trait(_Part):
    """A label of what came next in a cluster."""

    label: str
    share: float
    """Of the cluster, 0 to 1."""
    share_of_all: float


class Traits(_Part):
    """What came next in a cluster, by one head."""

    likeliest: Trait
    distinctive: Trait
    """The label that is most above its share of all."""


class MappedCluster(_Part):
    """One cluster."""

    at: tuple[float, float]
    """Place of its centre."""
    size: int | None = None
    """Of the windows that it was found in; None where nobody counted."""
    traits: Mapping[str, Traits] = {}
    """By the head's name; empty where it was not described."""

    @property
    def description(self) -> str:
        """In a few words; empty where it was not described."""
        told = [(head, self.traits[head.name]) for head in HEADS if head.name in self.traits]
        return ", ".join(
            # Where several labels apply at a time, the commonest is so everywhere.
            (traits.distinctive if head.several else traits.likeliest).label
            for head, traits in told
        )


class IntentMap(_Part):
    """The map of one model version."""

    mean: tuple[float, ...]
    """`[D]` of the centres."""
    axes: tuple[tuple[float, ...], tuple[float, ...]]
    """`[2, D]`, orthonormal; 0 where there are too few centres for it."""
    clusters: tuple[MappedCluster, ...]
    """In the order of their numbers."""

    @classmethod
    def of(
        cls,
        centres: NDArray[np.float32],
        sizes: Sequence[int] = (),
        traits: Sequence[Mapping[str, Traits]] = (),
    ) -> Self:
        """The map of these centres, `[K, D]`; the same ones give the same map.

        Args:
            centres: at least one.
            sizes: of the clusters, where they are known.
            traits: of the clusters, where they were described.
        """
        mean = centres.mean(0, dtype=np.float64)
        axes = np.zeros((2, centres.shape[1]))
        _, spread, directions = np.linalg.svd(centres - mean, full_matrices=False)
        for number in range(min(2, int((spread > 1e-6 * max(spread[0], 1e-9)).sum()))):
            direction = directions[number]
            # A direction and its opposite are the same axis; the largest part of it is positive.
            axes[number] = direction * np.sign(direction[np.abs(direction).argmax()])
        places = (centres - mean) @ axes.T
        return cls(
            mean=tuple(mean.tolist()),
            axes=(tuple(axes[0].tolist()), tuple(axes[1].tolist())),
            clusters=tuple(
                MappedCluster(
                    at=(x, y),
                    size=sizes[number] if sizes else None,
                    traits=traits[number] if traits else {},
                )
                for number, (x, y) in enumerate(places.tolist())
            ),
        )

    def places(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Where intent embeddings `[N, D]` lie, `[N, 2]`."""
        found: NDArray[np.float64] = (embeddings - np.array(self.mean)) @ np.array(self.axes).T
        return found


def read_map(folder: Path) -> IntentMap:
    """The map of the model version in a folder.

    That of a version from before versions had one is made of its centres, and describes nothing.

    Raises:
        NoClustersError: when the version has no clusters, or what it has can't be read.
    """
    try:
        path = folder / MAP_FILE
        if path.exists():
            return IntentMap.model_validate_json(path.read_bytes())
        return IntentMap.of(_read_centres(folder / CENTRES_FILE))
    except (OSError, ValueError, LookupError, ValidationError, zipfile.BadZipFile) as error:
        raise NoClustersError(
            f"{folder} has no clusters of intents that can be read ({error}); train a hierarchical "
            "version, or have INTENT_TRITON_MODELS name the repository that Triton reads"
        ) from error


def _read_centres(path: Path) -> NDArray[np.float32]:
    """Centres `[K, D]`, without torch.

    Its file is an archive with the values as they lie in memory, and a pickle that tells how. Of
    that, which isn't executed, the integers are read: how many values there are, where the first
    is, the shape, the strides (`torch._utils._rebuild_tensor_v2`).
    """
    with zipfile.ZipFile(path) as archive:
        (described,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        (values,) = (name for name in archive.namelist() if name.endswith("/data/0"))
        told = pickletools.genops(archive.read(described))
        numbers: list[Any] = [arg for code, arg, _ in told if code.name.startswith("BININT")]
        _, _, count, width = numbers[:4]
        return np.frombuffer(archive.read(values), "<f4").reshape(count, width)
