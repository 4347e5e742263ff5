"""Of two Tritons one is lost under load: its profiles' events go on, and nobody waits."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from intentstream.served_versions import served_models
from stream.kafka.admin import create_topics
from tests.traffic import Traffic
from tests.workers import http, lag, online, until, worker

if TYPE_CHECKING:
    from pathlib import Path

    from infra.local.stack import Stack
    from stream.settings import Settings

PROFILES = [f"member-{number}" for number in range(20)]


@pytest.mark.usefixtures("kafka", "redis")
def test_a_model_server_that_hangs_under_load_holds_nothing_up(
    isolated: Settings,
    second_triton: Stack,
    model_repository: Path,
    small_model: str,
    tmp_path: Path,
) -> None:
    addresses = f"{isolated.triton_url},{second_triton.settings.triton_url}"
    settings = isolated.model_copy(
        update={
            "triton_url": addresses,
            "model_version": small_model,
            # What the other one may take on a busy machine.
            "inference_deadline_s": 8.0,
        }
    )
    served_models(settings, model_repository).serve(small_model)
    asyncio.run(create_topics(settings))

    def left() -> bool:
        gone = f'intentstream_model_server_left{{server="{second_triton.settings.triton_url}"}} 1.0'
        return gone in http(settings, "/metrics")[1]

    with worker(settings, tmp_path / "worker.log", wait=True) as process:
        with Traffic(settings, PROFILES, per_s=100) as traffic:
            until(lambda: online(settings, PROFILES[-1]) is not None, "features of all")
            os.kill(second_triton.pid("triton"), signal.SIGSTOP)
            try:
                until(left, "a worker that goes on without it")
                then = dict(traffic.sent)
                until(
                    lambda: all(
                        online(settings, one, "sequence_no") > then[one] for one in PROFILES
                    ),
                    "newer features of all",
                )
                assert (
                    'intentstream_retries_total{dependency="triton"}'
                    not in (http(settings, "/metrics")[1])
                )
            finally:
                os.kill(second_triton.pid("triton"), signal.SIGCONT)
            until(lambda: not left(), "a worker that asks it again")
        until(lambda: lag(settings) == 0, "no lag")
        assert process.poll() is None
    for profile, sent in traffic.sent.items():
        assert online(settings, profile) == traffic.last[profile]
        assert online(settings, profile, "sequence_no") == sent
