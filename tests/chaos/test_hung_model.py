"""A model process that hangs under load is replaced, and every event is reflected."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil

from infra.local.stack import Stack
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.conftest import free_settings
from tests.traffic import Traffic
from tests.workers import http, lag, online, until, worker

PROFILES = [f"member-{number}" for number in range(40)]


def test_a_model_process_that_hangs_under_load_costs_no_event(
    isolated: Settings,
    kafka: str,
    redis: str,
    model_repository: Path,
    small_model: str,
    tmp_path: Path,
) -> None:
    # A Triton of its own: others are stopped by other tests, which a guard would not stand.
    with Stack(tmp_path, free_settings(tmp_path), model_repository) as stack:
        stack.start("triton", "guard")
        stack.load_model(small_model)
        settings = isolated.model_copy(
            update={"triton_url": stack.settings.triton_url, "model_version": small_model}
        )
        asyncio.run(create_topics(settings))
        with worker(settings, tmp_path / "worker.log", wait=True) as process:
            with Traffic(settings, PROFILES, per_s=100) as traffic:
                until(lambda: online(settings, PROFILES[-1]) is not None, "features of all")
                server = stack.pid("triton")
                (model,) = psutil.Process(server).children()
                os.kill(model.pid, signal.SIGSTOP)
                until(lambda: http(settings, "/ready")[0] == 503, "a worker that is held up")
                until(lambda: stack.pid("triton") not in (0, server), "a new server")
                stack.wait("triton")
                until(lambda: http(settings, "/ready")[0] == 200, "a worker that goes on")
            until(lambda: lag(settings) == 0, "no lag")
            assert process.poll() is None
    for profile, sent in traffic.sent.items():
        assert online(settings, profile) == traffic.last[profile]
        assert online(settings, profile, "sequence_no") == sent
