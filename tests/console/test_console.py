"""The frame of the console, and its pages Now, Models and Dead letters, in a real browser."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from infra.local.stack import Stack
from stream.domain import topics
from stream.kafka.connection import running
from stream.kafka.deadletters import CONNECT, REASON_HEADER
from tests import workers
from tests.console.conftest import ANSWER_MS, Served, aside, console
from tests.workers import title_open, until

pytest.importorskip("playwright", reason="run `make test-console`")

from playwright.sync_api import expect

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

expect.set_options(timeout=ANSWER_MS)

SCRIPT: Final = "<script>alert('mine')</script><img src=x onerror=alert('mine')>"
PHONE: Final = {"width": 390, "height": 844}
PAGES: Final = ("now", "models", "dead-letters")


def send(served: Served, *records: dict[str, Any] | tuple[bytes, bytes]) -> None:
    aside(lambda: workers.send(served.settings, records))


def send_until_it_shows(served: Served, page: Page, shows: str) -> None:
    """Send events until the page says so: it tells rates of the last seconds."""

    def sent() -> bool:
        send(served, *(title_open(f"member-{number}") for number in range(20)))
        time.sleep(1)
        return page.get_by_text(re.compile(shows)).count() > 0

    until(sent, shows)


def test_the_page_tells_what_the_worker_does(served: Served, page: Page) -> None:
    page.goto(served.url)
    expect(page.get_by_role("heading", name="Now", level=1)).to_be_visible()
    expect(page.locator("#connection")).to_have_text("live")
    send_until_it_shows(served, page, "^title open$")
    picture = page.get_by_role("img", name=re.compile("events a second"))
    until(
        lambda: (
            send(served, title_open("me")) is None
            and not re.search(r"– rows|lag – records", picture.get_attribute("aria-label") or "–")
            and re.search(r"p99 [\d.]+ m?s", picture.get_attribute("aria-label") or "") is not None
        ),
        "freshness in the picture",
    )
    expect(page.locator(".box-triton")).to_contain_text(f"version {served.version}")
    lag = page.get_by_role("region", name="Lag by partition")
    expect(lag.locator("tbody tr")).to_have_count(2 * served.settings.topic_partitions)


def test_while_triton_is_stopped_the_page_says_so_and_goes_on_afterwards(
    served: Served, page: Page, stack: Stack
) -> None:
    page.goto(served.url)
    expect(page.locator(".problem")).to_have_count(0)
    stack.stop_program("triton")
    try:
        expect(page.get_by_text("Triton at 127.0.0.1")).to_be_visible()
        send(served, title_open("waiting"))
        expect(page.locator(".box-worker")).to_contain_text("holds its events")
        expect(page.locator(".box-triton")).to_contain_text("doesn't answer")
    finally:
        stack.start("triton")
    expect(page.locator(".problem")).to_have_count(0)
    expect(page.locator(".box-worker")).not_to_contain_text("holds its events")
    expect(page.locator("#connection")).to_have_text("live")


def test_a_console_that_went_away_is_told_and_comes_back_by_itself(
    served: Served, page: Page, tmp_path: Path
) -> None:
    port = served.settings.console_port + 1
    config = served.settings.model_copy(update={"console_port": port})
    with console(config, tmp_path / "console.log") as url:
        page.goto(url)
        expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("#connection")).to_have_text("disconnected, trying again")
    with console(config, tmp_path / "console.log"):
        expect(page.locator("#connection")).to_have_text("live")


def test_models_are_told_as_model_status_does(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/#/models")
    card = page.get_by_role("region", name=f"Version {served.version}", exact=True)
    expect(card).to_contain_text("pinned by INTENT_MODEL_VERSION")
    expect(card).to_contain_text("ready in Triton")
    expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)


def strange_letters(served: Served) -> None:
    """A record that the worker rejects, and one that somebody else made up, both with scripts."""
    send(served, (b"stranger", f'{{"x": "{SCRIPT}"'.encode()))
    dlq = served.settings.topic(topics.BROWSE_DLQ)
    made_up = [(REASON_HEADER, SCRIPT.encode()), (f"{CONNECT}exception.message", SCRIPT.encode())]

    async def produce() -> None:
        async with running(AIOKafkaProducer, served.settings) as producer:
            await producer.send_and_wait(dlq, SCRIPT.encode(), key=b"k", headers=made_up)

    def standing() -> int:
        return len(aside(lambda: workers.records(served.settings, topics.BROWSE_DLQ)))

    aside(lambda: asyncio.run(produce()))
    until(lambda: standing() >= 2, "the dead letters")


def test_scripts_in_dead_letters_stay_text_and_payloads_hidden(served: Served, page: Page) -> None:
    strange_letters(served)
    page.goto(f"{served.url}/#/dead-letters")
    expect(page.get_by_text(SCRIPT).first).to_be_visible()
    expect(page.locator(".bars")).to_contain_text("not_json")
    page.get_by_role("row", name=re.compile("not_json")).get_by_role("link").click()
    expect(page.get_by_role("heading", name="not_json")).to_be_visible()
    expect(page.get_by_text(SCRIPT)).to_have_count(0)
    expect(page.get_by_text("intentstream dlq replay --reason not_json")).to_be_visible()
    page.get_by_role("button", name="Show key, value and headers").click()
    expect(page.get_by_text(SCRIPT)).to_be_visible()
    expect(page.get_by_text("stranger")).to_be_visible()
    # A pasted command holds what a stranger wrote as one word.
    page.goto(f"{served.url}/#/dead-letters")
    quoted = "'" + SCRIPT.replace("'", "'\"'\"'") + "'"
    expect(page.get_by_text(f"intentstream dlq replay --reason {quoted}")).to_be_visible()
    assert page.locator("main script, main img").count() == 0


def test_nothing_is_shown_without_the_token(served: Served, page: Page, tmp_path: Path) -> None:
    token = "a-token-of-more-than-16-characters"
    config = served.settings.model_copy(
        update={
            "console_port": served.settings.console_port + 2,
            "console_token": SecretStr(token),
        }
    )
    with console(config, tmp_path / "console.log") as url:
        for path in ("/", "/#/models", "/api/models", "/static/js/app.js"):
            answer = page.goto(f"{url}{path}")
            assert answer is None or answer.status == 401
            expect(page.get_by_role("navigation")).to_have_count(0)
        page.goto(url)
        page.get_by_label("Token").fill("another")
        page.get_by_role("button").click()
        expect(page.get_by_text("That is not the token.")).to_be_visible()
        page.get_by_label("Token").fill(token)
        page.get_by_role("button").click()
        expect(page.get_by_role("heading", name="Now", level=1)).to_be_visible()
        expect(page.locator("#connection")).to_have_text("live")


def test_all_is_reached_by_the_keyboard(served: Served, page: Page) -> None:
    page.goto(served.url)
    expect(page.locator("#connection")).to_have_text("live")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("d")
    expect(page.get_by_role("heading", name="Dead letters", level=1)).to_be_focused()
    link = page.get_by_role("navigation").get_by_role("link", name="Dead letters")
    expect(link).to_have_attribute("aria-current", "page")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_each_page_in_its_width(
    served: Served, browser: Browser, name: str, scheme: str
) -> None:
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{served.url}/#/{name}")
    expect(page.locator("main > *").nth(1)).to_be_visible()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()


def test_colours_that_were_chosen_stay(served: Served, page: Page) -> None:
    page.goto(served.url)
    page.get_by_role("button", name=re.compile("Colours")).click(click_count=2)
    ink = "getComputedStyle(document.body).color"
    dark = page.evaluate(ink)
    page.reload()
    expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
    assert page.evaluate(ink) == dark


def test_ten_pages_share_what_the_console_reads(served: Served, browser: Browser) -> None:
    contexts = [browser.new_context() for _ in range(10)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.goto(served.url)
    for page in pages:
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.locator(".box-triton")).to_contain_text(f"version {served.version}")
    for context in contexts:
        context.close()
