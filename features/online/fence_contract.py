"""The tests that every `FencedOnlineStore` must pass, to be run by pytest on an implementation.

    from features.online.fence_contract import OnlineStoreContract

    class TestMyOnlineStore(OnlineStoreContract):
        @pytest.fixture
        def settings(self, tmp_path): ...     # of an empty store that is there

        @pytest.fixture
        def unreachable(self, tmp_path): ...  # of a store of the same kind that isn't

A store is written as the worker writes it, by `IntentWriter`, and by Feast's own API; it is read as
rankers read it. Every test needs a store in which nothing is written yet.
"""
# ruff: noqa: D102 - a test's name says what it is for

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import StringList, Value
from google.protobuf.timestamp_pb2 import Timestamp

from features.definitions import profile_intent, title, title_profile
from features.online.feast_rows import to_protos
from features.online.writer import IntentWriter
from features.reading.intents import Freshness, LiveIntent
from features.reading.reader import IntentReader
from features.registry.store import apply, open_store
from stream.domain.feature_row import Erasure, IntentRow
from stream.domain.heads import HEADS
from stream.exceptions import StoreUnavailableError

if TYPE_CHECKING:
    from stream.settings import Settings

_T = TypeVar("_T")

AT_MS: Final = 1_700_000_000_000
"""The time of the row that others are held against: a whole second, as some stores keep no less."""

_MANY: Final = 600
_RACES: Final = 10
_RACERS: Final = 4
_STEPS: Final = 40

_UNTRAINED: Final = HEADS[-1]
_LABEL: Final = HEADS[0].name
_OTHER_LABELS: Final = {head.name: head.labels[-1] for head in HEADS}

ROW: Final = IntentRow(
    profile_id="p-1",
    probs={head.name: [] if head is _UNTRAINED else [1 / 32] * len(head.labels) for head in HEADS},
    labels={head.name: "" if head is _UNTRAINED else head.labels[0] for head in HEADS},
    intent_attention=[0.25] * len(HEADS),
    intent_embedding=[0.5, -0.25, 0.125],
    next_title_ids=["tt1", "tt2", "ein Zähler"],
    next_title_scores=[0.5, 0.25, 0.125],
    title_log_norm=7.5,
    user_embedding=[3.5, -2.0, 0.0],
    session_id="s-1",
    session_length=3,
    intent_cluster=-1,
    model_version="4",
    sequence_no=17,
    last_event_id="e-1",
    last_event_at_ms=AT_MS,
    published_at_ms=AT_MS,
)


