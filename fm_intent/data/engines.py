"""What runs the query of `fm_intent.data.joining`: DuckDB in this process, or Spark."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import ibis
import pyarrow as pa

from fm_intent.data.identities import IDENTITIES, identities

EngineName = Literal["duckdb", "spark"]

MEMORY_MIB: Final = 1_000
"""That DuckDB may hold before it writes to temporary files; Python holds some more."""

_TEXTS, _NUMBERS = 4, 2
"""Arguments of `identities`."""


class Engine(Protocol):
    """Runs queries over Parquet files."""

    def table(self, files: Sequence[Path]) -> ibis.Table:
        """The rows of these files; a column that a file lacks is null in its rows."""

    def values(self, columns: Mapping[str, pa.Array]) -> ibis.Table:
        """A small table from memory."""

    def write(self, rows: ibis.Table, folder: Path) -> None:
        """Keep `rows`, in their order, as Parquet files in `folder`, which is made."""

    def batches(self, rows: ibis.Table) -> Iterator[pa.RecordBatch]:
        """`rows` in their order."""


@contextmanager
def engine(name: EngineName, spill: Path) -> Iterator[Engine]:
    """An engine to run queries with.

    Args:
        name: `duckdb`; or `spark`, as its own configuration says where: in this machine's processes
            where it says nothing.
        spill: folder that DuckDB may make, for what doesn't fit its memory.
    """
    if name == "duckdb":
        embedded = ibis.duckdb.connect(memory_limit=f"{MEMORY_MIB}MiB", temp_directory=str(spill))
        embedded.con.execute("SET enable_progress_bar = false")  # that of days is shown already
        try:
            yield _DuckDB(embedded)
        finally:
            embedded.disconnect()
    else:
        yield _Spark()


class _DuckDB:
    def __init__(self, connected: Any) -> None:
        self._ibis = connected
        self._ibis.con.create_function(
            "identities",
            _identities_of_chunks,
            ["VARCHAR"] * _TEXTS + ["BIGINT"] * _NUMBERS,
            f"STRUCT({', '.join(f'{name} BIGINT' for name in IDENTITIES)})",
            type="arrow",
            null_handling="special",
        )

    def table(self, files: Sequence[Path]) -> ibis.Table:
        names = list(map(str, files))
        return self._ibis.read_parquet(names, union_by_name=True, hive_partitioning=False)

    def values(self, columns: Mapping[str, pa.Array]) -> ibis.Table:
        name = ibis.util.gen_name("values")
        self._ibis.con.register(name, pa.table(dict(columns)))
        return self._ibis.table(name)

    def write(self, rows: ibis.Table, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._ibis.to_parquet(rows, folder / "0.parquet", compression="zstd")

    def batches(self, rows: ibis.Table) -> Iterator[pa.RecordBatch]:
        # Not ibis' own way, which calls what DuckDB 2 has no more.
        yield from self._ibis.con.sql(self._ibis.compile(rows)).to_arrow_reader(131_072)


class _Spark:
    def __init__(self) -> None:
        from pyspark.sql import SparkSession
        from pyspark.sql.functions import PandasUDFType, pandas_udf

        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        self._session = SparkSession.builder.appName("intentstream data build").getOrCreate()
        self._ibis = ibis.pyspark.connect(self._session)
        fields = ", ".join(f"{name} long" for name in IDENTITIES)
        function = pandas_udf(_identities_of_series, fields, PandasUDFType.SCALAR)
        self._session.udf.register("identities", function)

    def table(self, files: Sequence[Path]) -> ibis.Table:
        name = ibis.util.gen_name("files")
        frame = self._session.read.option("mergeSchema", "true").parquet(*map(str, files))
        frame.createOrReplaceTempView(name)
        return self._ibis.table(name)

    def values(self, columns: Mapping[str, pa.Array]) -> ibis.Table:
        return ibis.memtable(pa.table(dict(columns)))

    def write(self, rows: ibis.Table, folder: Path) -> None:
        self._ibis.to_parquet(rows, folder)

    def batches(self, rows: ibis.Table) -> Iterator[pa.RecordBatch]:
        yield from self._ibis.to_pyarrow_batches(rows)


def _identities_of_chunks(
    event_id: pa.ChunkedArray,
    playback_id: pa.ChunkedArray,
    title_id: pa.ChunkedArray,
    device: pa.ChunkedArray,
    season: pa.ChunkedArray,
    episode: pa.ChunkedArray,
) -> pa.StructArray:
    columns = (event_id, playback_id, title_id, device, season, episode)
    return identities(*(one.combine_chunks() for one in columns))


def _identities_of_series(*columns: Any) -> Any:
    texts = (pa.array(one, pa.string(), from_pandas=True) for one in columns[:_TEXTS])
    numbers = (pa.array(one, pa.int64()) for one in columns[_TEXTS:])
    found = identities(*texts, *numbers)
    return pa.Table.from_struct_array(found).to_pandas()
