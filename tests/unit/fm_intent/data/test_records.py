from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fm_intent.data import records as module
from fm_intent.data.records import records
from stream.adapters.adapter import Files
from stream.exceptions import BadRecordError, DataUnusableError, Reason

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = Files(within=(("response", "data"),))
_json = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


def read(file: Path, text: str | bytes, format: str = "jsonl", files: Files = Files()) -> list[Any]:  # noqa: A002, B008
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(records(str(file), format, files))


def test_lines_of_json_are_records_and_a_broken_one_says_why(tmp_path: Path) -> None:
    first, broken, last = read(tmp_path / "a.jsonl", '{"a": 1}\n{"a": \n\n{"a": 2}\n')
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert isinstance(broken, BadRecordError)
    assert broken.reason is Reason.NOT_JSON


def test_a_broken_first_line_costs_that_line_alone(tmp_path: Path) -> None:
    broken, whole = read(tmp_path / "a.jsonl", '{"a": \n{"a": 2}\n')
    assert isinstance(broken, BadRecordError)
    assert whole == {"a": 2}


@given(items=st.lists(st.dictionaries(st.text(max_size=3), _json, max_size=3), max_size=8))
def test_an_array_gives_its_items_however_it_is_cut(
    items: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("array") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", 3)
        assert read(file, "\ufeff " + json.dumps(items, indent=1)) == items


def test_an_array_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    whole, broken = read(tmp_path / "a.json", '[{"a": 1}, {"a": ')
    assert whole == {"a": 1}
    assert "breaks off" in str(broken)


@pytest.mark.parametrize("indent", [None, 2])
def test_records_within_a_document_are_found(tmp_path: Path, indent: int | None) -> None:
    answer = {"response": {"result": "success", "data": [{"a": 1}, {"a": 2}]}}
    text = json.dumps(answer, indent=indent)
    assert read(tmp_path / "a.json", text, files=ANSWER) == [{"a": 1}, {"a": 2}]


def test_a_document_alone_is_a_record(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", '{\n "a": 1\n}\n') == [{"a": 1}]


def test_rows_of_csv_are_named_by_the_header(tmp_path: Path) -> None:
    text = '\ufeffname;title\nAda;"Dark: a; b"\nAda\n'
    row, short = read(tmp_path / "a.csv", text, "csv")
    assert row == {"name": "Ada", "title": "Dark: a; b"}
    assert "1 fields where 2 must be" in str(short)


def test_a_table_without_a_header_has_the_columns_of_its_format(tmp_path: Path) -> None:
    files = Files(delimiter="\t", columns=("id", "name"))
    assert read(tmp_path / "a.tsv", '7\tThe "Best"\n', "csv", files) == [
        {"id": "7", "name": 'The "Best"'}
    ]


def test_rows_of_parquet_keep_their_types(tmp_path: Path) -> None:
    time = datetime(2024, 5, 4, tzinfo=UTC)
    rows = [{"t": time, "s": {"x": [1.5]}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(records(str(tmp_path / "a.parquet"), "parquet", Files())) == rows


def test_packed_files_of_any_file_system_are_read() -> None:
    with fsspec.open("memory://theirs/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    assert list(records("memory://theirs/a.jsonl.gz", "jsonl", Files())) == [{"a": 1}, {"a": 2}]


def test_a_file_that_is_not_of_its_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataUnusableError, match=r"a\.parquet can't be read as parquet"):
        read(tmp_path / "a.parquet", "no parquet", "parquet")
