"""Member, Search and Map in a real Chromium, on a real worker, store, Kafka and Triton."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pyarrow as pa
import pytest

from features.reading.reader import IntentReader
from features.reading.rerank import Candidate, Reranker, Weights
from fm_intent.clusters import found_clusters
from fm_intent.data.contract import CATALOGUE_SCHEMA
from fm_intent.export import Carried, export
from intentstream.console.titles import read_titles
from intentstream.served_titles import serve_titles, titles_of
from stream.domain.labels import GENRES
from stream.domain.version_labels import BUILT_IN
from stream.kafka.admin import create_topics
from tests.conftest import isolate
from tests.console.conftest import ANSWER_MS, aside, console
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest
from tests.workers import online, send, title_open, until, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from infra.local.stack import Stack
    from stream.settings import Settings

SCRIPT: Final = "<img src=x onerror='window.harmed=1'><script>window.harmed=1</script>"

expect = pytest.importorskip("playwright.sync_api", reason="run `make test-console`").expect
expect.set_options(timeout=ANSWER_MS)


@pytest.fixture(scope="module")
def version(stack: Stack, triton: str, model_repository: Path) -> str:
    """A served version with clusters, and with titles whose names are strangers' text."""
    data = tiny.sequences()
    model = tiny.network(data)
    rows = [
        {
            "title_id": f"title-{number}",
            "name": f"Tale {number} {SCRIPT}" if number < 3 else f"Tale number {number}",
            "kind": ("movie", "show")[number % 2],
            "genres": [GENRES[number % 5]],
            "release_day": 10_000,
            "duration_s": 3_600.0,
        }
        for number in range(tiny.TITLES)
    ]
    clusters = found_clusters(model, data, data.contexts("test", 64, "served"), seed=0)
    carried = Carried(pa.Table.from_pylist(rows, CATALOGUE_SCHEMA), BUILT_IN)
    made = export(model, manifest(), tiny.windows(data), model_repository, clusters, carried)
    stack.load_model(str(made.version))
    return str(made.version)


