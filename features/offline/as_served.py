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

import posixpath
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from copy import copy
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import utils
from feast.errors import EntityTimestampInferenceException, SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.dask import (
    DaskOfflineStore,
    DaskOfflineStoreConfig,
    DaskRetrievalJob,
)
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.offline_stores.offline_utils import (
    DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL,
    infer_event_timestamp_from_entity_df,
)
from feast.on_demand_feature_view import OnDemandFeatureView
from pyarrow.fs import FileType, LocalFileSystem
from pydantic import Field

from features.offline.matching import in_columns
from features.offline.point_in_time import Wanted, answers, begun, keys, newest
from stream.exceptions import FeaturesError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from feast import FeatureView, RepoConfig
    from feast.data_source import DataSource
    from feast.infra.offline_stores.offline_store import RetrievalJob
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.saved_dataset import SavedDatasetStorage


class AsServedOfflineStoreConfig(DaskOfflineStoreConfig):  # type: ignore[misc]
    """What a historical read may use."""

    type: Literal["features.offline.as_served.AsServedOfflineStore"] = (
        "features.offline.as_served.AsServedOfflineStore"
    )
    memory_mib: int = Field(2048, ge=256)
    """Memory of the join; what is more is spilled into TMPDIR."""


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

        Requests are a data frame of pandas, or a query of DuckDB's, as `FROM 'requests.parquet'`.
        Without any (`entity_df` is None) every entity that got a row between the dates is asked for
        at `end_date`.

        Raises:
            FeaturesError: when the requests are neither, or have no column of times.
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
        requests, time = _requests(entity_df)
        wanted = [
            Wanted(
                view, features, f"{view.projection.name_to_use()}__" if full_feature_names else ""
            )
            for view, features in views.items()
        ]
        span = pc.min_max(requests[time])
        return _Job(
            evaluation_function=lambda: answers(
                config, requests, time, wanted, filter_by_created_timestamp
            ),
            full_feature_names=full_feature_names,
            repo_path=str(config.repo_path),
            on_demand_feature_views=[
                in_columns(copy(view))
                for view in OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
            ],
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in requests.column_names if name != time],
                min_event_timestamp=pd.Timestamp(span["min"].as_py()),
                max_event_timestamp=pd.Timestamp(span["max"].as_py()),
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
        return _Job(
            evaluation_function=lambda: newest(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                times,
                start_date,
                end_date,
            ),
            full_feature_names=False,
            repo_path=str(config.repo_path),
        )


class _Job(DaskRetrievalJob):  # type: ignore[misc]
    """Feast's job, but its function gives Arrow tables, one portion after the other."""

    evaluation_function: Callable[[], Iterator[pa.Table]]

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal().to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return pa.concat_tables(self.evaluation_function())

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool | None = False,
        timeout: int | None = None,
    ) -> None:
        """Write the answer as Parquet, portion by portion: it is never held as a whole.

        Args:
            storage: A file, if its name ends in `.parquet`, or a folder that gets one more file.
            allow_overwrite: Whether something may be there already; a file is replaced.
            timeout: Not kept.

        Raises:
            SavedDatasetLocationAlreadyExists: when something is there and must not be.
        """
        assert isinstance(storage, SavedDatasetFileStorage)
        where = FileSource.get_uri_for_file_path(self.repo_path, storage.file_options.uri)
        filesystem, path = FileSource.create_filesystem_and_path(
            str(where), storage.file_options.s3_endpoint_override
        )
        filesystem = filesystem or LocalFileSystem()
        if not allow_overwrite and filesystem.get_file_info(path).type != FileType.NotFound:
            raise SavedDatasetLocationAlreadyExists(location=storage.file_options.uri)
        file = path if path.endswith(".parquet") else f"{path}/{uuid4().hex}.parquet"
        folder, name = posixpath.split(file)
        filesystem.create_dir(folder)
        unfinished = f"{folder}/.{name}.part"
        try:
            with ExitStack() as opened:
                writer: pq.ParquetWriter | None = None
                for portion in self.evaluation_function():
                    table = self._of(portion).to_arrow()
                    writer = writer or opened.enter_context(
                        pq.ParquetWriter(unfinished, table.schema, filesystem=filesystem)
                    )
                    writer.write_table(table)
            filesystem.move(unfinished, file)
        except BaseException:
            with suppress(OSError):  # nothing was written yet
                filesystem.delete_file(unfinished)
            raise

    def _of(self, portion: pa.Table) -> _Job:
        """The job of one portion, for Feast to add the features that are made on demand."""
        return _Job(
            lambda: iter([portion]),
            self.full_feature_names,
            self.repo_path,
            self.on_demand_feature_views,
            self.metadata,
        )


def _requests(asked: Any) -> tuple[pa.Table, str]:
    """The requests, with moments in UTC, and the name of the moments' column."""
    if isinstance(asked, str):
        with duckdb.connect() as connection:
            asked = connection.sql(asked).to_arrow_table()
        kinds = asked.schema.empty_table().to_pandas().dtypes
    elif isinstance(asked, pd.DataFrame):
        kinds = asked.dtypes
    else:
        raise _refused(f"Requests can't be a {type(asked).__name__}.")
    try:
        time = infer_event_timestamp_from_entity_df(dict(kinds))
    except EntityTimestampInferenceException as error:
        raise _refused("It isn't told which column of the requests holds their times.") from error
    if isinstance(asked, pa.Table):
        place = asked.column_names.index(time)
        return asked.set_column(place, time, asked[time].cast(pa.timestamp("us", "UTC"))), time
    frame = asked.assign(**{time: pd.to_datetime(asked[time], utc=True)})
    return pa.Table.from_pandas(frame, preserve_index=False), time


def _refused(reason: str) -> FeaturesError:
    return FeaturesError(
        f"{reason} Ask with a data frame of pandas, or a query of DuckDB's, that has a column "
        f"{DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL}; or with None and `end_date` for every entity."
    )


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
    time = DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL
    end = pd.to_datetime(end_date, utc=True)
    requests = pd.DataFrame({time: [end]})
    for view in views:
        names = keys(view)[1]
        if not names:
            continue
        entities = begun(config, view, start_date, end, from_creation)
        how = "outer" if {*names} & {*requests} else "cross"
        requests = requests.merge(entities, how=how)
    return requests.assign(**{time: end}).dropna()
