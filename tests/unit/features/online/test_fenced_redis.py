"""Where the online store is, for those who come by Feast's own configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from feast.infra.online_stores.redis import RedisType

from features.online.fenced_redis import FencedRedisOnlineStoreConfig
from stream.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment that is read anew."""
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def test_a_feast_configuration_without_an_address_goes_by_the_settings(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("INTENT_REDIS_URL", "127.0.0.1:1,db=3")
    environment.setenv("INTENT_REDIS_TYPE", "redis_sentinel")
    environment.setenv("INTENT_REDIS_SENTINEL_MASTER", "intents")
    config = FencedRedisOnlineStoreConfig()
    assert config.connection_string == "127.0.0.1:1,db=3"
    assert (config.redis_type, config.sentinel_master) == (RedisType.redis_sentinel, "intents")
