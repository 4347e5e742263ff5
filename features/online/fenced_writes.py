"""Writes rows past the fence: one script on the server compares and writes.

The fence is the event timestamp and, where the view has a feature `sequence_no`, that number at
equal times. Both are read back from the fields that Feast writes anyway, so the layout is Feast's
own to the byte.

The strictly older is refused and the equal overwrites: a row that a new model version scored again
must get in.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from features.online.redis_rows import feature_field, timestamp_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from features.online.redis_rows import FencedRow
    from stream.domain.feature_row import IntentRow

SEQUENCE_FEATURE: Final = "sequence_no"
"""The feature that orders rows of one event time."""

ROWS_PER_CALL: Final = 16
"""Rows of one script call: few enough that a reader never waits long behind a call."""

ROWS_PER_TRIP: Final = 256
"""Rows of one round trip. The event loop is held for their encoding, some 5 ms, and no longer."""

COMPARE_AND_WRITE: Final = b"""\
-- KEYS: one entity per row. ARGV: timestamp field, sequence field or '', time to live in seconds
-- or 0, then per row: event time in microseconds, sequence number or '', msgpack array of the
-- hash's fields and values. Answers with the number of rows that were refused as older.
local function varint(bytes, at)
  local last = at
  while string.byte(bytes, last) > 127 do
    last = last + 1
  end
  local negative = last - at == 9 -- ten bytes hold the two's complement of a negative number
  local value, scale = 0, 1
  for i = at, negative and last - 1 or last do
    local bits = string.byte(bytes, i) % 128
    value = value + (negative and 127 - bits or bits) * scale
    scale = scale * 128
  end
  return negative and -value - 1 or value, last + 1
end

local function micros(timestamp)
  local total, at = 0, 1
  while at <= #timestamp do
    local tag, value = string.byte(timestamp, at), nil
    value, at = varint(timestamp, at + 1)
    total = total + (tag == 8 and value * 1000000 or math.floor(value / 1000))
  end
  return total
end

local function is_newer(stored, sequence, time, new_sequence)
  local stored_time = micros(stored)
  if stored_time ~= time then
    return stored_time > time
  end
  return sequence and #sequence > 1 and new_sequence ~= ''
    and varint(sequence, 2) > tonumber(new_sequence)
end

local refused, ttl = 0, tonumber(ARGV[3])
for row, key in ipairs(KEYS) do
  local at = 3 * row + 1
  local stored = redis.call('HMGET', key, ARGV[1], ARGV[2])
  if stored[1] and is_newer(stored[1], stored[2], tonumber(ARGV[at]), ARGV[at + 1]) then
    refused = refused + 1
  else
    redis.call('HSET', key, unpack(cmsgpack.unpack(ARGV[at + 2])))
    if ttl > 0 then
      redis.call('EXPIRE', key, ttl)
    else
      redis.call('PERSIST', key) -- a time to live of earlier settings
    end
  end
end
return refused
"""

_SCRIPT_SHA: Final = hashlib.sha1(COMPARE_AND_WRITE, usedforsecurity=False).hexdigest().encode()


class ViewFence(NamedTuple):
    """What the script has to know of a view, and of the server."""

    time_field: bytes
    """Hash field of the event timestamp."""
    sequence_field: bytes
    """Hash field of `sequence_no`; empty where the view has none."""
    ttl_s: int
    """Time to live from the last write on; 0 is none."""
    is_cluster: bool

    @classmethod
    def of(cls, view_name: str, *, has_sequence: bool, ttl_s: int, is_cluster: bool) -> ViewFence:
        """The one of a view, by the name that its fields are stored under."""
        sequence = feature_field(view_name, SEQUENCE_FEATURE) if has_sequence else b""
        return cls(timestamp_field(view_name), sequence, ttl_s, is_cluster)

    def commands(self, rows: Iterable[FencedRow]) -> Iterator[tuple[bytes | str | int, ...]]:
        """The script calls that write `rows`.

        A cluster takes one key per call, because keys of one call must share a node, and the whole
        script each time, because no node is sure to know it. A single server gets the script ahead
        of the calls, in the same round trip, so that one that was restarted knows it too.
        """
        if not self.is_cluster:
            yield ("SCRIPT LOAD", COMPARE_AND_WRITE)
        script = ("EVAL", COMPARE_AND_WRITE) if self.is_cluster else ("EVALSHA", _SCRIPT_SHA)
        shared = (self.time_field, self.sequence_field, self.ttl_s)
        for part in _batched(rows, 1 if self.is_cluster else ROWS_PER_CALL):
            arguments: list[bytes] = []
            for row in part:
                arguments += (row.micros, row.sequence, row.fields)
            yield (*script, len(part), *(row.key for row in part), *shared, *arguments)


def write(client: Any, fence: ViewFence, rows: Iterable[FencedRow]) -> int:
    """Write encoded rows of one view in one round trip, in order.

    Returns:
        How many rows were refused because a newer one is stored.

    Raises:
        redis.RedisError: when Redis can't be reached or refuses; writing again is safe.
    """
    return _refused(_pipe(client, fence, rows).execute(raise_on_error=False))


async def write_async(client: Any, fence: ViewFence, rows: Iterable[FencedRow]) -> int:
    """The same from an event loop."""
    return _refused(await _pipe(client, fence, rows).execute(raise_on_error=False))


async def write_intents(
    client: Any,
    fence: ViewFence,
    encode: Callable[[Sequence[IntentRow]], list[FencedRow]],
    rows: Sequence[IntentRow],
) -> int:
    """Encode and write rows, `ROWS_PER_TRIP` in one round trip. See `write`."""
    # The second trip is encoded here while the server works on the first.
    slots = asyncio.Semaphore(2)

    async def trip(start: int) -> int:
        async with slots:
            encoded = encode(rows[start : start + ROWS_PER_TRIP])
            return await write_async(client, fence, encoded)

    trips = map(trip, range(0, len(rows), ROWS_PER_TRIP))
    refused = 0
    # All trips end before the first error is raised: none may write behind the caller's back.
    for result in await asyncio.gather(*trips, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        refused += result
    return refused


def without_errors(replies: list[Any]) -> list[Any]:
    """Replies of a pipeline, none of which is an error.

    The first error is raised here, because redis-py would put the whole command into its message.
    """
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _pipe(client: Any, fence: ViewFence, rows: Iterable[FencedRow]) -> Any:
    pipe = client.pipeline(transaction=False)
    for command in fence.commands(rows):
        pipe.execute_command(*command)
    return pipe


def _refused(replies: list[Any]) -> int:
    return sum(reply for reply in without_errors(replies) if isinstance(reply, int))


def _batched(rows: Iterable[FencedRow], size: int) -> Iterator[list[FencedRow]]:
    part: list[FencedRow] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
