"""A model version of a release before, in a Triton of this one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from infra.local.stack import Stack
from stream.domain.prediction import Intents
from stream.inference.client import InferenceClient
from stream.settings import Settings
from tests.written_before import samples


def test_it_is_served_and_answers_as_it_did(
    isolated: Settings, stack: Stack, triton: str, model_repository: Path
) -> None:
    version = str(samples.unpack_version(model_repository))
    stack.load_model(version)
    settings = isolated.model_copy(update={"model_version": version})

    async def ask() -> Intents:
        async with InferenceClient(settings) as client:
            return await client.infer(samples.windows())

    answer = asyncio.run(ask()).tensors()
    wanted = samples.answers()
    assert set(np.unique(answer["intent_cluster"])) <= {0, 1, 2}
    for name in wanted.keys() - {"intent_cluster"}:
        np.testing.assert_allclose(answer[name], wanted[name], rtol=1e-4, atol=1e-4, err_msg=name)
