"""The worker's catalogue is the one that the live version carries, from a model repository."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from fm_intent.data.contract import CATALOGUE_SCHEMA
from fm_intent.export import Carried, export
from stream.domain.version_labels import BUILT_IN
from stream.inference.release import Release, write_release
from stream.kafka.admin import create_topics
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest
from tests.workers import online, send, title_open, until, worker

if TYPE_CHECKING:
    from pathlib import Path

    from infra.local.stack import Stack
    from stream.settings import Settings


def carrying(repository: Path, titles: slice) -> str:
    """A version of the small network that carries some of its titles."""
    data = tiny.sequences()
    ids = tiny.catalogue().title_id[titles]
    rows = [{"title_id": title, "name": title, "genres": []} for title in ids]
    carried = Carried(pa.Table.from_pylist(rows, CATALOGUE_SCHEMA), BUILT_IN)
    windows = tiny.windows(data)
    return str(export(tiny.network(data), manifest(), windows, repository, carried=carried).version)


@pytest.mark.usefixtures("kafka", "redis", "triton")
def test_next_titles_have_the_names_of_the_live_version_s_catalogue_whichever_goes_live(
    isolated: Settings, stack: Stack, model_repository: Path, tmp_path: Path
) -> None:
    first = carrying(model_repository, slice(0, 20))
    second = carrying(model_repository, slice(20, tiny.TITLES))
    stack.load_model(first, second)
    asyncio.run(create_topics(isolated))
    asyncio.run(write_release(isolated, Release(live=first)))

    def named() -> set[str]:
        """The ids among the next titles of the version that is live, which are all that it has."""
        event = title_open("reader")
        send(isolated, [event])
        until(lambda: online(isolated, "reader") == event["event_id"], "the event in the features")
        told = online(isolated, "reader", "next_title_ids")
        return {title for title in told if not title.startswith("xxh3:")}

    with worker(isolated, tmp_path / "worker.log", wait=True):
        carried_first = named()
        asyncio.run(write_release(isolated, Release(live=second, previous=first)))
        until(
            lambda: bool(named()) and online(isolated, "reader", "model_version") == second,
            "the second version",
        )
        carried_both = named()
    ids = tiny.catalogue().title_id
    assert carried_first
    assert carried_first <= set(ids[:20])
    assert carried_both - set(ids[:20])
    assert len(carried_both) == 20
