"""Send simulated members' events to Kafka, as their players and apps would."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from lab.replay.plan import Mix, plan_replay, span_s
from lab.replay.producer import replay
from lab.simulator.output import generate
from stream.steps import console, progress

if TYPE_CHECKING:
    from lab.simulator.parameters import SimulatorParameters
    from stream.settings import Settings


def send(
    parameters: SimulatorParameters,
    settings: Settings,
    *,
    events_per_s: float | None = None,
    speed_up: float | None = None,
) -> int:
    """Simulate, then send every event once and in order of time; the hidden truth stays here.

    All event times are shifted by one constant, so that the newest lies a second before now.

    Args:
        parameters: What the members are like.
        settings: Kafka's address and the topics' prefix and number of partitions.
        events_per_s: Steady rate of sending.
        speed_up: Send at the pace of event time, so many times as fast. With neither, events go as
            fast as Kafka takes them.

    Returns:
        How many events were sent.

    Raises:
        BrokerUnavailableError: When Kafka does not take a record.
    """
    with progress("members", parameters.members) as advance:
        events = generate(parameters, advance).events
    lateness_s = span_s(events)
    if lateness_s > settings.allowed_lateness_s:
        console.print(
            f"Events reach back {lateness_s / 86_400:,.1f} days: workers reject what is older "
            f"than INTENT_ALLOWED_LATENESS_S, which is {settings.allowed_lateness_s:,} s here."
        )
    plan = plan_replay(
        events,
        seed=parameters.seed,
        now_ms=round(time.time() * 1000),
        lateness_s=lateness_s,
        mix=Mix(repeats=0, disorder=0, too_late=0, malformed=0),
    )
    with progress("events", len(plan)) as advance:
        asyncio.run(
            replay(plan, settings, events_per_s=events_per_s, speed_up=speed_up, progress=advance)
        )
    return len(plan)
