"""An offline store for Feast that answers what a reader would have been served at that moment.

Feast's own store of Parquet files (`dask`, 0.67) does not, in three ways that were seen:

- It joins by event time alone, so a request a minute after an event gets a row that was published
  four minutes later. Its flag `filter_by_created_timestamp` mends that.
- Of rows of one event time any may win: it sorts by creation, then, unstably, by event time. A late
  event, or a new model version, makes a second row of one event time.
- Of requests at one moment for one profile and several titles it keeps a single one.

Here a view with a feature `sequence_no` is one that is written live, through the fence of
`features.online.fence`: a row counts from its creation on, whatever its event time, and
never replaces one that is newer by event time and `sequence_no`. Other views are dated: a row
counts from its event time on, and of one event time the one created last. With the flag, rows of
these count from their creation on, too, and the one created last replaces all before, as a
publication does online. Requests come back in the order in which they were asked.
A row of an erased profile from before its erasure is not there for anybody, whether or not its file
has been written anew (see `features.offline.erasures`).

    offline_store:
      type: features.offline.as_served.AsServedOfflineStore
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast import utils
from feast.infra.offline_stores.dask import (
    DaskOfflineStore,
    DaskOfflineStoreConfig,
    DaskRetrievalJob,
)
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.offline_stores.offline_utils import (
    DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL,
    infer_event_timestamp_from_entity_df,
)
from feast.on_demand_feature_view import OnDemandFeatureView

from features.offline.erasures import COLUMNS, are_erased, joined, notes
from features.online.fence import SEQUENCE_FEATURE
from stream.exceptions import FeaturesError, NothingLandedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from feast import FeatureView, RepoConfig
    from feast.data_source import DataSource
    from feast.infra.offline_stores.offline_store import RetrievalJob
    from feast.infra.registry.base_registry import BaseRegistry


class AsServedOfflineStoreConfig(DaskOfflineStoreConfig):  # type: ignore[misc]
    """Has no options."""

    type: Literal["features.offline.as_served.AsServedOfflineStore"] = (
        "features.offline.as_served.AsServedOfflineStore"
    )


class AsServedOfflineStore(DaskOfflineStore):  # type: ignore[misc]
    """Feast's Parquet offline store with its point-in-time join and its materialization mended."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The features of each request as they were served at its moment. See the base class.

        Without requests (`entity_df` is None) every entity that got a row between the dates is
        asked for at `end_date`.

        Raises:
            FeaturesError: when the requests are neither a data frame of pandas nor None.
            NothingLandedError: when a view's batch source has no file; by the job, but for None.
        """
        on_demand = utils._get_requested_on_demand_feature_views(feature_refs, project, registry)
        views, _ = utils._get_requested_feature_views_to_features_dict(
            feature_refs, feature_views, on_demand
        )
        if entity_df is None:
            entity_df = _all_entities(
                config, views, start_date, end_date, filter_by_created_timestamp
            )
        elif not isinstance(entity_df, pd.DataFrame):
            raise FeaturesError(
                f"Requests can't be a {type(entity_df).__name__}. Ask with a data frame of pandas, "
                "or with None and `end_date` for every entity."
            )
        time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        requests = entity_df.assign(**{time: pd.to_datetime(entity_df[time], utc=True)})

        def evaluate() -> pa.Table:
            answer = pa.Table.from_pandas(requests, preserve_index=False)
            for view, features in views.items():
                found = _as_of(config, view, features, requests, time, filter_by_created_timestamp)
                prefix = f"{view.projection.name_to_use()}__" if full_feature_names else ""
                for feature in features:
                    answer = answer.append_column(prefix + feature, found[feature])
            return answer

        return _ArrowJob(
            evaluation_function=evaluate,
            full_feature_names=full_feature_names,
            repo_path=str(config.repo_path),
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(
                feature_refs, project, registry
            ),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in requests.columns if name != time],
                min_event_timestamp=requests[time].min(),
                max_event_timestamp=requests[time].max(),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The newest row of each entity, of those between the dates. See the base class.

        Raises:
            NothingLandedError: by the job, when the batch source has no file.
        """
        times = [name for name in (timestamp_field, created_timestamp_column) if name]
        bounds = [(timestamp_field, ">=", start_date), (timestamp_field, "<=", end_date)]

        def evaluate() -> pa.Table:
            columns = [*join_key_columns, *feature_name_columns, *times]
            rows = _read(config, data_source, columns, [one for one in bounds if one[2]])
            order = _order(feature_name_columns, timestamp_field)
            places = rows.select([*join_key_columns, *{*order, *times}]).to_pandas()
            places = places.sort_values([*order, *times[1:]], kind="stable")
            return rows.take(places.drop_duplicates(join_key_columns, keep="last").index.to_numpy())

        return _ArrowJob(
            evaluation_function=evaluate, full_feature_names=False, repo_path=str(config.repo_path)
        )


