"""Groups of profiles that are judged apart, as a source's `source.yaml` tells them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from fm_intent.data.event_files import event_days
from stream.exceptions import DataUnusableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fm_intent.data.description import Group


def members(
    data_dir: Path, groups: Mapping[str, Group], profile_id: NDArray[np.str_]
) -> dict[str, NDArray[np.bool_]]:
    """Which of these profiles are in each group.

    Args:
        data_dir: what is built of the source.
        groups: by name.
        profile_id: `[P]`.

    Raises:
        DataUnusableError: when a file of ids can't be read.
    """
    return {name: _members(data_dir, group, profile_id) for name, group in groups.items()}


def _members(data_dir: Path, group: Group, profile_id: NDArray[np.str_]) -> NDArray[np.bool_]:
    if group.profiles_matching is not None:
        pattern = re.compile(group.profiles_matching)
        return np.array([bool(pattern.fullmatch(one)) for one in profile_id.tolist()], np.bool_)
    if group.profiles_from is not None:
        try:
            lines = Path(group.profiles_from).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataUnusableError(
                f"{group.profiles_from} can't be read ({error}); it is to hold the ids of a "
                "group's profiles, one a line"
            ) from error
        return np.isin(profile_id, [line.strip() for line in lines])
    column, value = ("country", group.country) if group.country else ("device", group.device)
    files = [str(path) for day in event_days(data_dir).values() for path in day]
    # A name of ours, never one of theirs, stands in the text of the query.
    newest = f"""
        SELECT profile_id FROM read_parquet($files) WHERE {column} IS NOT NULL
        GROUP BY profile_id HAVING arg_max({column}, (occurred_at_ms, event_id)) = $value
    """
    with duckdb.connect() as connection:
        found = connection.execute(newest, {"files": files, "value": value}).fetchnumpy()
    return np.isin(profile_id, found["profile_id"].astype(np.str_))
