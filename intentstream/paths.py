"""Where the checkout and the files that it makes for itself are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
LOCAL: Final = REPOSITORY / ".local"
"""Everything that set-up and the local stack write; `make clean` removes it."""

KAFKA_LIBS: Final = LOCAL / "kafka" / "libs"
TRITON_BACKENDS: Final = LOCAL / "triton" / "backends"
MODEL_REPOSITORY: Final = REPOSITORY / "model_repo"