class _ArrowJob(DaskRetrievalJob):  # type: ignore[misc]
    """Feast's job, but its function returns an Arrow table, whose types stay as they are."""

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal().to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.evaluation_function()


def _as_of(
    config: RepoConfig,
    view: FeatureView,
    features: Sequence[str],
    requests: pd.DataFrame,
    time: str,
    from_creation: bool,
) -> pa.Table:
    """The view's features for each request, in their order; null where there was no row."""
    event, created = view.batch_source.timestamp_field, view.batch_source.created_timestamp_column
    own_keys, keys = _keys(view)
    since = _since(view, from_creation)
    order = _order([feature.name for feature in view.features], event)
    if created and not _is_live(view):
        order = [created, event] if from_creation else [event, created]
    telling = list(dict.fromkeys([*own_keys, *order, *since]))
    wanted = {own: requests[key].unique() for own, key in zip(own_keys, keys, strict=True)}
    rows = _rows_of(config, view, [*telling, *features], wanted, requests[time].max())
    places = rows.select(telling).to_pandas()
    places = places.assign(
        since=_utc(places[since].max(axis=1)),
        event=_utc(places[event]),
        rank=places.groupby(order).ngroup(),
        place=np.arange(len(places)),
    ).sort_values(["since", "rank"], kind="stable")
    # What the fence refuses is never served, and the equal overwrites.
    ranks = places.groupby(own_keys)["rank"] if own_keys else places["rank"]
    served = places[places["rank"] == ranks.cummax()]
    asked = requests[keys].assign(at=_utc(requests[time]), number=np.arange(len(requests)))
    joined = pd.merge_asof(
        asked.sort_values("at"),
        served[[*own_keys, "since", "event", "place"]],
        left_on="at",
        right_on="since",
        left_by=keys or None,
        right_by=own_keys or None,
    ).sort_values("number")
    if view.ttl:
        joined.loc[joined["event"] < joined["at"] - view.ttl, "place"] = np.nan
    return rows.select(features).take(pa.array(joined["place"], pa.int64(), from_pandas=True))


def _all_entities(
    config: RepoConfig,
    views: Iterable[FeatureView],
    start_date: datetime | None,
    end_date: datetime | None,
    from_creation: bool,
) -> pd.DataFrame:
    """A request at the end date for every entity of which a row began to count between the dates.

    Entities of views without a common join key are combined, each with each.
    """
    start, end = _utc(pd.Series([start_date, end_date]))
    time = DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL
    requests = pd.DataFrame({time: [end]})
    for view in views:
        own_keys, keys = _keys(view)
        if not own_keys:
            continue
        since = _since(view, from_creation)
        rows = _rows_of(config, view, [*own_keys, *since], {}, end).to_pandas()
        begun = _utc(rows[since].max(axis=1))
        is_asked = (begun <= end) & ((begun >= start) | pd.isna(start))
        entities = rows.loc[is_asked, own_keys].drop_duplicates().set_axis(keys, axis=1)
        how = "outer" if {*keys} & {*requests} else "cross"
        requests = requests.merge(entities, how=how)
    return requests.assign(**{time: end}).dropna()


