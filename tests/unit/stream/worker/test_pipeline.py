"""A micro-batch goes from records to features in an order that loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY

from stream.domain import codec, topics
from stream.domain.catalogue import Catalogue
from stream.domain.feature_row import Erasure, IntentRow
from stream.domain.intent_rows import IntentRows
from stream.domain.labels import hash64
from stream.domain.prediction import Intents
from stream.domain.window import FORGET, WindowBatch
from stream.exceptions import (
    BrokerRefusedError,
    BrokerUnavailableError,
    InferenceRefusedError,
    InferenceUnavailableError,
    PartitionsChangedError,
    Reason,
    ShuttingDownError,
    StoreRefusedError,
    StoreUnavailableError,
)
from stream.kafka.outbox import Outgoing
from stream.kafka.topology import Topology
from stream.settings import Settings
from stream.worker.micro_batch import MicroBatch
from stream.worker.pipeline import Pipeline
from stream.worker.states import Kept
from tests.unit.stream.fakes import NOW_MS, NOW_S, Edges, Message, erasure, message


async def begun(pipeline: Pipeline, records: Sequence[Any]) -> MicroBatch:
    """The batch of these records, decoded and in the states."""
    batch = await pipeline.decode(records)
    await pipeline.session(batch)
    return batch


def pipeline_of(edges: Edges, now_s: float, **dependencies: Any) -> Pipeline:
    defaults = {"settings": Settings(), "gives_up": lambda: False}
    return Pipeline(
        catalogue=Catalogue(title_ids={1: "one"}),
        states=edges,
        outbox=edges,
        inference=edges,
        store=edges,
        clock=lambda: now_s,
        **(defaults | dependencies),
    )


def process(
    edges: Edges,
    *messages: Message,
    gives_up: Any = lambda: False,
    released_at_s: Any = lambda: 0.0,
    now_s: float | None = None,
    topology: Topology | None = None,
    **config: Any,
) -> None:
    """Take one batch through all steps, by default a second after its newest record."""
    newest_s = max(one.timestamp for one in messages)
    pipeline = pipeline_of(
        edges,
        now_s or newest_s + 1,
        settings=Settings(**config),
        gives_up=gives_up,
        released_at_s=released_at_s,
        topology=topology,
    )

    async def process_all() -> None:
        batch = await begun(pipeline, messages)
        try:
            rows = await pipeline.publish(batch, await pipeline.infer(batch))
            await pipeline.announce(batch, rows)
        finally:
            await pipeline.leave(batch)

    asyncio.run(process_all())


def header(record: Any, name: str) -> str:
    return dict(record.headers)[name].decode()


def test_effects_come_in_the_order_state_changelog_inference_store_topic() -> None:
    edges = Edges()
    process(edges, message({}))
    assert edges.log == ["keep", "deliver", "infer", "write", "deliver"]
    assert edges.topics() == [topics.SESSIONS_CHANGELOG, topics.INTENT_FEATURES]


class Slow(Edges):
    """Of which the broker takes a changelog only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def deliver(self, records: Sequence[Outgoing]) -> None:
        if records[0].topic == topics.SESSIONS_CHANGELOG:
            await self.let.wait()
        await super().deliver(records)


def test_the_model_is_asked_while_the_changelog_is_under_way_but_nothing_is_written() -> None:
    async def go() -> list[str]:
        edges = Slow()
        pipeline = pipeline_of(edges, NOW_S + 1)
        batch = await begun(pipeline, [message({})])
        publishing = asyncio.create_task(pipeline.publish(batch, await pipeline.infer(batch)))
        for _ in range(10):
            await asyncio.sleep(0)
        before = list(edges.log)
        edges.let.set()
        await publishing
        assert edges.log[len(before) :] == ["deliver", "write"]
        return before

    assert asyncio.run(go()) == ["keep", "infer"]


