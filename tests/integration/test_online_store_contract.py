"""The fenced Redis store under the contract of fenced online stores, on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis as redis_client

from features.online.fence_contract import OnlineStoreContract
from stream.ports import free_ports
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = 8


class TestFencedRedisOnlineStore(OnlineStoreContract):
    @pytest.fixture
    def settings(self, redis: str, tmp_path: Path) -> Iterator[Settings]:
        host, port = redis.split(":")
        with redis_client.Redis(host=host, port=int(port), db=DATABASE) as client:
            client.flushdb()
            yield Settings(
                redis_url=f"{redis},db={DATABASE}", feature_registry=tmp_path / "registry.db"
            )
            client.flushdb()

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Settings:
        (port,) = free_ports(1)
        return Settings(redis_url=f"127.0.0.1:{port}", feature_registry=tmp_path / "registry.db")
