"""A repartition that is killed anywhere and run again loses nothing and ends the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from infra.local.programs import worker_environment
from stream.domain import codec
from stream.domain.rules import Rules
from stream.exceptions import PartitionsChangedError
from stream.kafka.admin import create_topics
from stream.kafka.partitioners import partition_of
from stream.kafka.topology import Topology, read_topology, settle_topology
from stream.settings import Settings
from tests.changelogs import AT_MS, read_states, state, write_states

PROFILES = 600
WAS, NOW = 4, 6


BOUNDARIES = (1, 4)
"""Deliveries after which it dies: states that are written and not yet gone elsewhere, or both."""


def test_a_repartition_killed_anywhere_loses_no_state(isolated: Settings, kafka: str) -> None:
    asyncio.run(create_topics(isolated))
    wanted, written = {}, {}
    for number in range(PROFILES):
        profile = f"member-{number}"
        key = profile.encode()
        was, now = (partition_of(key, "crc32", count) for count in (WAS, NOW))
        wanted[key] = written[key, was] = state(profile, range(1 + number % 90))
        if was != now < WAS and number % 2:
            # It has begun there anew: keys move between the old partitions, too.
            written[key, now] = state(profile, range(90, 92))
            wanted[key] = wanted[key].joined(written[key, now], Rules())
    write_states(isolated, written)

    def run(module: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **worker_environment(isolated)}
        return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment)

    for deliveries in BOUNDARIES:
        dies = run("tests.chaos.crashing_repartition", str(deliveries), str(NOW))
        assert dies.wait(timeout=90) == -signal.SIGKILL
    with pytest.raises(PartitionsChangedError, match="being moved to 6 partitions"):
        asyncio.run(settle_topology(isolated, NOW))
    moments = random.Random(1)
    for _ in range(2):
        dies = run("intentstream", "repartition")
        time.sleep(moments.uniform(0.5, 3.0))
        dies.kill()
        dies.wait()
    assert run("intentstream", "repartition").wait(timeout=90) == 0

    states = read_states(isolated)
    assert states.keys() == {(key, partition_of(key, "crc32", NOW)) for key in wanted}
    for (key, _), kept in states.items():
        assert kept.data == codec.encode(wanted[key])
        assert kept.at_ms == max(
            AT_MS + len(one.window) for (of, _), one in written.items() if of == key
        )
    known = asyncio.run(read_topology(isolated))
    assert known == Topology(partitions=NOW, partitioner="crc32")
    asyncio.run(settle_topology(isolated, NOW))