def test_changelogs_are_delivered_in_the_order_of_the_batches_each_with_its_own_states() -> None:
    async def go() -> None:
        edges = Slow()
        pipeline = pipeline_of(edges, NOW_S + 1)
        first = await begun(pipeline, [message({"event_id": "one"})])
        second = await begun(pipeline, [message({"event_id": "two", "occurred_at_ms": NOW_MS + 1})])
        edges.let.set()
        await asyncio.gather(pipeline.leave(first), pipeline.leave(second))
        states = [codec.decode(one.value or b"") for one in edges.delivered]
        assert [state.last_event_id for state in states] == ["one", "two"]

    asyncio.run(go())


def test_a_profile_is_scored_once_a_batch_with_its_newest_state() -> None:
    edges = Edges()
    events = [message({"event_id": f"e{n}", "occurred_at_ms": NOW_MS + n}) for n in range(3)]
    process(edges, *events, message({"profile_id": "p2"}))
    assert [row.profile_id for row in edges.rows] == ["p1", "p2"]
    assert edges.rows[0].last_event_id == "e2"
    assert edges.windows[0].length.tolist() == [[3], [1]]


def test_a_duplicate_touches_its_profile_which_is_published_again() -> None:
    edges = Edges()
    process(edges, message({}))
    state = dict(edges.states)
    process(edges, message({}))
    assert edges.states == state
    assert len(edges.rows) == 2


def test_an_impression_causes_no_state_and_no_inference() -> None:
    edges = Edges()
    process(edges, message({"event_type": "impression"}))
    assert edges.states == {}
    assert "infer" not in edges.log


def test_a_bad_record_goes_to_its_dead_letter_topic_as_it_came() -> None:
    edges = Edges()
    bad = Message(
        "playback-events", b"key", b"junk", partition=3, offset=17, headers=[("own", b"x")]
    )
    process(edges, bad)
    (letter,) = edges.delivered
    assert (letter.topic, letter.partition) == (topics.PLAYBACK_DLQ, 3)
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"key", b"junk", NOW_MS)
    assert header(letter, "own") == "x"
    assert header(letter, "intent.reason") == "not_json"
    assert header(letter, "__connect.errors.topic") == "playback-events"
    assert header(letter, "__connect.errors.offset") == "17"
    assert header(letter, "__connect.errors.exception.class.name") == "BadRecord"


def test_bad_records_do_not_keep_their_good_neighbours_from_being_published() -> None:
    edges = Edges()
    process(edges, message({}), Message("browse-events", b"p1", None), message({"event_id": "e2"}))
    assert edges.rows[0].last_event_id in ("e1", "e2")
    assert edges.topics().count(topics.BROWSE_DLQ) == 1


def test_an_event_too_far_behind_the_broker_is_late() -> None:
    edges = Edges()
    process(edges, message({"occurred_at_ms": NOW_MS - 3_600_001}), allowed_lateness_s=3600)
    (late,) = edges.delivered
    assert late.topic == topics.LATE_EVENTS
    assert header(late, "intent.reason") == "behind_broker"
    assert edges.rows == []


def test_an_event_older_than_a_full_window_is_late_and_its_profile_still_published() -> None:
    edges = Edges()
    newer = [message({"event_id": f"e{n}", "occurred_at_ms": NOW_MS + n}) for n in range(5)]
    process(edges, *newer, message({"event_id": "old"}, offset=1), window_length=4)
    late = [record for record in edges.delivered if record.topic == topics.LATE_EVENTS]
    assert [header(record, "intent.reason") for record in late] == ["before_window"]
    assert edges.rows[0].last_event_id == "e4"


def test_what_was_rejected_is_delivered_before_a_state_says_that_it_was_read() -> None:
    records = [
        message({"event_id": f"e{n}", "occurred_at_ms": NOW_MS + n}, offset=n) for n in range(65)
    ]
    late = message({"event_id": "old", "occurred_at_ms": NOW_MS - 5}, offset=65)
    edges = Edges()
    process(edges, *records, late)
    assert edges.topics()[:2] == [topics.LATE_EVENTS, topics.SESSIONS_CHANGELOG]
    process(edges, *records, late)
    assert edges.topics().count(topics.LATE_EVENTS) == 1


