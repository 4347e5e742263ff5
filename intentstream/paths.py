"""Where the files are that the command line makes for itself."""

from __future__ import annotations

from typing import Final

from stream.home import HOME

LOCAL: Final = HOME / ".local"
"""Prepared data, runs, and what set-up and the local stack write."""

MODEL_REPOSITORY: Final = HOME / "model_repo"
"""Versions are exported into it, and published from it."""
