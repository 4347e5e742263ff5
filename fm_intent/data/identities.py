"""What events name, as the hashes that serving keeps of it: a whole column at a time.

Engines call this from their queries, Spark in processes of its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from stream.domain.interactions import sitting_keys
from stream.domain.labels import NO_TITLE, device_hash

IDENTITIES: Final = dict.fromkeys(("described_by", "key", "title", "device"), pa.int64())
"""Fields of what `identities` answers."""


def hashes(texts: pa.Array) -> NDArray[np.int64]:
    """`hash64` of each text, 0 of null."""
    # Calling `hash64` for each takes nearly twice as long, and a build hashes every event.
    known = texts.cast(pa.binary()).fill_null(b"").to_pylist()
    unsigned = np.fromiter(map(xxhash.xxh3_64_intdigest, known), np.uint64, len(texts))
    found = unsigned.view(np.int64)
    found[found == NO_TITLE] = 1
    found[texts.is_null().to_numpy(zero_copy_only=False)] = 0
    return found


def identities(
    event_id: pa.Array,
    playback_id: pa.Array,
    title_id: pa.Array,
    device: pa.Array,
    season: pa.Array,
    episode: pa.Array,
) -> pa.StructArray:
    """What tells events apart and what they name, as hashes: `IDENTITIES` of `[N]` events.

    Where there is no playback_id, an event is an interaction of its own.
    """
    titles = title_id.dictionary_encode()
    title = _looked_up(hashes(titles.dictionary), titles.indices, NO_TITLE)
    devices = device.dictionary_encode()
    named = (device_hash(one) if one else 0 for one in devices.dictionary.to_pylist())
    of_device = np.fromiter(named, np.int64, len(devices.dictionary))
    event = hashes(event_id)
    playbacks = playback_id.dictionary_encode()
    playback = _looked_up(hashes(playbacks.dictionary), playbacks.indices, 0)
    sitting = sitting_keys(playback, title, season.to_numpy(), episode.to_numpy())
    key = np.where(playback_id.is_valid().to_numpy(zero_copy_only=False), sitting, event)
    columns = (event, key, title, _looked_up(of_device, devices.indices, 0))
    return pa.StructArray.from_arrays(list(map(pa.array, columns)), names=list(IDENTITIES))


def _looked_up(values: NDArray[np.int64], indices: pa.Array, nothing: int) -> NDArray[np.int64]:
    place = pc.fill_null(indices, len(values)).to_numpy()
    found: NDArray[np.int64] = np.append(values, nothing)[place]
    return found