def test_a_late_event_that_could_not_be_delivered_is_owed_to_the_next_batch() -> None:
    edges = Edges(failures={"deliver": [BrokerUnavailableError("down")]})
    records = [
        message({"event_id": f"e{n}", "occurred_at_ms": NOW_MS + n}, offset=n) for n in range(65)
    ]
    late = message({"event_id": "old", "occurred_at_ms": NOW_MS - 5}, offset=65)
    leaving = [True]
    pipeline = Pipeline(
        Settings(),
        Catalogue(),
        states=edges,
        outbox=edges,
        inference=edges,
        store=edges,
        gives_up=lambda: leaving[0],
    )

    async def given_up_and_read_again() -> None:
        batch = await begun(pipeline, [*records, late])
        with pytest.raises(ShuttingDownError):
            await pipeline.publish(batch, None)
        assert edges.delivered == []
        leaving[0] = False
        await pipeline.publish(await begun(pipeline, [*records, late]), None)

    asyncio.run(given_up_and_read_again())
    assert edges.topics() == [topics.LATE_EVENTS, topics.SESSIONS_CHANGELOG]


def test_an_erased_profile_is_forgotten_by_state_model_and_store() -> None:
    edges = Edges()
    process(edges, message({}))
    edges.log.clear()
    process(edges, erasure())
    assert edges.log == ["keep", "deliver", "forget", "erase", "deliver"]
    assert edges.emptied == {"p1": Erasure(NOW_MS, NOW_MS)}
    assert edges.forgotten == [hash64("p1")]
    state = codec.decode(edges.states[b"p1"])
    assert (len(state.window), state.last_event_id, state.erased_at_ms) == (0, "", NOW_MS)
    assert edges.delivered[-2].value == edges.states[b"p1"]


def test_readers_of_the_features_topic_get_a_tombstone_behind_what_was_published_before() -> None:
    edges = Edges()
    process(edges, message({}))
    after = message({"event_id": "new", "occurred_at_ms": NOW_MS + 1}, timestamp=NOW_S + 1)
    process(edges, erasure(), after)
    told = [one for one in edges.delivered if one.topic == topics.INTENT_FEATURES]
    assert [one.value is None for one in told] == [False, True, False]
    assert (told[1].key, told[1].partition) == (told[0].key, told[0].partition)
    assert Erasure.from_headers(told[1].headers) == Erasure(NOW_MS, NOW_MS)


@pytest.mark.parametrize(
    "event",
    [
        message({"occurred_at_ms": NOW_MS - 1}, timestamp=NOW_S + 5),
        message({"occurred_at_ms": NOW_MS + 1}, timestamp=NOW_S),
        message({"occurred_at_ms": NOW_MS - 1}, timestamp=NOW_S + 7 * 86_400),
    ],
    ids=["happened before", "arrived before", "happened before and comes too late"],
)
def test_an_event_from_before_the_erasure_is_not_taken_in_and_leaves_no_copy(
    event: Message,
) -> None:
    edges = Edges()
    process(edges, erasure())
    process(edges, event)
    assert len(codec.decode(edges.states[b"p1"]).window) == 0
    assert set(edges.topics()) == {topics.SESSIONS_CHANGELOG, topics.INTENT_FEATURES}
    announced = [one.value for one in edges.delivered if one.topic == topics.INTENT_FEATURES]
    assert announced == [None]
    assert edges.rows == []


def test_what_a_profile_does_after_its_erasure_is_published_again() -> None:
    edges = Edges()
    after = message({"event_id": "new", "occurred_at_ms": NOW_MS + 1}, timestamp=NOW_S + 1)
    process(edges, message({}), erasure(), after)
    assert edges.log == [
        "keep",
        "deliver",
        "forget",
        "infer",
        "erase",
        "write",
        "deliver",
    ]
    assert edges.emptied == {"p1": Erasure(NOW_MS, NOW_MS)}
    assert [(row.last_event_id, row.sequence_no) for row in edges.rows] == [("new", 1)]
    announced = [one.value for one in edges.delivered if one.topic == topics.INTENT_FEATURES]
    assert [value is None for value in announced] == [True, False]


