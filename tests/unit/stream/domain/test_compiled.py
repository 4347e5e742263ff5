"""Loops are compiled, whether or not there is a place to keep them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stream.domain.compiled import folder_of

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
    assert bool([*kept.rglob("*.nbi")]) is may_write


def test_a_change_of_any_loop_has_all_of_them_compiled_anew(tmp_path: Path) -> None:
    caller, called = tmp_path / "caller.py", tmp_path / "called.py"
    caller.write_text("one")
    called.write_text("two")
    before = folder_of([caller, called])
    assert folder_of([called, caller]) == before
    called.write_text("2wo")
    assert folder_of([caller, called]) != before
