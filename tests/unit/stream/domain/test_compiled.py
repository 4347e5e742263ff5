"""Loops are compiled, whether or not there is a place to keep them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from a_loop import doubled
print(doubled(21), bool(doubled.signatures))
"""


@pytest.mark.parametrize("may_write", [True, False])
def test_a_loop_is_compiled_whether_or_not_it_can_be_kept(tmp_path: Path, may_write: bool) -> None:
    (tmp_path / "a_loop.py").write_text(
        "from stream.domain.compiled import compiled\n\n\n"
        "@compiled\ndef doubled(number):\n    return 2 * number\n"
    )
    kept = tmp_path / "kept"
    # A folder can't be made in what is a file, whoever asks.
    place = kept if may_write else tmp_path / "a_loop.py" / "kept"
    ended = subprocess.run(
        [sys.executable, "-c", _CODE, str(tmp_path)],
        env={"NUMBA_CACHE_DIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == ["42", "True"], ended.stderr
    assert kept.exists() is may_write
