"""The code of another commit lies in a folder of its own while it is needed."""

from __future__ import annotations

import subprocess

from lab.bench.revisions import code_of, commit_of
from stream.home import HOME


def test_the_tree_of_a_revision_is_there_while_the_block_runs_and_gone_afterwards() -> None:
    with code_of("HEAD") as tree:
        assert (tree / "stream" / "home.py").exists()
    assert not tree.exists()
    worktrees = subprocess.run(
        ["git", "-C", str(HOME), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert str(tree) not in worktrees.stdout


def test_a_commit_is_told_by_its_whole_id() -> None:
    assert len(commit_of().removesuffix("+")) == 40
    assert commit_of("HEAD^{commit}") == commit_of().removesuffix("+")
