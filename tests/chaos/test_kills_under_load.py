"""Workers killed at random while events stream in lose nothing and make nothing wrong."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq

from lab.replay.checker import check
from lab.replay.plan import Plan, plan_replay, span_s
from lab.replay.producer import Replayed, replay
from lab.simulator import SimulatorParameters, simulate
from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.workers import lag, until, worker

KILLS = 3
REPLAY_S = 45.0


def send_in_background(plan: Plan, settings: Settings, sent: list[Replayed]) -> threading.Thread:
    def send() -> None:
        rate = len(plan) / REPLAY_S
        sent.append(asyncio.run(replay(plan, settings, events_per_s=rate, progress=lambda _: None)))

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_workers_killed_at_random_lose_nothing_and_make_nothing_wrong(
    isolated: Settings, kafka: str, redis: str, served_model: str, tmp_path: Path
) -> None:
    simulate(SimulatorParameters(members=60, days=30), tmp_path)
    events = pq.read_table(tmp_path / "events.parquet")
    lateness_s = math.ceil(span_s(events)) + 3600
    settings = isolated.model_copy(
        update={
            "allowed_lateness_s": lateness_s,
            # So small that whole batches wait, and several are under way when the worker dies.
            "batch_max_events": 8,
            "model_version": served_model,
            "instance_id": "worker-1",
        }
    )
    asyncio.run(create_topics(settings))
    now_ms = round(time.time() * 1000)
    plan = plan_replay(events, seed=1, now_ms=now_ms, lateness_s=lateness_s)
    sent: list[Replayed] = []
    sending = send_in_background(plan, settings, sent)
    moments = random.Random(1)
    log = tmp_path / "worker.log"
    for _ in range(KILLS):
        with worker(settings, log, wait=True) as process:
            time.sleep(moments.uniform(0.5, 4.0))
            process.kill()
    with worker(settings, log, wait=True):
        sending.join()
        until(lambda: lag(settings) == 0, "no lag", within_s=180)
    outcome = check(sent[0].sent, settings)
    assert outcome.ok, outcome.mismatches[:10]
    assert outcome.events_sent == len(plan)
    assert outcome.applied > 1000
