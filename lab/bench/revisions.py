"""The code of another commit, for a benchmark to run beside this one."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream.home import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIT: Final = ("git", "-C", str(HOME))


@contextmanager
def code_of(revision: str) -> Iterator[Path]:
    """The tree of a revision, while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "before")
        worktree = (*_GIT, "worktree")
        subprocess.run(  # noqa: S603 - our own command
            [*worktree, "add", "--detach", str(tree), revision], check=True, capture_output=True
        )
        try:
            yield tree
        finally:
            subprocess.run([*worktree, "remove", "--force", str(tree)], check=True)  # noqa: S603


def commit_of(revision: str = "HEAD") -> str:
    """The whole id of a revision's commit; with a plus sign where HEAD's files were changed."""
    commit = _told("rev-parse", f"{revision}^{{commit}}")
    changed = revision == "HEAD" and _told("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else commit


def _told(*command: str) -> str:
    run = subprocess.run(  # noqa: S603 - our own command
        [*_GIT, *command], check=True, capture_output=True, text=True
    )
    return run.stdout.strip()
