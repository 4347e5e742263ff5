"""The hidden intents, in a file of their own: for judging a model, never for making one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lab.exceptions import TruthError
from lab.simulator.parts import PARTS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TRUTH_FILE: Final = "truth.parquet"

TRUTH_SCHEMA: Final = pa.schema(
    [
        pa.field("profile_id", pa.string(), nullable=False),
        pa.field("from_ms", pa.int64(), nullable=False),
        pa.field("to_ms", pa.int64(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in PARTS),
    ]
)
"""One row per spell: the intent in force from `from_ms` (inclusive) to `to_ms` (exclusive)."""


def intents_in_force(
    directory: Path, profile_id: pa.Array, start_ms: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """The hidden intent that was in force at each of N interactions of simulated members.

    Args:
        directory: A folder that `simulate` has written.
        profile_id: N ids, strings or dictionary-encoded.
        start_ms: [N] int64, Unix ms.

    Returns:
        Each of `PARTS`: [N] int64, indices of its labels; and `spell`: [N] int64, the row in the
        file, the same for interactions under one intent.

    Raises:
        TruthError: when the file is missing, or an interaction lies in no spell.
    """
    path = directory / TRUTH_FILE
    if not path.exists():
        raise TruthError(f"{path} is missing: only simulated sources have one; prepare one first")
    spells = pq.read_table(path)
    known = pc.unique(spells["profile_id"])
    of_spell = pc.index_in(spells["profile_id"], value_set=known).to_numpy()
    member = pc.index_in(profile_id.cast(pa.string()), value_set=known)
    place = np.rec.fromarrays([of_spell, spells["from_ms"].to_numpy()])
    wanted = np.rec.fromarrays([pc.fill_null(member, -1).to_numpy(), start_ms])
    spell = np.searchsorted(place, wanted, side="right") - 1
    ends = spells["to_ms"].to_numpy()
    if (spell < 0).any() or (of_spell[spell] != wanted.f0).any() or (start_ms >= ends[spell]).any():
        raise TruthError(
            f"{path} does not cover these interactions: it belongs to another simulation; "
            "prepare the source again"
        )
    return {"spell": spell.astype(np.int64)} | {
        name: pc.index_in(spells[name], value_set=pa.array(labels))
        .to_numpy()[spell]
        .astype(np.int64)
        for name, labels in PARTS.items()
    }
