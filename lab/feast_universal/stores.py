"""What Feast's universal tests run on: our stores. Feast's tests import this module by its name.

The online store's address is `INTENT_REDIS_URL`; offline, the tests' own Parquet files are read.
"""

from __future__ import annotations

from typing import Any, Final

from tests.universal.feature_repos.universal.data_sources.file import (  # type: ignore[import-not-found]
    FileDataSourceCreator,
)

from features.offline.as_served import AsServedOfflineStoreConfig


class _AsServed(FileDataSourceCreator):  # type: ignore[misc]
    def create_offline_store_config(self) -> AsServedOfflineStoreConfig:
        return AsServedOfflineStoreConfig()


_ONLINE: Final = ({"type": "features.online.fenced_redis.FencedRedisOnlineStore"}, None)

# Some tests are kept for the store named `redis`, those of value types for `sqlite`.
AVAILABLE_ONLINE_STORES: Final[dict[str, Any]] = {"redis": _ONLINE, "sqlite": _ONLINE}
AVAILABLE_OFFLINE_STORES: Final = [("local", _AsServed)]
