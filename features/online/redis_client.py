"""Clients of the Redis that Feast's connection string names: one server, a cluster, Sentinels."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from stream.settings import Settings

TIMEOUTS: Final = {"socket_connect_timeout": 2.0, "socket_timeout": 5.0}
"""Seconds; parameters of the connection string go before these."""

CLUSTER: Final = "redis_cluster"
SENTINEL: Final = "redis_sentinel"

_ONE_RETRY: Final = Retry(NoBackoff(), retries=1)
_ONE_RETRY_ASYNC: Final = AsyncRetry(NoBackoff(), retries=1)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is, and what is known of it."""

    connection_string: str = field(repr=False)
    """`host:port,host:port,parameter=value`, as Feast has it."""
    redis_type: str
    """`redis`, `redis_cluster` or `redis_sentinel`."""
    sentinel_master: str

    @classmethod
    def of(cls, settings: Settings) -> RedisAddress:
        """The one of the settings."""
        url = settings.redis_url.get_secret_value()
        return cls(url, settings.redis_type, settings.redis_sentinel_master)

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over nodes."""
        return self.redis_type == CLUSTER


def parse(connection_string: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Nodes and client parameters of a connection string.

    Feast reads every parameter as JSON; a user and a password of digits stay text here. Without
    timeouts a server that hangs would hold its callers for ever.
    """
    parts = connection_string.split(",")
    nodes = [
        dict(zip(("host", "port"), part.split(":"), strict=False))
        for part in parts
        if "=" not in part
    ]
    written = dict(part.split("=", 1) for part in parts if "=" in part)
    return nodes, TIMEOUTS | {name: _parameter(name, text) for name, text in written.items()}


def _parameter(name: str, text: str) -> Any:
    try:
        read = json.loads(text)
    except json.JSONDecodeError:
        return text
    return text if name in ("username", "password") and not isinstance(read, str) else read


def connect(address: RedisAddress) -> Any:
    """A client, which connects when it is used, and fails soon: callers decide how long they try.

    One retry, at once, replaces a connection that a restarted server has closed.
    """
    return _connect(address, redis, _ONE_RETRY)


def connect_async(address: RedisAddress) -> Any:
    """The same for an event loop."""
    return _connect(address, redis_asyncio, _ONE_RETRY_ASYNC)


def _connect(address: RedisAddress, library: Any, retry: Any) -> Any:
    nodes, parameters = parse(address.connection_string)
    if address.redis_type == CLUSTER:
        startup = [library.cluster.ClusterNode(**node) for node in nodes]
        client = library.RedisCluster(startup_nodes=startup, **parameters)
    elif address.redis_type == SENTINEL:
        hosts = [(node["host"], int(node["port"])) for node in nodes]
        client = library.Sentinel(hosts, **parameters).master_for(address.sentinel_master)
    else:
        client = library.Redis(**parameters, host=nodes[0]["host"], port=nodes[0]["port"])
    client.set_retry(retry)
    return client


class RedisClients:
    """A client for threads and one for an event loop, each opened by who first asks for it."""

    def __init__(self, address: RedisAddress) -> None:
        self.address = address
        self._client: Any = None
        self._client_async: Any = None

    @property
    def blocking(self) -> Any:
        """The client for threads."""
        if self._client is None:
            self._client = connect(self.address)
        return self._client

    @property
    def asynchronous(self) -> Any:
        """The client of the event loop."""
        if self._client_async is None:
            self._client_async = connect_async(self.address)
        return self._client_async

    async def close(self) -> None:
        """Close the connections of the asynchronous client."""
        if self._client_async is not None:
            await self._client_async.aclose()
            self._client_async = None
