"""Two Tritons that share the profiles, and stand in for each other."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import REGISTRY
from tritonclient.grpc import InferenceServerClient

from intentstream.publishing import publish
from intentstream.served_versions import served_models
from stream.exceptions import ModelVersionError
from stream.inference.client import InferenceClient
from stream.inference.placement import placed
from stream.inference.release import Release, write_release
from stream.kafka.admin import create_topics
from tests.conftest import isolate
from tests.integration.test_incremental import counted
from tests.integration.test_inference import infer, windows

if TYPE_CHECKING:
    from infra.local.stack import Stack
    from intentstream.served_versions import ServedModels
    from stream.settings import Settings

LENGTHS = tuple(range(3, 33))


@pytest.fixture
def both(stack: Stack, second_triton: Stack, small_model: str) -> Settings:
    addresses = f"{stack.settings.triton_url}, {second_triton.settings.triton_url}"
    return stack.settings.model_copy(
        update={
            "triton_url": addresses,
            "model_version": small_model,
            # What the one that answers may take on a busy machine.
            "inference_deadline_s": 5.0,
        }
    )


@pytest.fixture
def served(both: Settings, model_repository: Path, small_model: str) -> ServedModels:
    """What both serve, which is the small model to begin with."""
    models = served_models(both, model_repository)
    models.serve(small_model)
    return models


def count(name: str, stacks: tuple[Stack, Stack], version: str) -> list[float]:
    return [counted(stack, version)[name] for stack in stacks]


@pytest.mark.usefixtures("served")
def test_each_keeps_its_own_profiles(
    stack: Stack, second_triton: Stack, both: Settings, small_model: str
) -> None:
    stacks = (stack, second_triton)
    batch = windows(*LENGTHS)
    homes = np.bincount(placed(batch.profile_hash[:, 0], both.triton_urls))
    assert homes.all()
    infer(both, batch)  # another test may have left some of them there
    missed, hit = (count(name, stacks, small_model) for name in ("misses", "hits"))
    infer(both, batch)
    assert count("misses", stacks, small_model) == missed
    assert np.subtract(count("hits", stacks, small_model), hit).tolist() == homes.tolist()


@pytest.mark.usefixtures("served")
def test_one_that_hangs_is_gone_on_without_and_forgets_when_it_is_back(
    stack: Stack, second_triton: Stack, both: Settings, small_model: str
) -> None:
    batch = windows(*LENGTHS)
    address = second_triton.settings.triton_url
    mine = batch.profile_hash[placed(batch.profile_hash[:, 0], both.triton_urls) == 1, 0]

    def left() -> float | None:
        return REGISTRY.get_sample_value("intentstream_model_server_left", {"server": address})

    async def outage() -> None:
        async with InferenceClient(both) as client:
            expected = await client.infer(batch)
            os.kill(second_triton.pid("triton"), signal.SIGSTOP)
            try:
                answers = await client.infer(batch)
                np.testing.assert_allclose(
                    answers.user_embedding, expected.user_embedding, atol=1e-4
                )
                assert left() == 1
                await client.forget(mine[:2])
            finally:
                os.kill(second_triton.pid("triton"), signal.SIGCONT)
            while left():
                await asyncio.sleep(0.1)
            before = counted(second_triton, small_model)["misses"]
            await client.infer(batch)
            assert counted(second_triton, small_model)["misses"] - before == 2

    asyncio.run(asyncio.wait_for(outage(), timeout=600))


def test_a_live_version_that_one_lacks_is_published_again_and_the_other_goes_on(
    stack: Stack,
    second_triton: Stack,
    both: Settings,
    served: ServedModels,
    small_model: str,
    model_repository: Path,
    kafka: str,
    tmp_path: Path,
) -> None:
    settings = isolate(both, tmp_path).model_copy(update={"model_version": ""})
    asyncio.run(create_topics(settings))
    asyncio.run(write_release(settings, Release(live=small_model)))
    batch = windows(*LENGTHS)
    infer(both, batch)
    homes = np.bincount(placed(batch.profile_hash[:, 0], both.triton_urls))
    with InferenceServerClient(second_triton.settings.triton_url) as client:
        client.unload_model(settings.model_name)
    assert served.serving(small_model) == [stack.settings.triton_url]
    asyncio.run(publish(settings, small_model, exports=model_repository))
    assert served.is_served(small_model)
    stacks = (stack, second_triton)
    hit = count("hits", stacks, small_model)
    infer(both, batch)
    assert np.subtract(count("hits", stacks, small_model), hit).tolist() == [homes[0], 0]


def test_a_version_that_one_can_not_load_is_not_served(
    second_triton: Stack, served: ServedModels, small_model: str, model_repository: Path
) -> None:
    # Here, because torch takes seconds to import.
    from fm_intent.export import export
    from tests.unit.fm_intent import tiny
    from tests.unit.fm_intent.test_export import manifest

    sequences = tiny.sequences()
    windows = tiny.windows(sequences)
    another = export(tiny.network(sequences), manifest(), windows, model_repository)
    second_triton.stop_program("triton")
    with pytest.raises(ModelVersionError, match=second_triton.settings.triton_url):
        served.serve(small_model, str(another.version))
    assert served.versions() == [small_model]
    # The one that is away reads the directory when it starts.
    assert served.is_ready(small_model)
    assert not served.is_ready(str(another.version))