class OnlineStoreContract:
    """What `features.online.fence.FencedOnlineStore` promises; subclass it with two fixtures."""

    # Order

    def test_a_store_without_a_fence_can_not_pass(self, settings: Settings) -> None:
        async def is_fenced(writer: IntentWriter) -> bool:
            return writer.is_fenced

        assert _with_writer(settings, is_fenced)

    def test_a_row_of_an_older_event_is_refused(self, settings: Settings) -> None:
        assert _second(settings, last_event_at_ms=AT_MS - 1000, sequence_no=99) == (1, "first")

    def test_a_row_of_a_newer_event_replaces_the_stored_one(self, settings: Settings) -> None:
        assert _second(settings, last_event_at_ms=AT_MS + 1000, sequence_no=1) == (0, "second")

    def test_times_are_compared_to_the_millisecond(self, settings: Settings) -> None:
        assert _second(settings, last_event_at_ms=AT_MS + 1, sequence_no=1) == (0, "second")
        third = replace(ROW, sequence_no=99, model_version="third")
        assert _write(settings, [third]) == 1
        assert _read(settings).model_version == "second"

    def test_at_one_time_a_lower_sequence_is_refused(self, settings: Settings) -> None:
        assert _second(settings, sequence_no=ROW.sequence_no - 1) == (1, "first")

    def test_at_one_time_a_higher_sequence_replaces_the_stored_row(
        self, settings: Settings
    ) -> None:
        assert _second(settings, sequence_no=ROW.sequence_no + 1) == (0, "second")

    def test_an_equal_row_replaces_the_stored_one(self, settings: Settings) -> None:
        assert _second(settings) == (0, "second")

    def test_a_refused_row_changes_nothing(self, settings: Settings) -> None:
        _write(settings, [ROW])
        before = _answer(settings, ROW.profile_id)
        older = replace(ROW, last_event_at_ms=AT_MS - 1000, labels=_OTHER_LABELS, next_title_ids=[])
        assert _write(settings, [older]) == 1
        assert _answer(settings, ROW.profile_id) == before

    def test_of_many_rows_each_is_refused_or_taken_on_its_own(self, settings: Settings) -> None:
        first = [replace(ROW, profile_id=f"p-{number}") for number in range(_MANY)]
        second = [
            replace(
                row, last_event_at_ms=AT_MS + (1000 if number % 2 else -1000), labels=_OTHER_LABELS
            )
            for number, row in enumerate(first)
        ]
        assert _write(settings, first) == 0
        assert _write(settings, second) == _MANY // 2
        read = IntentReader(settings).read([row.profile_id for row in first])
        labels = [intent.row and intent.row.labels for intent in read]
        assert labels == [_OTHER_LABELS if number % 2 else ROW.labels for number in range(_MANY)]

    def test_of_several_rows_of_one_profile_the_newest_stays(self, settings: Settings) -> None:
        rows = [
            replace(ROW, profile_id=profile_id, last_event_at_ms=AT_MS + 1000 * seconds)
            for profile_id, times in (("up", (0, 1, 2)), ("down", (2, 1, 0)))
            for seconds in times
        ]
        _write(settings, rows)
        read = IntentReader(settings).read(["up", "down"])
        assert [one.row and one.row.last_event_at_ms for one in read] == [AT_MS + 2000] * 2

    def test_no_rows_are_none_refused(self, settings: Settings) -> None:
        assert _write(settings, []) == 0

    # Erasure

    def test_an_erased_profile_is_absent(self, settings: Settings) -> None:
        _write(settings, [ROW, replace(ROW, profile_id="neighbour")])
        _erase(settings, AT_MS + 1000)
        assert _read(settings).freshness is Freshness.ABSENT
        assert _read(settings, "neighbour").row is not None

    def test_what_was_under_way_when_a_profile_was_erased_is_refused(
        self, settings: Settings
    ) -> None:
        _write(settings, [ROW])
        _erase(settings, AT_MS + 1000)
        assert _write(settings, [ROW]) == 1
        assert _read(settings).freshness is Freshness.ABSENT

    def test_an_erasure_of_what_is_not_stored_refuses_what_was_under_way(
        self, settings: Settings
    ) -> None:
        _erase(settings, AT_MS + 1000)
        assert _write(settings, [ROW]) == 1
        assert _read(settings).freshness is Freshness.ABSENT

    def test_an_erased_profile_has_features_again_after_its_next_event(
        self, settings: Settings
    ) -> None:
        _write(settings, [ROW])
        _erase(settings, AT_MS + 1000)
        again = replace(ROW, last_event_at_ms=AT_MS + 2000, sequence_no=1, labels=_OTHER_LABELS)
        assert _write(settings, [again]) == 0
        row = _read(settings).row
        assert row is not None
        assert (row.labels, row.sequence_no) == (_OTHER_LABELS, 1)
        assert _write(settings, [ROW]) == 1

    def test_an_event_at_the_time_of_the_erasure_gets_in(self, settings: Settings) -> None:
        _write(settings, [ROW])
        _erase(settings, AT_MS)
        assert _write(settings, [replace(ROW, sequence_no=1)]) == 0
        assert _read(settings).row is not None

    def test_an_erasure_takes_what_a_clock_ahead_has_dated_behind_it(
        self, settings: Settings
    ) -> None:
        ahead_ms = settings.max_ahead_s * 1000
        _write(settings, [replace(ROW, last_event_at_ms=AT_MS + ahead_ms)])
        _erase(settings, AT_MS)
        assert _read(settings).freshness is Freshness.ABSENT

    def test_an_erasure_takes_the_newest_event_that_it_covers(self, settings: Settings) -> None:
        later_ms = AT_MS + settings.max_ahead_s * 1000 + 3_600_000
        _write(settings, [replace(ROW, last_event_at_ms=later_ms)])
        _erase(settings, AT_MS)
        assert _read(settings).row is not None
        _erase(settings, AT_MS, later_ms)
        assert _read(settings).freshness is Freshness.ABSENT

    def test_an_erasure_twice_is_one(self, settings: Settings) -> None:
        _erase(settings, AT_MS)
        _erase(settings, AT_MS)
        assert _read(settings).freshness is Freshness.ABSENT
        assert _write(settings, [ROW]) == 0

    # One step for each row

    def test_of_racing_writers_the_newest_row_stays(self, settings: Settings) -> None:
        races = [_steps(f"race-{race}", seed=race) for race in range(_RACES)]
        _race(settings, races)
        read = IntentReader(settings).read([race[0].profile_id for race in races])
        assert [one.row and one.row.sequence_no for one in read] == [_STEPS] * _RACES

    def test_no_reader_sees_a_row_go_back_or_half_written(self, settings: Settings) -> None:
        apply(settings)
        seen: list[int] = []
        ended = threading.Event()

        def look() -> None:
            reader = IntentReader(settings)
            while not ended.is_set():
                with suppress(StoreUnavailableError):
                    row = reader.read(["watched"])[0].row
                    if row is not None:
                        assert row.last_event_id == f"e-{row.sequence_no}"
                        seen.append(row.sequence_no)

        with ThreadPoolExecutor(1) as looking:
            looked = looking.submit(look)
            try:
                _race(settings, [_steps("watched", race, race * _STEPS) for race in range(_RACES)])
            finally:
                ended.set()
            looked.result()
        assert seen == sorted(seen)

    def test_a_profile_that_is_erased_amid_writes_stays_erased(self, settings: Settings) -> None:
        races = [_steps(f"erased-{race}", seed=race) for race in range(_RACES)]
        _race(settings, races, Erasure(AT_MS + 1000 * _STEPS, 0))
        read = IntentReader(settings).read([race[0].profile_id for race in races])
        assert {one.freshness for one in read} == {Freshness.ABSENT}

    # Every way in

    def test_feast_s_own_write_is_refused_where_it_is_older(self, settings: Settings) -> None:
        _write(settings, [ROW])
        _write_by_feast(
            settings, replace(ROW, sequence_no=ROW.sequence_no - 1, labels=_OTHER_LABELS)
        )
        _write_by_feast(settings, replace(ROW, last_event_at_ms=AT_MS - 1000, labels=_OTHER_LABELS))
        assert _answer(settings, ROW.profile_id)[_LABEL] == _text(ROW.labels[_LABEL])
        _write_by_feast(settings, replace(ROW, labels=_OTHER_LABELS))
        assert _answer(settings, ROW.profile_id)[_LABEL] == _text(_OTHER_LABELS[_LABEL])

    def test_a_row_of_feast_s_own_write_refuses_older_ones(self, settings: Settings) -> None:
        apply(settings)
        _write_by_feast(settings, ROW)
        assert _write(settings, [replace(ROW, sequence_no=ROW.sequence_no - 1)]) == 1
        assert _write(settings, [ROW]) == 0

    def test_feast_s_own_write_does_not_bring_back_what_was_erased(
        self, settings: Settings
    ) -> None:
        _erase(settings, AT_MS + 1000)
        _write_by_feast(settings, ROW)
        assert _read(settings).freshness is Freshness.ABSENT

    def test_rows_without_a_sequence_go_by_their_time(self, settings: Settings) -> None:
        store = apply(settings)
        key = EntityKey(join_keys=[title.join_key], entity_values=[Value(string_val="tt1")])
        now = datetime.fromtimestamp(AT_MS / 1000, UTC)
        kinds = []
        for kind, at in (
            ("first", now),
            ("older", now - timedelta(hours=1)),
            ("equal", now),
            ("newer", now + timedelta(hours=1)),
        ):
            values = {
                "title_kind": Value(string_val=kind),
                "title_genres": Value(string_list_val=StringList(val=[kind])),
            }
            store.provider.online_write_batch(
                store.config, title_profile, [(key, values, at, None)], None
            )
            read = store.get_online_features(
                [f"{title_profile.name}:title_kind"], {title.join_key: ["tt1"]}
            )
            kinds += read.to_dict()["title_kind"]
        assert kinds == ["first", "first", "equal", "newer"]

    # What is read

    def test_feast_reads_to_the_byte_what_its_own_write_would_have_put_there(
        self, settings: Settings
    ) -> None:
        _write(settings, [replace(ROW, profile_id="ours")])
        _write_by_feast(settings, replace(ROW, profile_id="feast's"))
        assert _answer(settings, "ours") == _answer(settings, "feast's")

    def test_a_row_is_read_back_as_it_was_written(self, settings: Settings) -> None:
        _write(settings, [ROW])
        assert _read(settings).row == ROW

    # Errors and life

    def test_a_store_that_is_not_there_is_told_as_one_to_be_tried_again(
        self, unreachable: Settings
    ) -> None:
        try:
            _write(unreachable, [ROW])
        except StoreUnavailableError:
            return
        raise AssertionError("no StoreUnavailableError")

    def test_a_writer_that_was_closed_goes_on_when_it_is_started_again(
        self, settings: Settings
    ) -> None:
        async def use(writer: IntentWriter) -> int | None:
            await writer.write([ROW])
            await writer.close()
            await writer.start()
            return await writer.write([replace(ROW, sequence_no=1)])

        assert _with_writer(settings, use) == 1


