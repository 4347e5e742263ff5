from __future__ import annotations

import asyncio
from typing import Any, Final

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from intentstream.console.app import create_app
from intentstream.console.security import COOKIE, MOST_BODY_BYTES, Guard
from stream.exceptions import InvalidSettingsError
from stream.settings import Settings

TOKEN: Final = "a-token-of-more-than-16-characters"
SECRET: Final = "what only those see who may"
WEB: Final = "https://console.example.com"


async def _secret(_: Request) -> Response:
    return PlainTextResponse(SECRET)


def asked(
    method: str = "GET",
    path: str = "/api/secret",
    *,
    settings: Settings | None = None,
    base: str = "http://127.0.0.1:9467",
    peer: str = "127.0.0.1",
    **request: Any,
) -> httpx.Response:
    """The answer of a guarded app that has a secret at every address."""
    app = Starlette(routes=[Route("/{path:path}", _secret, methods=["GET", "POST", "DELETE"])])
    guard = Guard(app, settings or Settings())
    transport = httpx.ASGITransport(guard, client=(peer, 40_000))

    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **request)

    return asyncio.run(answer())


def guarded(**more: Any) -> Settings:
    return Settings(console_host="0.0.0.0", console_token=TOKEN, **more)


def test_on_loopback_everybody_of_this_machine_sees_it() -> None:
    assert asked().text == SECRET
    assert asked(base="http://localhost:9467").text == SECRET
    assert asked(base="http://[::1]:9467").text == SECRET


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.com", "", "[", "10.0.0.1"])
def test_a_name_of_another_that_leads_to_loopback_sees_nothing(host: str) -> None:
    answer = asked(headers={"Host": host})
    assert answer.status_code == 421
    assert SECRET not in answer.text


def test_beyond_loopback_it_does_not_start_without_a_token() -> None:
    with pytest.raises(InvalidSettingsError, match="INTENT_CONSOLE_TOKEN"):
        create_app(Settings(console_host="0.0.0.0"))
    create_app(guarded())


def test_a_trusted_proxy_that_is_no_address_is_told() -> None:
    with pytest.raises(InvalidSettingsError, match="INTENT_CONSOLE_TRUSTED_PROXIES"):
        create_app(Settings(console_trusted_proxies="proxy.example.com"))


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        Settings(console_token="short")


@pytest.mark.parametrize(
    "path", ["/", "/api/now/live", "/api/models", "/static/js/app.js", "/docs", "/anything"]
)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_without_the_token_nothing_is_shown(path: str, accept: str) -> None:
    answer = asked(path=path, settings=guarded(), base=WEB, headers={"Accept": accept})
    assert answer.status_code == 401
    assert SECRET not in answer.text


@pytest.mark.parametrize("shown", [TOKEN[:-1], TOKEN + "x", "", TOKEN.upper(), "é" * 20])
def test_another_token_shows_nothing(shown: str) -> None:
    headers = {"Authorization": f"Bearer {shown}".encode()}
    answer = asked(settings=guarded(), base=WEB, headers=headers)
    assert answer.status_code == 401
    assert SECRET not in answer.text


def test_the_token_shows_it() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert asked(settings=guarded(), base=WEB, headers=headers).text == SECRET


def test_a_token_is_asked_for_on_loopback_too_where_there_is_one() -> None:
    assert asked(settings=Settings(console_token=TOKEN)).status_code == 401


def test_whoever_logs_in_gets_a_cookie_that_scripts_and_other_sites_do_not_have() -> None:
    answer = asked("POST", "/login", settings=guarded(), base=WEB, data={"token": TOKEN})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" in cookie
    assert TOKEN not in cookie
    value = cookie.split(";")[0]
    assert asked(settings=guarded(), base=WEB, headers={"Cookie": value}).text == SECRET


def test_a_cookie_of_another_token_shows_nothing() -> None:
    answer = asked("POST", "/login", settings=guarded(), base=WEB, data={"token": TOKEN})
    value = answer.headers["set-cookie"].split(";")[0]
    other = Settings(console_host="0.0.0.0", console_token="another-token-of-16-characters")
    for cookie in (value, f"{COOKIE}=", f"{COOKIE}={TOKEN}", "=;;="):
        assert asked(settings=other, base=WEB, headers={"Cookie": cookie}).status_code == 401


def test_a_wrong_token_logs_nobody_in() -> None:
    answer = asked("POST", "/login", settings=guarded(), base=WEB, data={"token": "wrong"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


PROXIED: Final = Settings(
    console_host="0.0.0.0",
    console_trusted_header="X-Forwarded-User",
    console_trusted_proxies="10.1.0.0/16",
)
USER: Final = {"X-Forwarded-User": "ada"}


def test_a_proxy_says_who_looks() -> None:
    assert asked(settings=PROXIED, base=WEB, peer="10.1.2.3", headers=USER).text == SECRET


def test_nobody_but_the_proxy_says_who_looks() -> None:
    assert asked(settings=PROXIED, base=WEB, peer="10.2.0.1", headers=USER).status_code == 401
    assert asked(settings=PROXIED, base=WEB, peer="10.1.2.3").status_code == 401
    empty = asked(settings=PROXIED, base=WEB, peer="10.1.2.3", headers={"X-Forwarded-User": ""})
    assert empty.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:9467"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "http://[", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_another_site_writes_nothing(headers: dict[str, str]) -> None:
    for method in ("POST", "DELETE"):
        answer = asked(method, headers=headers, content=b"")
        assert answer.status_code == 403
        assert SECRET not in answer.text


def test_our_own_page_writes() -> None:
    headers = {"Origin": "http://127.0.0.1:9467", "Sec-Fetch-Site": "same-origin"}
    assert asked("POST", headers=headers, content=b"{}").text == SECRET


def test_another_site_loads_nothing_but_may_lead_here() -> None:
    loads = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert asked(headers=loads).status_code == 403
    leads = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert asked(headers=leads).text == SECRET


def test_a_body_without_bounds_is_refused_unread() -> None:
    assert asked("POST", content=b"x" * (MOST_BODY_BYTES + 1)).status_code == 413
    assert asked("POST", content=b"x" * MOST_BODY_BYTES).text == SECRET

    async def endless() -> Any:
        yield b"x"

    assert asked("POST", content=endless()).status_code == 413


@pytest.mark.parametrize("path", ["/api/secret", "/login"])
@pytest.mark.parametrize("headers", [{}, {"Host": "evil.com"}])
def test_every_answer_forbids_scripts_that_are_not_ours(path: str, headers: dict[str, str]) -> None:
    told = asked(path=path, headers=headers).headers
    policy = told["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert told["x-content-type-options"] == "nosniff"
    assert told["cache-control"] == "no-store"