def test_an_erasure_that_is_delivered_again_takes_nothing_that_came_since() -> None:
    edges = Edges()
    after = message({"occurred_at_ms": NOW_MS + 1}, timestamp=NOW_S + 1)
    process(edges, erasure(), after)
    process(edges, erasure())
    assert edges.log[-3:] == ["erase", "write", "deliver"]
    assert [row.sequence_no for row in edges.rows] == [1, 1]


def test_an_erasure_covers_what_was_published_of_events_with_clocks_ahead_of_it() -> None:
    edges = Edges()
    process(edges, message({"occurred_at_ms": NOW_MS + 250_000}))
    after = message({"event_id": "new", "occurred_at_ms": NOW_MS + 2_000}, timestamp=NOW_S + 2)
    process(edges, erasure(timestamp=NOW_S + 1), after)
    assert edges.emptied == {"p1": Erasure(NOW_MS + 1_000, NOW_MS + 250_000)}


def test_profiles_beside_an_erased_one_are_published_as_ever() -> None:
    edges = Edges()
    process(edges, message({}), message({"profile_id": "p2"}), erasure())
    assert [row.profile_id for row in edges.rows] == ["p2"]
    assert edges.windows[0].length.tolist() == [[1]]
    announced = [one.key for one in edges.delivered if one.topic == topics.INTENT_FEATURES]
    assert announced == [b"p1", b"p2"]


DAY_S = 86_400


def at(day: int, profile_id: str) -> Message:
    fields = {"profile_id": profile_id, "occurred_at_ms": NOW_MS + day * DAY_S * 1000}
    return message({"event_id": f"day {day}", **fields}, timestamp=NOW_S + day * DAY_S)


def test_a_profile_that_was_idle_for_too_long_loses_its_state_and_leaves_a_tombstone() -> None:
    edges = Edges()
    process(edges, at(0, "gone"), erasure("erased"), idle_profile_s=400 * DAY_S)
    process(edges, at(2, "stays"), idle_profile_s=400 * DAY_S)
    edges.log.clear()
    process(edges, at(401, "new"), idle_profile_s=400 * DAY_S)
    assert edges.states.keys() == {b"stays", b"new"}
    tombstones = [(one.topic, one.key) for one in edges.delivered if one.value is None]
    assert tombstones == [
        (topics.INTENT_FEATURES, b"erased"),
        *((topics.SESSIONS_CHANGELOG, key) for key in (b"gone", b"erased")),
    ]
    assert edges.log[:5] == ["keep", "deliver", "deliver", "drop", "drop"]


def test_a_profile_that_comes_back_before_anybody_looked_keeps_its_history() -> None:
    edges = Edges()
    process(edges, at(0, "back"), idle_profile_s=DAY_S)
    process(edges, at(9, "back"), idle_profile_s=DAY_S)
    assert len(codec.decode(edges.states[b"back"]).window) == 2
    assert None not in [one.value for one in edges.delivered]


def test_a_record_from_the_future_makes_nobody_idle() -> None:
    edges = Edges()
    process(edges, at(0, "stays"), idle_profile_s=DAY_S)
    process(edges, at(9_000, "broken clock"), now_s=NOW_S + 60, idle_profile_s=DAY_S)
    assert b"stays" in edges.states


def test_without_a_limit_idle_profiles_stay() -> None:
    edges = Edges()
    process(edges, at(0, "stays"), idle_profile_s=0)
    process(edges, at(9_000, "new"), idle_profile_s=0)
    assert edges.states.keys() == {b"stays", b"new"}