def _with_writer(settings: Settings, use: Callable[[IntentWriter], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with AsyncExitStack() as stack:
            writer = IntentWriter(settings)
            await writer.start()
            stack.push_async_callback(writer.close)
            return await use(writer)

    return asyncio.run(run())


def _write(settings: Settings, rows: Sequence[IntentRow]) -> int | None:
    return _with_writer(settings, lambda writer: writer.write(rows))


def _second(settings: Settings, **changes: int) -> tuple[int | None, str | None]:
    """How many rows are refused of one that differs from the stored one, and whose stays."""
    _write(settings, [replace(ROW, model_version="first")])
    changed: Any = changes
    refused = _write(settings, [replace(ROW, model_version="second", **changed)])
    return refused, _read(settings).model_version


def _erase(settings: Settings, at_ms: int, newest_ms: int = 0) -> None:
    erasures = {ROW.profile_id: Erasure(at_ms, newest_ms)}
    _with_writer(settings, lambda writer: writer.erase(erasures))


def _steps(profile_id: str, seed: int, after: int = 0) -> list[IntentRow]:
    """`_STEPS` rows of a profile, in no order: their sequence goes on, and often their time."""
    rows = [
        replace(
            ROW,
            profile_id=profile_id,
            last_event_at_ms=AT_MS + 1000 * (number // 4),
            sequence_no=number,
            last_event_id=f"e-{number}",
        )
        for number in range(after + 1, after + _STEPS + 1)
    ]
    random.Random(seed).shuffle(rows)  # noqa: S311 - reproducible, and no secret
    return rows


def _race(
    settings: Settings, races: Sequence[Sequence[IntentRow]], erasure: Erasure | None = None
) -> None:
    """Have writers, each in a thread of its own, write the rows of one race after the other.

    The erasure is of every race's profile, and comes in the midst of its rows.
    """
    start = threading.Barrier(_RACERS, timeout=60)

    def run(racer: int) -> None:
        async def use(writer: IntentWriter) -> None:
            for race in races:
                start.wait()
                for number, row in enumerate(race[racer::_RACERS]):
                    await _insist(writer.write, [row])
                    if erasure and not racer and number == _STEPS // _RACERS // 2:
                        await _insist(writer.erase, {row.profile_id: erasure})

        _with_writer(settings, use)

    with ThreadPoolExecutor(_RACERS) as threads:
        for one in [threads.submit(run, racer) for racer in range(_RACERS)]:
            one.result()


async def _insist(attempt: Callable[[Any], Awaitable[Any]], what: Any) -> None:
    """As the worker does: what can't be written now is written again."""
    while True:
        try:
            await attempt(what)
            return
        except StoreUnavailableError:
            await asyncio.sleep(0.01)


def _read(settings: Settings, profile_id: str = ROW.profile_id) -> LiveIntent:
    return IntentReader(settings).read([profile_id])[0]


def _write_by_feast(settings: Settings, row: IntentRow) -> None:
    store = open_store(settings)
    store.provider.online_write_batch(store.config, profile_intent, [to_protos(row)], None)


def _answer(settings: Settings, profile_id: str) -> dict[str, tuple[bytes, bytes]]:
    """By feature the bytes of what Feast reads of a profile: its value and its event time."""
    features = [f"{profile_intent.name}:{one.name}" for one in profile_intent.features]
    read = open_store(settings).get_online_features(features, {"profile_id": [profile_id]}).proto
    names = read.metadata.feature_names.val
    return {
        name: (one.values[0].SerializeToString(), one.event_timestamps[0].SerializeToString())
        for name, one in zip(names, read.results, strict=True)
        if name != "profile_id"
    }


def _text(text: str) -> tuple[bytes, bytes]:
    """What `_answer` holds of a text feature of `ROW`."""
    at = Timestamp(seconds=AT_MS // 1000)
    return Value(string_val=text).SerializeToString(), at.SerializeToString()
