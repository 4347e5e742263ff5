"""Where this checkout is. Tests are no part of an installation, so they may count folders."""

from __future__ import annotations

from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