@pytest.mark.parametrize(
    ("key", "reason"),
    [(None, "empty"), (b"", "empty"), (b"\xff", "bad_utf8"), (b"x" * 257, "out_of_range")],
)
def test_an_erasure_of_nobody_goes_to_its_dead_letter_topic(key: bytes | None, reason: str) -> None:
    edges = Edges()
    process(edges, Message("profile-erasures", key, None))
    (letter,) = edges.delivered
    assert letter.topic == topics.ERASURES_DLQ
    assert header(letter, "intent.reason") == reason


@pytest.mark.parametrize(
    ("edge", "failure"),
    [
        ("deliver", BrokerUnavailableError("down")),
        ("infer", InferenceUnavailableError("down")),
        ("write", StoreUnavailableError("down")),
    ],
)
def test_a_dependency_that_comes_back_is_retried_until_the_batch_is_through(
    edge: str, failure: Exception
) -> None:
    edges = Edges(failures={edge: [failure, failure]})
    process(edges, message({}))
    assert [row.last_event_id for row in edges.rows] == ["e1"]
    assert edges.log.count(edge) > 2


def test_a_worker_that_leaves_gives_up_instead_of_acknowledging() -> None:
    edges = Edges(failures={"infer": [InferenceUnavailableError("down")]})
    with pytest.raises(ShuttingDownError):
        process(edges, message({}), gives_up=lambda: True)
    assert edges.rows == []


