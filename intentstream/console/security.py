"""Who may see the console, and what a browser may do with what it serves.

On loopback everybody of this machine may look; a page of another site may not, neither by a request
of its own nor by a name of its own that leads to 127.0.0.1 (DNS rebinding). Anywhere else one shows
the token, or comes through a proxy that says who it is.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from stream.exceptions import InvalidSettingsError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stream.settings import ConsoleSettings

MOST_BODY_BYTES: Final = 64 * 1024
"""Of a request; a larger one is refused unread."""

LOGIN: Final = "/login"
COOKIE: Final = "intentstream_console"

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer` a form of our own would come from the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer."""

_OPEN: Final = frozenset({LOGIN, "/health", "/static/console.css"})
"""What one sees without the token: how to show it, and that the process lives."""

_READING: Final = frozenset({"GET", "HEAD"})
_OURS: Final = frozenset({"same-origin", "none"})

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>intentstream</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/static/console.css"></head>
<body class="login"><main><h1>intentstream</h1>
<form method="post" action="/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open the console</button>
<p role="alert">{problem}</p>
<p class="quiet">It is the value of INTENT_CONSOLE_TOKEN where the console runs.</p>
</form></main></body></html>"""


def check_exposure(settings: ConsoleSettings) -> None:
    """Check that nobody beyond this machine sees the console without saying who it is.

    Raises:
        InvalidSettingsError: when it would bind beyond loopback without a token or a proxy's
            header, or a trusted proxy is no address.
    """
    _proxies(settings)
    if not _is_loopback(settings.console_host) and not _is_guarded(settings):
        raise InvalidSettingsError(
            f"the console would be open to whoever reaches {settings.console_host}; set "
            "INTENT_CONSOLE_TOKEN (`openssl rand -hex 32` makes one), or behind a proxy that tells "
            "who looks INTENT_CONSOLE_TRUSTED_HEADER, or leave INTENT_CONSOLE_HOST on 127.0.0.1"
        )


class Guard:
    """Refuses what isn't allowed before the app sees it, and puts `HEADERS` on every answer.

    Args:
        app: what is guarded.
        settings: who may see it.
    """

    def __init__(self, app: ASGIApp, settings: ConsoleSettings) -> None:
        self._app = app
        self._settings = settings
        self._proxies = _proxies(settings)
        token = settings.console_token
        self._token = token.get_secret_value().encode() if token else None
        self._pass = (
            hmac.new(self._token, COOKIE.encode(), hashlib.sha256).hexdigest()
            if self._token
            else None
        )
        """What the cookie holds: made of the token, but not the token."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the app answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        request = Request(scope, receive)
        answer = self._refusal(request)
        if answer is None and request.url.path == LOGIN:
            answer = await self._login(request)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Why a request is not answered; None where it is."""
        headers = request.headers
        if not _is_guarded(self._settings) and not _is_loopback(_name(headers.get("host", ""))):
            return _problem(421, "ask for the console by the name localhost, or by 127.0.0.1")
        if not _comes_from_us(request):
            return _problem(403, "the console takes no requests of other sites")
        if request.method not in _READING and not _is_small(headers):
            return _problem(413, f"send at most {MOST_BODY_BYTES} bytes, with their length")
        if request.url.path in _OPEN or self._may_see(request):
            return None
        if request.method in _READING and "text/html" in headers.get("accept", ""):
            return HTMLResponse(_PAGE.format(problem=""), 401)
        return _problem(401, "show the token, as Authorization: Bearer, or log in at /login")

    def _may_see(self, request: Request) -> bool:
        settings = self._settings
        if not _is_guarded(settings):
            return True
        if settings.console_trusted_header and request.headers.get(settings.console_trusted_header):
            peer = request.client.host if request.client else ""
            if _is_in(peer, self._proxies):
                return True
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(shown):
            return True
        return self._pass is not None and _same(_cookie(request.headers), self._pass)

    def _is_token(self, shown: str) -> bool:
        return self._token is not None and _same(shown, self._token)

    async def _login(self, request: Request) -> Response:
        if request.method in _READING:
            return HTMLResponse(_PAGE.format(problem=""))
        if request.method != "POST":
            return _problem(405, "log in by POST")
        fields = parse_qs((await request.body()).decode(errors="replace"))
        if not self._is_token(fields.get("token", [""])[0]):
            return HTMLResponse(_PAGE.format(problem="That is not the token."), 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            self._pass or "",
            httponly=True,
            samesite="strict",
            # Who fakes the header gets a cookie that comes back by TLS alone.
            secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
        )
        return answer


def _comes_from_us(request: Request) -> bool:
    """Whether one of our pages sent it, or no page at all: a person, or a program."""
    site = request.headers.get("sec-fetch-site")
    if request.method in _READING:
        # Following a link hither is fine; whatever another page loads from here isn't.
        follows = request.headers.get("sec-fetch-mode") == "navigate"
        return site is None or site in _OURS or follows
    origin = request.headers.get("origin")
    if origin is None:
        return site is None or site in _OURS
    own = request.headers.get("host", "").lower()
    return site in (None, *_OURS) and origin.lower() in (f"http://{own}", f"https://{own}")


def _is_small(headers: Headers) -> bool:
    length = headers.get("content-length", "")
    return length.isascii() and length.isdigit() and int(length) <= MOST_BODY_BYTES


def _is_guarded(settings: ConsoleSettings) -> bool:
    return bool(settings.console_token or settings.console_trusted_header)


def _proxies(
    settings: ConsoleSettings,
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    named = settings.console_trusted_proxies
    try:
        return [ipaddress.ip_network(one.strip()) for one in named.split(",") if one.strip()]
    except ValueError as error:
        raise InvalidSettingsError(f"INTENT_CONSOLE_TRUSTED_PROXIES: {error}") from error


def _is_in(peer: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The host in a `Host` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _same(shown: str, secret: str | bytes) -> bool:
    known = secret.encode() if isinstance(secret, str) else secret
    return hmac.compare_digest(shown.encode(errors="replace"), known)


def _problem(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)
