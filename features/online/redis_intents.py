"""Intent rows in Redis, written past the fence without Feast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.online.answers import typed_errors
from features.online.fenced_writes import ViewFence, write_async, write_intents
from features.online.redis_client import RedisAddress, RedisClients
from features.online.row_encoding import RowEncoder
from features.registry.registration import Registration
from features.schema.views import profile_intent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream.domain.feature_row import Erasure, IntentRow
    from stream.settings import Settings


class RedisIntents:
    """Writes to the Redis of the settings. See `features.online.writer.IntentStore`."""

    is_fenced = True

    def __init__(self, settings: Settings) -> None:
        address = RedisAddress.of(settings)
        self._clients = RedisClients(address)
        self._fence = ViewFence.of(
            profile_intent.name,
            has_sequence=True,
            ttl_s=settings.feature_ttl_s,
            is_cluster=address.is_cluster,
        )
        self._encode = RowEncoder()
        self._ahead_ms = settings.max_ahead_s * 1000
        self._registration = Registration(settings)

    async def start(self) -> None:
        """See `IntentStore`. The definitions are registered while rows are written."""
        await self._registration.start()

    @property
    def is_registered(self) -> bool:
        """See `IntentStore`."""
        return self._registration.is_done

    async def write(self, rows: Sequence[IntentRow]) -> int:
        """See `IntentStore`."""
        self._registration.insist()
        with typed_errors():
            client = self._clients.asynchronous
            return await write_intents(client, self._fence, self._encode, rows)

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """See `IntentStore`."""
        rows = (self._encode.emptied(*one, self._ahead_ms) for one in erasures.items())
        with typed_errors():
            await write_async(self._clients.asynchronous, self._fence, rows)

    async def close(self) -> None:
        """See `IntentStore`."""
        await self._registration.close()
        await self._clients.close()
