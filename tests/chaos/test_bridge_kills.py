"""Bridges killed while records stream through them lose nothing and keep each profile's order."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.bridges import bridge, bridged, heartbeat, ids_of, prepared, send, until_bridged
from tests.workers import exit_code

if TYPE_CHECKING:
    from pathlib import Path

    from stream.settings import Settings

KILLS = 3
PROFILES = [f"member-{n}" for n in range(20)]
EACH = 300


@pytest.mark.usefixtures("kafka")
def test_bridges_killed_at_random_lose_nothing_and_keep_each_profiles_order(
    isolated: Settings, tmp_path: Path
) -> None:
    settings = prepared(isolated, bridge_adapter="segment")

    def stream() -> None:
        for number in range(EACH):
            send(settings, [heartbeat(profile, number) for profile in PROFILES])

    sending = threading.Thread(target=stream)
    sending.start()
    moments = random.Random(1)
    for _ in range(KILLS):
        with bridge(settings, tmp_path / "bridge.log") as process:
            time.sleep(moments.uniform(0.2, 2.0))
            process.kill()
            exit_code(process)
    sending.join()
    with bridge(settings, tmp_path / "bridge.log"):
        until_bridged(settings)
    found = bridged(settings)
    for profile in PROFILES:
        assert ids_of(found, profile) == [f"{profile}-{n}" for n in range(EACH)]