@pytest.mark.parametrize("leaves", [False, True])
def test_a_dependency_that_does_not_answer_is_told_as_back_pressure(
    leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.worker.retrying._SLOW_S", 0.01)
    answers = asyncio.Event()
    waited_for: list[str | None] = []

    class Silent(Edges):
        async def deliver(self, records: Sequence[Outgoing]) -> None:
            await answers.wait()

    edges = Silent()
    pipeline = Pipeline(
        Settings(),
        Catalogue(),
        states=edges,
        outbox=edges,
        inference=edges,
        store=edges,
        gives_up=lambda: leaves and bool(waited_for),
    )

    async def begin() -> None:
        batch = await begun(pipeline, [message({})])
        while pipeline.waits_for is None:
            await asyncio.sleep(0.001)
        waited_for.append(pipeline.waits_for)
        if not leaves:
            answers.set()
        await batch.saved

    if leaves:
        with pytest.raises(ShuttingDownError):
            asyncio.run(begin())
    else:
        asyncio.run(begin())
    assert waited_for == ["kafka"]
    assert pipeline.waits_for is None


def test_a_kind_of_dead_letter_that_never_came_is_counted_as_none() -> None:
    process(Edges(), message({}))
    # Nothing makes an erasure one from the future, so no other test has counted it.
    kind = {"topic": topics.PROFILE_ERASURES, "reason": Reason.IN_THE_FUTURE.value}
    assert REGISTRY.get_sample_value("intentstream_dead_letters_total", kind) == 0


@pytest.mark.parametrize(
    ("edge", "failure"),
    [
        ("deliver", BrokerRefusedError("no rights")),
        ("infer", InferenceRefusedError("no such input")),
        ("write", StoreRefusedError("no rights")),
    ],
)
def test_a_refusal_is_not_retried_whoever_refuses(edge: str, failure: Exception) -> None:
    edges = Edges(failures={edge: [failure]})
    with pytest.raises(type(failure)):
        process(edges, message({}))
    assert edges.log.count(edge) == 1


def test_the_changelog_record_of_a_profile_is_its_encoded_state() -> None:
    edges = Edges()
    process(edges, message({}, partition=2))
    changelog = edges.delivered[0]
    assert (changelog.topic, changelog.partition, changelog.key) == ("sessions-changelog", 2, b"p1")
    assert codec.decode(changelog.value or b"").last_event_id == "e1"


def test_a_row_carries_names_labels_and_the_version_that_answered() -> None:
    edges = Edges()
    process(edges, message({}))
    (row,) = edges.rows
    assert row.next_title_ids[:2] == ["one", "xxh3:0000000000000002"]
    assert (row.labels["action"], row.labels["kind"], row.probs["kind"]) == ("list", "", [])
    assert (row.model_version, row.sequence_no) == ("7", 1)
    assert (row.last_event_at_ms, row.published_at_ms) == (NOW_MS, NOW_MS + 1000)
    assert row.session_length == 1


def test_the_announced_row_reads_back_as_the_row_that_was_written() -> None:
    edges = Edges()
    process(edges, message({}))
    announced = edges.delivered[-1]
    read = IntentRow.from_json(announced.value or b"")
    assert IntentRows.of([read])[0] == edges.rows[0]


def republication(profile_id: str = "p1", **kwargs: Any) -> Message:
    return Message(topics.PROFILE_REPUBLICATIONS, profile_id.encode(), None, **kwargs)


def test_a_profile_that_is_asked_for_is_published_again_and_its_state_stays() -> None:
    edges = Edges()
    process(edges, message({}))
    states, kept = dict(edges.states), dict(edges.kept_at_s)
    edges.log.clear()
    process(edges, republication(timestamp=NOW_S + 100))
    assert edges.log == ["deliver", "infer", "write"]
    assert [row.profile_id for row in edges.rows] == ["p1", "p1"]
    assert (edges.states, edges.kept_at_s) == (states, kept)


def test_a_profile_without_a_state_is_not_made_by_asking_for_it() -> None:
    edges = Edges()
    process(edges, republication())
    assert (edges.states, edges.rows) == ({}, [])


def test_a_profile_that_is_published_again_takes_no_place_in_the_model_s_cache() -> None:
    edges = Edges()
    process(edges, message({}))
    pipeline = pipeline_of(edges, NOW_S + 1)
    asyncio.run(pipeline.republish([Kept(0, b"p1", NOW_S)]))
    assert [batch.sequence_no.tolist() for batch in edges.windows] == [[[1]], [[FORGET]]]


def test_an_erasure_and_what_is_published_again_wait_for_each_other() -> None:
    edges = Edges()
    process(edges, *(message({"profile_id": name}) for name in ("p1", "p2", "p3")))
    others = [Kept(0, b"p2", NOW_S), Kept(0, b"p3", NOW_S)]
    pipeline = pipeline_of(edges, NOW_S + 1)
    edges.log.clear()

    async def scene() -> None:
        answers, erases = asyncio.Event(), asyncio.Event()
        infer, erase = edges.infer, edges.erase

        async def slow_infer(batch: WindowBatch) -> Intents:
            await answers.wait()
            return await infer(batch)

        async def slow_erase(erasures: Mapping[str, Erasure]) -> None:
            await erases.wait()
            await erase(erasures)

        edges.infer, edges.erase = slow_infer, slow_erase  # type: ignore[method-assign]
        batch = await begun(pipeline, [erasure()])
        before = [asyncio.create_task(pipeline.republish([kept])) for kept in others]
        await asyncio.sleep(0.01)
        forgetting = asyncio.create_task(pipeline.forget(batch))
        await asyncio.sleep(0.01)
        assert "forget" not in edges.log
        answers.set()
        await asyncio.gather(*before, forgetting)
        assert edges.log[-1] == "forget"
        emptying = asyncio.create_task(pipeline.erase(batch))
        await asyncio.sleep(0.01)
        after = asyncio.create_task(pipeline.republish(others))
        await asyncio.sleep(0.01)
        erases.set()
        await asyncio.gather(emptying, after)
        erased_at = edges.log.index("erase")
        assert edges.log[:erased_at].count("write") == 2
        assert edges.log[erased_at:].count("write") == 1

    asyncio.run(scene())


def test_a_row_is_announced_again_only_where_another_version_has_made_it() -> None:
    edges = Edges()
    process(edges, message({}))
    edges.delivered.clear()
    process(edges, republication())
    assert edges.delivered == []
    process(edges, republication(), released_at_s=lambda: NOW_S + 1)
    assert edges.topics() == [topics.INTENT_FEATURES]


def test_of_an_erased_profile_that_is_asked_for_the_store_is_told_of_its_erasure() -> None:
    edges = Edges()
    process(edges, message({}), erasure(timestamp=NOW_S + 2))
    edges.emptied.clear()
    process(edges, republication())
    assert edges.emptied == {"p1": Erasure(NOW_MS + 2000, 0)}


def test_a_bad_request_to_publish_again_is_a_dead_letter() -> None:
    edges = Edges()
    process(edges, Message(topics.PROFILE_REPUBLICATIONS, None, None))
    assert edges.topics() == [topics.REPUBLICATIONS_DLQ]


MOVED = Topology(partitions=8, partitioner="murmur2")
HOME = MOVED.place()(b"p1", 0)
ELSEWHERE = (HOME + 1) % MOVED.partitions


def test_a_record_whose_key_belongs_elsewhere_goes_there_and_touches_nothing() -> None:
    edges = Edges()
    late = message({"occurred_at_ms": 0}, partition=ELSEWHERE)
    stateless = message({"event_type": "impression"}, partition=ELSEWHERE)
    records = message({}, partition=ELSEWHERE), late, stateless, erasure(partition=ELSEWHERE)
    process(edges, *records, topology=MOVED)
    assert [(copy.topic, copy.partition) for copy in edges.delivered] == [
        (record.topic, HOME) for record in records
    ]
    assert edges.states == edges.emptied == {}
    assert edges.rows == []


def test_a_copy_is_judged_by_the_broker_s_time_of_its_original() -> None:
    edges, again = Edges(), Edges()
    two_days_s = 2 * 86_400
    process(
        edges,
        message({"event_id": "e1"}, partition=ELSEWHERE),
        erasure("p1", partition=ELSEWHERE, timestamp=NOW_S + 1),
        message(
            {"event_id": "e2", "occurred_at_ms": NOW_MS + 2000},
            partition=ELSEWHERE,
            timestamp=NOW_S + 2,
        ),
        topology=MOVED,
    )
    first, *later = edges.delivered
    copies = [
        Message(
            copy.topic,
            copy.key,
            copy.value,
            partition=copy.partition,
            timestamp=NOW_S + two_days_s,
            headers=list(copy.headers),
        )
        for copy in (*later, first)
    ]
    process(again, *copies, topology=MOVED)
    state = codec.decode(again.states[b"p1"])
    assert state.erased_at_ms == NOW_MS + 1000
    assert state.last_event_id == "e2"
    assert len(state.window) == 1
    assert set(again.topics()) == {topics.SESSIONS_CHANGELOG, topics.INTENT_FEATURES}


def test_a_record_that_can_t_be_read_becomes_a_dead_letter_where_it_came() -> None:
    edges = Edges()
    process(edges, message({}, key=b"p2", partition=ELSEWHERE), topology=MOVED)
    (letter,) = edges.delivered
    assert (letter.topic, letter.partition) == (topics.BROWSE_DLQ, ELSEWHERE)


def test_without_a_repartition_the_partition_is_trusted() -> None:
    edges = Edges()
    process(edges, message({}, partition=ELSEWHERE), topology=Topology(partitions=8))
    assert {record.partition for record in edges.delivered} == {ELSEWHERE}
    assert edges.states


def test_no_record_of_a_partition_that_was_added_is_taken_in() -> None:
    edges = Edges()
    with pytest.raises(PartitionsChangedError, match="intentstream repartition"):
        process(edges, message({}, partition=4), topology=Topology(partitions=4))
    assert edges.log == []


@pytest.mark.parametrize(("refused", "counted"), [(1, 1.0), (None, None)])
def test_rows_are_counted_as_stale_only_where_the_store_can_tell(
    refused: int | None, counted: float | None
) -> None:
    class Store(Edges):
        async def write(self, rows: Sequence[IntentRow]) -> int | None:
            return refused

    store = f"refuses {refused}"
    process(Store(), message({}), online_store=store)
    labels = {"store": store}
    assert REGISTRY.get_sample_value("intentstream_stale_rows_total", labels) == counted
