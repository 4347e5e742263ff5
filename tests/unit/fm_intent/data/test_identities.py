"""What events name, a column at a time, is what the session code makes of one."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from fm_intent.data.identities import hashes
from stream.domain.labels import hash64


@given(st.lists(st.none() | st.text()))
def test_hashes_of_a_column_are_those_of_each_text(texts: list[str | None]) -> None:
    expected = [0 if one is None else hash64(one) for one in texts]
    assert hashes(pa.array(texts, pa.string())).tolist() == expected
