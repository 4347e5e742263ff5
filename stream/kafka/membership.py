"""A member that joins its group under a name of its own (KIP-345), and one whose name is taken.

Whoever joins last under a name gets the place of the one before. The broker tells that one that it
is fenced, if it names itself. aiokafka (0.14) does so when it joins, but in no heartbeat and no
commit: the broker says then that it knows of no such member, and aiokafka joins anew and takes the
name back. Two processes of one name do so to each other every few seconds, in silence.

Here heartbeats and commits carry the name, and who is fenced is told and stays outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetCommitResponse_v3
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatResponse_v1
from aiokafka.protocol.types import Array, Int32, Int64, Schema, String

from stream.exceptions import InstanceIdTakenError

_FENCED_INSTANCE_ID: Final = 82
_NO_LEADER_EPOCH: Final = -1


class _HeartbeatResponse(HeartbeatResponse_v1):  # type: ignore[misc]
    API_VERSION = 3


class _HeartbeatStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = HeartbeatRequest.API_KEY
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _CommitResponse(OffsetCommitResponse_v3):  # type: ignore[misc]
    API_VERSION = 7


class _CommitStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = OffsetCommitRequest.API_KEY
    API_VERSION = 7
    RESPONSE_TYPE = _CommitResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", String("utf-8")),
                    ),
                ),
            ),
        ),
    )


class NamedHeartbeat(Request[_HeartbeatStruct]):  # type: ignore[misc]
    """A heartbeat that says by its name who sends it."""

    API_KEY = HeartbeatRequest.API_KEY

    def __init__(self, plain: HeartbeatRequest, name: str) -> None:
        self._plain = plain
        self._name = name

    def build(self, struct: type[_HeartbeatStruct]) -> _HeartbeatStruct:
        """The request as it is sent."""
        plain = self._plain
        return struct(plain._group, plain._generation_id, plain._member_id, self._name)


class NamedCommit(Request[_CommitStruct]):  # type: ignore[misc]
    """A commit of offsets that says by its name who sends it."""

    API_KEY = OffsetCommitRequest.API_KEY

    def __init__(self, plain: OffsetCommitRequest, name: str) -> None:
        self._plain = plain
        self._name = name

    def build(self, struct: type[_CommitStruct]) -> _CommitStruct:
        """The request as it is sent."""
        plain = self._plain
        return struct(
            plain._consumer_group,
            plain._consumer_group_generation_id,
            plain._consumer_id,
            self._name,
            [
                (
                    topic,
                    [
                        (partition, offset, _NO_LEADER_EPOCH, metadata)
                        for partition, offset, metadata in partitions
                    ],
                )
                for topic, partitions in plain._topics
            ],
        )


def give_way(
    consumer: AIOKafkaConsumer,
    group: str,
    name: str,
    on_taken: Callable[[InstanceIdTakenError], None],
) -> None:
    """Have a consumer that hasn't been started end its membership when its name is taken.

    Args:
        consumer: joins `group` as `name`.
        group: the consumer group.
        name: the consumer's `group_instance_id`.
        on_taken: called, in the consumer's event loop, when another process has taken the name. The
            consumer gets nothing from then on, and must be stopped.
    """
    client = consumer._client
    send = client.send

    async def named(node_id: Any, request: Any, **options: Any) -> Any:
        if isinstance(request, HeartbeatRequest):
            request = NamedHeartbeat(request, name)
        elif isinstance(request, OffsetCommitRequest):
            request = NamedCommit(request, name)
        answer = await send(node_id, request, **options)
        if _FENCED_INSTANCE_ID in _codes(request, answer):
            error = InstanceIdTakenError(
                f"another process has joined the consumer group {group} as {name!r}, and this one "
                "ends; give each worker and each sink an INTENT_INSTANCE_ID of its own, or none"
            )
            on_taken(error)
            raise error
        return answer

    client.send = named


def _codes(request: object, answer: Any) -> Iterator[int]:
    """The errors of an answer that may say that its request came from one who is fenced."""
    if isinstance(request, NamedCommit):
        for _, partitions in answer.topics:
            for _, code in partitions:
                yield code
    else:
        yield getattr(answer, "error_code", 0)
