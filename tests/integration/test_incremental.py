"""One event costs one position, at the real server: what its metrics say and what it answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
import torch
from tritonclient.grpc import InferenceServerClient

from fm_intent.export import export
from fm_intent.model_config import TOP
from fm_intent.served.network import Interactions
from tests.integration.test_model_serving import Request, assert_answers, infer, inputs
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.served.test_network import one_window
from tests.unit.fm_intent.test_export import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fm_intent.served.network import FMIntent
    from infra.local.stack import Stack

SETTLED_S = 0.3
"""Three times as long as the server leaves between two counts."""

COUNTERS = ("hits", "misses", "evictions", "positions")


@pytest.fixture(scope="module")
def models() -> list[FMIntent]:
    """Two networks that answer differently."""
    one, other = tiny.network(tiny.sequences()), tiny.network(tiny.sequences())
    with torch.no_grad():
        other.title.weight += 0.1
    return [one, other]


@pytest.fixture(scope="module")
def versions(models: list[FMIntent], model_repository: Path) -> list[str]:
    golden = tiny.windows(tiny.sequences())
    return [str(export(model, manifest(), golden, model_repository).version) for model in models]


@pytest.fixture(scope="module")
def client(triton: str, stack: Stack, versions: list[str]) -> Iterator[InferenceServerClient]:
    stack.load_model(versions[0])
    with InferenceServerClient(triton) as connected:
        yield connected


def request(model: FMIntent, profile: int, x: Interactions) -> Request:
    rows = len(x.length_B)
    return {
        "title_hash": model.hash_T[x.title_BL].numpy(),
        "action": x.action_BL.int().numpy(),
        "start_ms": x.start_ms_BL.numpy(),
        "watched_share": x.watched_share_BL.numpy(),
        "device": x.device_BL.int().numpy(),
        "length": x.length_B.int().numpy()[:, None],
        "profile_hash": np.full((rows, 1), profile),
        "sequence_no": np.zeros((rows, 1), np.int64),
    }


def part(x: Interactions, start: int, end: int) -> Interactions:
    columns = [column[:, start:end] for column in x[:-1]]
    return Interactions(*columns, torch.tensor([end - start]))


def counted(stack: Stack, version: str) -> dict[str, float]:
    """The cache's counters for a version, as Prometheus reads them, of all that was answered."""
    time.sleep(SETTLED_S)
    with urlopen(f"http://127.0.0.1:{stack.settings.triton_metrics_port}/metrics") as page:
        lines = page.read().decode().splitlines()
    return {
        name: sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(f"fm_intent_cache_{name}_total{{") and f'version="{version}"' in line
        )
        for name in COUNTERS
    }


def ask(
    client: InferenceServerClient, stack: Stack, version: str, model: FMIntent, x: Interactions
) -> dict[str, float]:
    """What a window costs the server, whose answer must be the network's."""
    before = counted(stack, version)
    result = infer(client, request(model, 77, x))
    assert result.get_response().model_version == version
    with torch.inference_mode():
        assert_answers(result, model.answer(_known(model, x), model.titles(), TOP))
    return {name: now - before[name] for name, now in counted(stack, version).items()}


def _known(model: FMIntent, x: Interactions) -> Interactions:
    """As the server knows it: by hashes, which the unknown title shares with none at all."""
    return x._replace(title_BL=model.rows(model.hash_T[x.title_BL]))


def test_a_profile_s_events_cost_what_they_change(
    client: InferenceServerClient, stack: Stack, versions: list[str], models: list[FMIntent]
) -> None:
    x = one_window(64)
    whole = part(x, 0, 40)
    late = Interactions(
        *(torch.cat([column[:, :30], column[:, 31:40]], dim=1) for column in x[:-1]),
        torch.tensor([39]),
    )
    goes_on = part(x, 0, 41)
    goes_on = goes_on._replace(watched_share_BL=goes_on.watched_share_BL.clone())
    goes_on.watched_share_BL[0, -1] = 0.99
    steps = {
        "first seen": (late, 39),
        "a late event": (whole, 10),
        "a new event": (part(x, 0, 41), 1),
        "a sitting that goes on": (goes_on, 1),
        "nothing new": (goes_on, 1),
        "a dropped block": (part(x, 32, 64), 32),
    }
    for step, (window, positions) in steps.items():
        cost = ask(client, stack, versions[0], models[0], window)
        reused = window.length_B.item() > positions
        assert cost == {
            "hits": float(reused),
            "misses": float(not reused),
            "evictions": 0.0,
            "positions": float(positions),
        }, step


def test_a_profile_is_forgotten_on_request(
    client: InferenceServerClient, stack: Stack, versions: list[str], models: list[FMIntent]
) -> None:
    x = part(one_window(20, seed=8), 0, 20)
    ask(client, stack, versions[0], models[0], x)
    forget = request(models[0], 77, part(x, 0, 1))
    forget["sequence_no"][:] = -1
    infer(client, forget)
    assert ask(client, stack, versions[0], models[0], x)["misses"] == 1


def test_another_version_does_not_answer_from_the_cache_of_the_one_before(
    client: InferenceServerClient, stack: Stack, versions: list[str], models: list[FMIntent]
) -> None:
    x = part(one_window(20, seed=5), 0, 20)
    for number in (0, 1, 0):
        stack.load_model(versions[number])
        assert ask(client, stack, versions[number], models[number], x)["misses"] == 1
        assert ask(client, stack, versions[number], models[number], x)["hits"] == 1


def test_a_version_loaded_beside_another_leaves_that_one_s_cache_warm(
    client: InferenceServerClient,
    stack: Stack,
    versions: list[str],
    models: list[FMIntent],
    model_repository: Path,
) -> None:
    golden = tiny.windows(tiny.sequences())
    live = str(export(models[0], manifest(), golden, model_repository).version)
    stack.load_model(live)
    window = inputs(request(models[0], 78, part(one_window(20, seed=9), 0, 20)))
    client.infer("fm_intent", window, model_version=live)
    for served in ((versions[0], live), (live,)):
        stack.load_model(*served)
        before = counted(stack, live)
        client.infer("fm_intent", window, model_version=live)
        assert counted(stack, live)["hits"] == before["hits"] + 1


def test_a_server_that_was_restarted_answers_alike(
    client: InferenceServerClient, stack: Stack, versions: list[str], models: list[FMIntent]
) -> None:
    stack.load_model(versions[0])
    x = part(one_window(20, seed=6), 0, 20)
    ask(client, stack, versions[0], models[0], x)
    stack.restart("triton")
    assert ask(client, stack, versions[0], models[0], x)["misses"] == 1


def test_the_size_of_the_cache_is_told(
    client: InferenceServerClient, stack: Stack, versions: list[str]
) -> None:
    stack.load_model(versions[0])
    with urlopen(f"http://127.0.0.1:{stack.settings.triton_metrics_port}/metrics") as page:
        lines = page.read().decode().splitlines()
    sizes = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("fm_intent_cache_") and f'version="{versions[0]}"' in line
    }
    profiles, each = (
        sizes[f"fm_intent_cache_{name}"] for name in ("capacity_profiles", "profile_bytes")
    )
    host = psutil.virtual_memory().total
    assert (256 << 20) // each <= profiles <= max(256 << 20, 0.25 * host) // each
