"""Opens the feature store that the settings describe and registers the definitions in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from feast import FeatureStore, RepoConfig
from feast.errors import FeastError, FeastObjectNotFoundException
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.repo_config import (
    MaterializationConfig,
    RegistryConfig,
    get_online_config_from_type,
)

from features import definitions
from features.offline.as_served import AsServedOfflineStoreConfig
from features.online.fence import errors_of, insist_on_fence
from features.online.fenced_redis import FencedRedisOnlineStoreConfig, view_ttls
from features.registry import registration
from features.registry.places import offline_dir, registry_of
from features.registry.registered import Needed
from stream.exceptions import DefinitionsError, InvalidSettingsError

if TYPE_CHECKING:
    from stream.settings import Settings


def open_store(settings: Settings) -> FeatureStore:
    """The feature store that `settings` describe; opens no connection yet.

    The same project, registry and layout as `feast` uses in the folder `features/`. The SQLite
    database lies beside the registry. Batch sources are relative to `INTENT_OFFLINE_DIR`.

    Raises:
        DefinitionsError: when there is a registry that can't be read, or its folder can't be made.
        InvalidSettingsError: when `INTENT_ONLINE_STORE` names no configuration of a store.
    """
    registry = registry_of(settings)
    with _writable(registry):
        registry.parent.mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project=definitions.project.name,
            provider="local",
            registry=RegistryConfig(
                path=str(registry),
                registry_store_type="features.registry.whole_file.WholeFileRegistryStore",
            ),
            online_store=_online_store(settings, registry),
            offline_store=AsServedOfflineStoreConfig(memory_mib=settings.offline_memory_mib),
            materialization=MaterializationConfig(pull_latest_features=True),
            entity_key_serialization_version=3,
            repo_path=offline_dir(settings),
        )
    )


def _online_store(settings: Settings, registry: Path) -> Any:
    """Feast's configuration of the online store."""
    match settings.online_store:
        case "redis":
            return FencedRedisOnlineStoreConfig(
                redis_type=settings.redis_type,
                sentinel_master=settings.redis_sentinel_master,
                connection_string=settings.redis_url.get_secret_value(),
                view_ttl_seconds=view_ttls(settings),
            )
        case "sqlite":
            return SqliteOnlineStoreConfig(path=str(registry.with_name("online.db")))
    try:
        # As Feast reads the file, which would take SQLite where it names no store.
        text = os.path.expandvars(Path(settings.online_store).read_text())
        online = yaml.safe_load(text)["online_store"]
        return get_online_config_from_type(online["type"])(**online)
    except LookupError as error:
        raise _no_store(settings, f"it has no {error}") from error
    except (OSError, yaml.YAMLError, TypeError, ValueError, FeastError) as error:
        raise _no_store(settings, str(error)) from error


def _no_store(settings: Settings, reason: str) -> InvalidSettingsError:
    return InvalidSettingsError(
        f"INTENT_ONLINE_STORE={settings.online_store} is neither redis nor sqlite, nor a file "
        "whose section online_store names a store by its type, one of Feast's or a class, as "
        f"features/feature_store.yaml does: {reason}"
    )


def apply(settings: Settings) -> FeatureStore:
    """Register the definitions, as `feast apply` does, where the registry has not got them yet.

    Several processes may do so at once.

    Returns:
        The store that they are registered in.

    Raises:
        DefinitionsError: when the registry can't be read or written.
        InvalidSettingsError: as `open_store`.
        StoreUnavailableError: when the online store's tables can't be made now.
        StoreRefusedError: when an operator is needed for that.
    """
    store = open_store(settings)
    registry = Path(store.config.registry.path)
    with (
        errors_of(store.provider.online_store),
        _writable(registry),
        registry.with_name(f"{registry.name}.lock").open("w") as lock,
    ):
        # Two releases at once would leave a mix of both, because Feast loads a file that changes
        # anew in the midst of applying.
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A store's tables are made by `apply` too and may be missing beside a whole registry.
        # Redis has none.
        if settings.online_store != "redis" or not _is_current(store):
            store.apply(definitions.OBJECTS)
        registration.note(registry)
    return store


def apply_to_write(settings: Settings) -> FeatureStore:
    """The same, for who writes features.

    Raises:
        UnfencedStoreError: when the online store has no fence, and the settings don't accept that.
        DefinitionsError, InvalidSettingsError, StoreError: as `apply`.
    """
    insist_on_fence(open_store(settings).provider.online_store, settings)
    return apply(settings)


def check_online(settings: Settings) -> None:
    """Whether features can be written: nothing in particular is read of the online store.

    Raises:
        UnfencedStoreError: when it has no fence, and the settings don't accept that.
        StoreUnavailableError: when the store can't be read now.
        StoreRefusedError: when the store answers with an error that needs an operator.
    """
    titles, key = definitions.title_profile, definitions.title.join_key
    store = apply_to_write(settings)
    with errors_of(store.provider.online_store):
        store.get_online_features([f"{titles.name}:title_kind"], {key: [""]})


@contextmanager
def _writable(registry: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DefinitionsError(
            f"The registry {registry} can't be written ({error}). Check the rights of its folder; "
            "INTENT_FEATURE_REGISTRY says where it is."
        ) from error


def _is_current(store: FeatureStore) -> bool:
    try:
        registered = store.get_project(definitions.project.name)
        # Who registers views alone, as an older release may, leaves the project's tags as they are.
        for service in (definitions.ranker_v1, definitions.search_rerank_v1):
            views = [definitions.profile_intent, definitions.title_profile]
            Needed(store, service, views).check()
    except (FeastObjectNotFoundException, DefinitionsError):
        return False
    return bool(registered.tags == definitions.project.tags)