@pytest.fixture(scope="module")
def settings(
    stack: Stack,
    kafka: str,
    redis: str,
    version: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """A worker and a console that run for all tests of this module."""
    home = tmp_path_factory.mktemp("console")
    config = isolate(stack.settings, home).model_copy(
        update={
            "model_version": version,
            "triton_models": stack.models,
            "console_may_act": True,
        }
    )
    aside(lambda: asyncio.run(create_topics(config)))
    titles = titles_of(int(version), stack.models, home)
    aside(lambda: serve_titles(config, titles))
    with (
        worker(config, home / "worker.log", wait=True),
        console(config, home / "console.log"),
    ):
        yield config


def address(settings: Settings, path: str) -> str:
    return f"http://127.0.0.1:{settings.console_port}/{path}"


def seen(settings: Settings, profile_id: str, *titles: str) -> None:
    """Have a member look at titles, and wait until its features know of it."""
    now_ms = round(time.time() * 1000)
    events = [
        title_open(profile_id, title_id=title, occurred_at_ms=now_ms + place)
        for place, title in enumerate(titles)
    ]
    aside(lambda: send(settings, events))
    newest = events[-1]["event_id"]
    until(lambda: told(settings, profile_id) == newest, f"features of {profile_id}")


def told(settings: Settings, profile_id: str, feature: str = "last_event_id") -> Any:
    """One feature of a profile as the online store has it."""
    return aside(lambda: online(settings, profile_id, feature))


def member(settings: Settings, page: Page, profile_id: str) -> None:
    page.goto(address(settings, f"#/member/{quote(profile_id, safe='')}"))


def bars(page: Page, head: str) -> list[str]:
    """The labels and probabilities of one head as the page has them."""
    rows = page.locator(f"[data-head={head}] .bar-row")
    expect(rows.first).to_be_visible()
    return [
        f"{row.locator('.label').inner_text()} {row.locator('.p').inner_text()}"
        for row in rows.all()
    ]


def test_the_page_of_a_member_shows_what_the_store_says(settings: Settings, page: Page) -> None:
    seen(settings, "reader", "title-5", "title-6")
    member(settings, page, "reader")
    expect(page.locator(".who .badge").first).to_have_text("fresh")
    (live,) = IntentReader(settings).read(["reader"])
    assert live.row is not None
    kinds = dict(zip(("movie", "show"), live.row.probs["kind"], strict=True))
    shown = dict(one.split(" ", 1) for one in bars(page, "kind"))
    assert {name: float(p.rstrip(" %")) for name, p in shown.items()} == pytest.approx(
        {name: 100 * p for name, p in kinds.items()}, abs=0.6
    )
    names = page.locator(".next .name").all_inner_texts()
    titles = read_titles(settings, live.row.model_version)
    assert names == [titles.of_id(one).name for one in live.row.next_title_ids[: len(names)]]
    steps = page.locator(".steps .step .name")
    expect(steps).to_have_text(["Tale number 6", "Tale number 5"])


def test_of_a_profile_without_features_the_page_says_so(settings: Settings, page: Page) -> None:
    member(settings, page, "nobody at all")
    expect(page.locator(".who .badge").first).to_have_text("absent")
    expect(page.locator(".who")).to_contain_text("no features of this profile")


def test_what_happens_elsewhere_is_on_the_page_without_a_reload(
    settings: Settings, page: Page
) -> None:
    seen(settings, "busy", "title-5")
    member(settings, page, "busy")
    expect(page.locator(".steps .step")).to_have_count(1)
    seen(settings, "busy", "title-7")
    expect(page.locator(".steps .step .name").first).to_have_text("Tale number 7")


def test_acting_as_a_member_moves_its_bars(settings: Settings, page: Page) -> None:
    seen(settings, "actor", "title-5")
    member(settings, page, "actor")
    before = bars(page, "action")
    page.locator(".choice").first.get_by_role("button", name=re.compile("^Play")).click()
    took = page.locator(".log .took")
    expect(took).to_have_text(re.compile(r"in the features after [\d.]+ m?s"))
    expect(page.locator(".steps .step")).to_have_count(2)
    assert bars(page, "action") != before
    assert told(settings, "actor").startswith("console-")


def test_a_search_in_a_member_s_name_is_in_its_window(settings: Settings, page: Page) -> None:
    seen(settings, "searcher", "title-5")
    member(settings, page, "searcher")
    page.get_by_label("Title", exact=True).fill(SCRIPT)
    page.get_by_role("button", name="Search for it").click()
    expect(page.locator(".log .took")).to_contain_text("in the features after")
    expect(page.locator(".steps .step .name").first).to_have_text("Search")
    assert unharmed(page)


def unharmed(page: Page) -> bool:
    return bool(page.evaluate("window.harmed === undefined")) and (
        page.locator("main script, main img").count() == 0
    )


def test_scripts_in_ids_and_titles_stay_text(settings: Settings, page: Page) -> None:
    seen(settings, SCRIPT, "title-0", "title-1")
    page.goto(address(settings, "#/member"))
    person = page.locator(".person .id", has_text="onerror")
    expect(person).to_have_text(SCRIPT)
    person.click()
    expect(page.locator(".who .id")).to_have_text(SCRIPT)
    expect(page.locator(".steps .step .name").first).to_have_text(f"Tale 1 {SCRIPT}")
    assert unharmed(page)
    page.goto(address(settings, f"#/search/{quote(SCRIPT, safe='')}/harmed"))
    expect(page.locator(".ranking .name", has_text="onerror").first).to_be_visible()
    assert unharmed(page)


def ranked(page: Page) -> list[str]:
    return page.locator(".ranking").nth(1).locator(".name").all_inner_texts()


def test_a_search_is_in_the_order_that_the_re_ranker_gives_it(
    settings: Settings, page: Page, version: str
) -> None:
    seen(settings, "seeker", "title-5")
    page.goto(address(settings, "#/search/seeker/number"))
    expect(page.locator(".verdict")).to_contain_text("Re-ranked")
    titles = read_titles(settings, version)
    found = titles.search("number", 30)
    candidates = [Candidate(title.title_id, score) for title, score in found]
    for sliders in (Weights(), Weights(engine_score=0.0, kind_match=2.0)):
        for term in ("engine_score", "kind_match"):
            page.locator(f"#w-{term}").fill(str(getattr(sliders, term)))
        answer = Reranker(settings, sliders).rerank("seeker", candidates)
        names = [titles.of_id(one.title_id).name for one in answer.candidates]
        assert ranked(page) == names
    page.get_by_role("button", name="As the service has them").click()
    expect(page.locator("#w-kind_match")).to_have_value("0.5")


def test_a_member_is_on_the_map_in_the_colour_of_its_cluster(
    settings: Settings, page: Page
) -> None:
    seen(settings, "wanderer", "title-5")
    page.goto(address(settings, "#/map"))
    cluster = told(settings, "wanderer", "intent_cluster")
    expect(page.locator(f".member[data-cluster='{cluster}']").first).to_be_attached()
    assert page.locator(".ground").count() == page.locator(".cluster").count() > 1
    with page.expect_download() as download:
        page.get_by_role("link", name="Segments by minute").click()
    table = download.value.path().read_text()
    assert table.startswith("minute,model_version,cluster")
    assert f",{cluster}," in table


@pytest.mark.parametrize("name", ["member", "search", "map"])
def test_a_phone_needs_no_scrolling_to_the_side(settings: Settings, page: Page, name: str) -> None:
    seen(settings, "phone", "title-5")
    page.set_viewport_size({"width": 360, "height": 740})
    rest = {"member": "/phone", "search": "/phone/number", "map": ""}[name]
    page.goto(address(settings, f"#/{name}{rest}"))
    expect(
        page.locator({"member": ".bar-row", "search": ".hit", "map": ".cluster"}[name]).first
    ).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
