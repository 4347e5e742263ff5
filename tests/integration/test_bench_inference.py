"""The runtimes that the inference benchmark compares do the same work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from fm_intent.model_config import TOP
from fm_intent.served.network import Architecture
from lab.bench.inference import Foreign, full_windows, untrained

if TYPE_CHECKING:
    from pathlib import Path


def test_every_other_runtime_answers_as_the_network_does(tmp_path: Path) -> None:
    model = untrained(Architecture(short_layers=0, item_layers=1))
    windows = full_windows(5, 40)
    with torch.inference_mode():
        answer = model.answer(windows, model.titles(), TOP)
    for (_, runtime), call in Foreign(model, tmp_path).paths(windows).items():
        given: Any = call()
        *_, user = given.values() if isinstance(given, Mapping) else given
        torch.testing.assert_close(
            torch.from_numpy(user), answer.user_BD, atol=1e-4, rtol=1e-4, msg=runtime
        )