def _keys(view: FeatureView) -> tuple[list[str], list[str]]:
    """The view's own names of its join keys, and those of the requests."""
    own = [column.name for column in view.entity_columns]
    return own, [view.projection.join_key_map.get(name, name) for name in own]


def _is_live(view: FeatureView) -> bool:
    return any(feature.name == SEQUENCE_FEATURE for feature in view.features)


def _since(view: FeatureView, from_creation: bool) -> list[str]:
    """The columns with the times of which the last is that from which a row counts."""
    event, created = view.batch_source.timestamp_field, view.batch_source.created_timestamp_column
    if _is_live(view):
        return [created]
    return [event, created] if from_creation and created else [event]


def _utc(times: pd.Series) -> pd.Series:
    """Times in one unit and zone; those without a zone are UTC, as Feast has it."""
    return pd.to_datetime(times, utc=True).astype("datetime64[us, UTC]")


def _order(features: Sequence[str], event: str) -> list[str]:
    """The columns by which rows of one entity are older and newer."""
    return [event, SEQUENCE_FEATURE] if SEQUENCE_FEATURE in features else [event]


def _rows_of(
    config: RepoConfig,
    view: FeatureView,
    names: Iterable[str],
    keys: Mapping[str, Sequence[Any]],
    until: pd.Timestamp,
) -> pa.Table:
    """Columns of the view's rows of some keys; without those that count from after the day `until`.

    Args:
        config: The store's configuration.
        view: The view, which gives its source's columns their names.
        names: Columns by the view's names; one that comes twice is read once.
        keys: The values to read of each join key.
        until: The last time that is asked for.
    """
    names = list(dict.fromkeys(names))
    column = {name: stored for stored, name in view.batch_source.field_mapping.items()}
    return _read(
        config,
        view.batch_source,
        [column.get(name, name) for name in names],
        [(column.get(own, own), "in", list(values)) for own, values in keys.items() if len(values)],
        # Rows that are written live lie in folders by the date of their creation.
        f"date={until:%Y-%m-%d}" if _is_live(view) and pd.notna(until) else None,
    ).rename_columns(names)


def _date_folder(file: str) -> str:
    return next((part for part in reversed(file.split("/")) if part.startswith("date=")), "")


def _read(
    config: RepoConfig,
    source: DataSource,
    columns: Sequence[str],
    filters: Sequence[tuple[str, str, Any]],
    last_folder: str | None = None,
) -> pa.Table:
    where = FileSource.get_uri_for_file_path(config.repo_path, source.file_options.uri)
    filesystem, path = FileSource.create_filesystem_and_path(
        where, source.file_options.s3_endpoint_override
    )
    # Before the files are listed: a note goes only after they were written anew.
    erasures = joined(notes(path, filesystem))
    try:
        files = ds.dataset(path, filesystem=filesystem, format="parquet").files
    except FileNotFoundError:
        files = []
    if not files:
        raise NothingLandedError(
            f"There are no files in {where}. `intentstream sink` makes those of intents, "
            "`intentstream titles` those of titles; INTENT_OFFLINE_DIR says where."
        )
    # The newest file has every column; one that an older file lacks is null there.
    schema = pq.read_schema(files[-1], filesystem=filesystem)
    if last_folder:
        files = [file for file in files if _date_folder(file) <= last_folder]
    rows = ds.dataset(files, schema, filesystem=filesystem, format="parquet")
    condition = pq.filters_to_expression(list(filters)) if filters else None
    if not erasures:
        return rows.to_table(columns=list(columns), filter=condition)
    found = rows.to_table(columns=list(dict.fromkeys([*columns, *COLUMNS])), filter=condition)
    return found.filter(pa.array(~are_erased(found, erasures))).select(list(columns))
