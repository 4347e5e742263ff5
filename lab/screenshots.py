"""Makes the pictures of the console in `docs/images` anew, from a stack that runs.

    make up                          # with a version that was trained on the simulator
    python -m lab.screenshots        # needs what `make test-console` installs

Members of the simulator do in a day what they did in their last weeks, so that there is somebody to
look at; then one of them plays a title, and the pictures show what that moves. Times are of now, so
no two runs give the same bytes.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from aiokafka import AIOKafkaProducer

from fm_intent.data.contract import EVENTS_FILE
from fm_intent.data.sources import prepare
from infra.local.commands import local_stack
from intentstream.paths import LOCAL
from lab.replay.plan import json_objects, sample_profiles
from stream.domain.event_types import BY_NAME, STATELESS
from stream.home import HOME
from stream.kafka.connection import running
from stream.steps import console, step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from playwright.sync_api import Page

    from stream.settings import Settings

IMAGES: Final = HOME / "docs" / "images"
SOURCE: Final = "simulator"
MEMBERS: Final = 120
EVENTS: Final = 150
"""Of a member at most: those that came last."""

_DAY_MS: Final = 20 * 3600 * 1000
_LONGEST_GAP_MS: Final = 3 * 3600 * 1000
_SIZE: Final = {"width": 1240, "height": 1000}
_SETTLED_MS: Final = 1500
_QUERY: Final = "love"


def of_today(events: list[dict[str, Any]], now_ms: int) -> list[dict[str, Any]]:
    """One member's events in their order, with idle times cut short so that a day holds them.

    Args:
        events: of one member, ascending in time.
        now_ms: about a minute after the newest, Unix milliseconds.
    """
    times = [event["occurred_at_ms"] for event in events]
    gaps = [min(to - since, _LONGEST_GAP_MS) for since, to in pairwise(times)]
    scale = min(1.0, _DAY_MS / max(1, sum(gaps)))
    at = now_ms - 60_000
    moved = []
    for event, gap in zip(reversed(events), [0, *reversed(gaps)], strict=True):
        at -= round(gap * scale)
        moved.append(event | {"occurred_at_ms": at})
    return moved[::-1]


def members_of_today(now_ms: int) -> Iterator[list[dict[str, Any]]]:
    """Of each of some simulated members what it did last, as if it were today."""
    table: pa.Table = pq.read_table(prepare(SOURCE, LOCAL) / EVENTS_FILE)
    table = table.filter(pc.invert(pc.is_in(table["event_type"], pa.array(STATELESS))))
    table = sample_profiles(table, seed=1, profiles=MEMBERS)
    table = table.sort_by([("profile_id", "ascending"), ("occurred_at_ms", "ascending")])
    mine = itemgetter("profile_id")
    for _, events in groupby(json_objects(table), key=mine):
        yield of_today([*events][-EVENTS:], now_ms)


async def send(settings: Settings, events: Iterable[dict[str, Any]]) -> int:
    """Send events to their topics; returns how many.

    Raises:
        BrokerUnavailableError: when Kafka does not take them.
    """
    count = 0
    async with running(AIOKafkaProducer, settings, linger_ms=5) as producer:
        for event in events:
            topic = settings.topic(BY_NAME[event["event_type"]].topic)
            await producer.send(topic, orjson.dumps(event), key=event["profile_id"].encode())
            count += 1
        await producer.flush()
    return count


def take_pictures(address: str, profile_id: str) -> None:
    """Open the pages in a browser, act, and write the pictures.

    Args:
        address: of the console, with its slash.
        profile_id: who is looked at.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox doesn't run as root; it opens our own pages alone.
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=_SIZE, color_scheme="light")
        page.goto(f"{address}#/member/{quote(profile_id, safe='')}")
        page.locator(".bar-row").first.wait_for()
        page.locator(".choice").first.wait_for()
        _picture(page, "member-before")
        page.get_by_label("Title", exact=True).fill("horror")
        page.wait_for_timeout(_SETTLED_MS)
        for _ in range(2):
            page.locator(".choice").first.get_by_role("button", name="Finish").click()
            page.locator(".log .took.done").first.wait_for()
        _picture(page, "member-after")
        page.goto(f"{address}#/search/{quote(profile_id, safe='')}/{_QUERY}")
        page.locator(".ranking .why").first.wait_for()
        _picture(page, "search")
        page.goto(f"{address}#/map")
        page.locator(".member").first.wait_for()
        _picture(page, "map")
        browser.close()


def _picture(page: Page, name: str) -> None:
    page.wait_for_timeout(_SETTLED_MS)  # bars and dots have come to rest
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    console.print(f"{path.relative_to(HOME)}: {path.stat().st_size // 1024} KiB")


def main() -> None:
    """Send what members did, and take the pictures."""
    settings = local_stack().settings
    IMAGES.mkdir(parents=True, exist_ok=True)
    members = [*members_of_today(round(time.time() * 1000))]
    with step("send what members did"):
        asyncio.run(send(settings, (event for events in members for event in events)))
    busiest = max(members, key=len)
    take_pictures(f"http://127.0.0.1:{settings.console_port}/", busiest[0]["profile_id"])


if __name__ == "__main__":
    main()
