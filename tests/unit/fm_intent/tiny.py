"""A made-up source of a few profiles, and tiny networks over it."""

from __future__ import annotations

import numpy as np
import torch

from fm_intent.data.catalogue import SourceCatalogue
from fm_intent.data.dataset import Sequences
from fm_intent.data.histories import HistoryColumns
from fm_intent.served.network import UNKNOWN_DAY, Architecture, FMIntent, Interactions
from stream.domain.labels import ACTIONS, DEVICES, GENRES, NO_TITLE, device_hash, hash64

TITLES = 40
HOUR_MS = 3_600_000
START_MS = 20_000 * 24 * HOUR_MS


def catalogue(*, kinds: bool = True) -> SourceCatalogue:
    """Forty titles; the last ten are never played."""
    rng = np.random.default_rng(1)
    ids = [f"title-{number}" for number in range(TITLES)]
    genres = np.zeros((TITLES, len(GENRES)), np.float32)
    genres[np.arange(TITLES), rng.integers(len(GENRES), size=TITLES)] = 1
    genres[np.arange(TITLES), rng.integers(len(GENRES), size=TITLES)] = 1
    release = rng.integers(10_000, 20_000, TITLES)
    release[0] = UNKNOWN_DAY
    return SourceCatalogue(
        title_id=ids,
        name=ids,
        title_hash=np.array([hash64(one) for one in ids]),
        genres=genres,
        kind=1 + (np.arange(TITLES) % 2 if kinds else np.zeros(TITLES, np.int64)),
        release_day=release,
        duration_ms={},
    )


def columns(profiles: int = 30, longest: int = 100, *, browsing: bool = True) -> HistoryColumns:
    """Histories in which each profile goes round its own few titles."""
    rng = np.random.default_rng(2)
    lengths = rng.integers(5, longest, profiles)
    count = int(lengths.sum())
    profile = np.repeat(np.arange(profiles), lengths)
    hashes = catalogue().title_hash[(profile * 3 + rng.integers(4, size=count)) % 30]
    gaps = rng.integers(0, 30 * HOUR_MS, count)
    start = START_MS + np.concatenate(
        [part.cumsum() for part in np.split(gaps, lengths.cumsum()[:-1])]
    )
    action = rng.integers(len(ACTIONS) if browsing else 1, size=count)
    hashes = np.where(action == ACTIONS.index("search"), NO_TITLE, hashes)
    share = np.where(action < 3, rng.random(count), -1)
    return HistoryColumns(
        offset=np.concatenate([[0], lengths.cumsum()]),
        title_hash=hashes,
        action=action.astype(np.int8),
        start_ms=start,
        watched_share=share.astype(np.float32),
        device=np.array([0, *map(device_hash, DEVICES[1:])], np.uint32)[
            rng.integers(len(DEVICES), size=count)
        ],
        watched_ms=np.where(action < 3, rng.integers(0, HOUR_MS, count), 0),
        profile_id=np.array([f"profile-{number}" for number in range(profiles)]),
    )


def sequences(*, browsing: bool = True, kinds: bool = True) -> Sequences:
    return Sequences(columns(browsing=browsing), catalogue(kinds=kinds))


def network(data: Sequences, architecture: Architecture | None = None) -> FMIntent:
    """A network with random weights, biases included, in evaluation mode."""
    torch.manual_seed(3)
    model = FMIntent(architecture or Architecture(width=16, hidden=24), data.domain, data.table)
    for parameter in model.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def windows(data: Sequences, length: int = 64) -> Interactions:
    return data.windows(data.contexts("test", length, "served"))
