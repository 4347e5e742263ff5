"""What strangers wrote is shown as it is, whatever it would do to a terminal, a table or a log."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from stream.plain_text import PlainConsole, json_text, log_plainly, visible, visible_lines
from tests.checkout import REPOSITORY

NASTY = "[/b]\x1b[2J\x9b31m\u202eevil\u2028\ud800\x7f\r\n:boom:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Kiki's Delivery Service – 魔女の\u3000宅急便 [1989] 🧹", None),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\tb\r\nc", r"a\tb\r\nc"),
        ("\u202eevil\u2066\u200b", r"\u202eevil\u2066\u200b"),
        ("\x85\x9b\u2028\ud800", r"\x85\x9b\u2028\ud800"),
        ("tag\U000e0041", r"tag\U000e0041"),
    ],
)
def test_what_can_t_be_seen_is_an_escape_and_the_rest_stays(
    text: str, expected: str | None
) -> None:
    assert visible(text) == (text if expected is None else expected)


@given(st.text(alphabet=st.characters()))
def test_nothing_invisible_is_left(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert not set(shown) & set("\x1b\x9b\u202e\r\n\u2028\x7f")


@given(st.recursive(st.text() | st.integers(-9, 9), lambda inner: st.lists(inner, max_size=3)))
def test_json_stays_the_same_json(value: object) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert visible(text) == text


def test_a_console_prints_strangers_text_wherever_it_stands() -> None:
    console = PlainConsole(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    table = Table(NASTY, title=NASTY)
    table.add_row(NASTY)
    console.print(table)
    console.print(f"done with {NASTY}")
    told = console.file.getvalue()  # type: ignore[attr-defined]
    shown = r"[/b]\x1b[2J\x9b31m\u202eevil\u2028\ud800\x7f\r"
    assert told.count(shown) == 4
    assert told.count(":boom:") == 4
    assert not set(told) & set("\x1b\x9b\u202e\r\u2028")


@pytest.fixture
def plain_logs() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    log_plainly()
    yield
    logging.setLogRecordFactory(before)


def test_no_message_and_no_error_in_a_log_passes_for_another_line(plain_logs: None) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log = logging.Logger("strangers")
    log.addHandler(handler)
    log.warning("Passed over: %s", "x\nERROR all is lost\x1b[2J")
    try:
        raise ValueError("bad\nERROR all is lost\x1b[2J")
    except ValueError:
        log.exception("It failed")
    starts = [line.split()[0] for line in out.getvalue().splitlines() if line[0] != " "]
    assert starts == ["WARNING", "ERROR", "Traceback"]
    assert r"    ERROR all is lost\x1b[2J" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_lines_of_an_error_stay_lines() -> None:
    assert visible_lines("one\ntwo\x07") == "one\n    two\\x07"


def test_there_is_no_other_console() -> None:
    folders = ("stream", "features", "fm_intent", "intentstream", "infra", "lab")
    others = [
        path
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.py")
        if re.search(r"\bConsole\(\)|\brich import print\b", path.read_text())
    ]
    assert others == []
