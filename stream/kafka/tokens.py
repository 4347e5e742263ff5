"""Tokens for OAUTHBEARER: by OIDC client credentials, or signed for Amazon MSK by its own package.

A process asks for a token once and shows it on every connection, whichever client of it connects,
until a fifth of its lifetime is left. A token that can't be renewed is used until it expires.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import time
from typing import TYPE_CHECKING, Final

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from stream.exceptions import InvalidSettingsError
from stream.settings import KafkaSettings

if TYPE_CHECKING:
    import httpx

_RENEW_AT: Final = 0.8
"""Share of a token's lifetime after which it is renewed, as Kafka's own clients do."""

_PATIENCE_S: Final = 10.0


class NoTokenError(KafkaConnectionError):  # type: ignore[misc]
    """There is no token to connect with; clients of Kafka try again, as without a connection."""


class Authenticator(conn.OAuthAuthenticator):  # type: ignore[misc]
    """Shows a token, and hears when it is refused.

    A broker says first why it refuses a token, and that it does only once that was acknowledged
    (RFC 7628, section 3.2.3). aiokafka (0.14) takes the reason for a welcome, and the refusal for
    the answer to its next request, whatever that was.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """The next answer, and whether another one follows; None when the login is over."""
        if self._token_sent and payload:
            return b"\x01", True
        answer: tuple[bytes, bool] | None = await super().step(payload)
        return answer


conn.OAuthAuthenticator = Authenticator
"""Every connection makes its own by this name; there is no other way to give it one."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and when it was got and expires, in seconds since the epoch."""

    text: SecretStr
    got_s: float
    expires_s: float


class Tokens(AbstractTokenProvider, ABC):  # type: ignore[misc]
    """Keeps a token for all clients of a process, in whatever threads they run.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._token: Token | None = None

    @abstractmethod
    def fetch(self) -> Token:
        """A new token; blocks.

        Raises:
            NoTokenError: when there is none to be had; says what to check.
        """

    async def token(self) -> str:
        """The token to connect with.

        Raises:
            NoTokenError: when there is none that is valid.
        """
        return await asyncio.to_thread(self._current)

    def _current(self) -> str:
        with self._turn:
            kept, now_s = self._token, self._clock()
            if kept is None or now_s >= kept.got_s + _RENEW_AT * (kept.expires_s - kept.got_s):
                try:
                    self._token = self.fetch()
                except NoTokenError:
                    if kept is None or now_s >= kept.expires_s:
                        raise
            assert self._token is not None
            return self._token.text.get_secret_value()


class _Grant(BaseModel):
    """What a token endpoint answers (RFC 6749, section 5.1)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    access_token: SecretStr = Field(min_length=1)
    expires_in: float = Field(0.0, ge=0)
    """In seconds; an endpoint that doesn't tell is asked for every connection."""


class OidcTokens(Tokens):
    """Tokens by the grant of client credentials (RFC 6749, section 4.4).

    Args:
        url: the token endpoint.
        client_id: who asks.
        client_secret: sent in the header, as HTTP Basic.
        scope: what is asked for; None leaves it to the server.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: SecretStr,
        scope: str | None,
        clock: Callable[[], float] = time,
    ) -> None:
        super().__init__(clock)
        self._url = url
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope

    def fetch(self) -> Token:
        """Ask the endpoint."""
        import httpx  # here, because few ask for tokens

        asked_s = self._clock()
        form = {"grant_type": "client_credentials"}
        if self._scope:
            form["scope"] = self._scope
        try:
            answer = httpx.post(
                self._url,
                data=form,
                auth=(self._client_id, self._client_secret.get_secret_value()),
                headers={"Accept": "application/json"},
                timeout=_PATIENCE_S,
                # The system's authorities, as for Kafka itself.
                verify=ssl.create_default_context(),
            )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise NoTokenError(
                f"no answer from the token endpoint {self._url} ({error!r}); "
                "check INTENT_KAFKA_OAUTH_TOKEN_URL"
            ) from error
        if not answer.is_success:
            raise NoTokenError(
                f"the token endpoint {self._url} refused {self._client_id} "
                f"(HTTP {answer.status_code}{_reason(answer)}); check "
                "INTENT_KAFKA_OAUTH_CLIENT_ID, INTENT_KAFKA_OAUTH_CLIENT_SECRET and "
                "INTENT_KAFKA_OAUTH_SCOPE"
            )
        try:
            grant = _Grant.model_validate_json(answer.content)
        except ValidationError as error:
            raise NoTokenError(
                f"what {self._url} answers is no token; check INTENT_KAFKA_OAUTH_TOKEN_URL"
            ) from error
        return Token(grant.access_token, asked_s, asked_s + grant.expires_in)


class AmazonTokens(Tokens):
    """Tokens for Amazon MSK with IAM, by whatever credentials Amazon's own package finds.

    Args:
        region: of the cluster.
        clock: seconds since the epoch.

    Raises:
        InvalidSettingsError: when that package isn't installed.
    """

    def __init__(self, region: str, clock: Callable[[], float] = time) -> None:
        super().__init__(clock)
        self._region = region
        try:
            from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
        except ImportError as error:
            raise InvalidSettingsError(
                "INTENT_KAFKA_OAUTH_AWS_REGION needs the package aws-msk-iam-sasl-signer-python; "
                "install the extra intentstream[aws]"
            ) from error
        self._signer = MSKAuthTokenProvider

    def fetch(self) -> Token:
        """Have one signed."""
        signed_s = self._clock()
        try:
            text, expires_ms = self._signer.generate_auth_token(self._region)
        except Exception as error:
            # Of botocore and of the package, which have no base in common.
            raise NoTokenError(
                f"no token for Amazon MSK in {self._region} ({error!r}); check the process's AWS "
                "credentials and INTENT_KAFKA_OAUTH_AWS_REGION"
            ) from error
        return Token(SecretStr(text), signed_s, expires_ms / 1000)


def tokens(settings: KafkaSettings) -> Tokens:
    """What all clients of this process with these settings get their tokens from.

    Raises:
        InvalidSettingsError: when a package that the settings ask for isn't installed.
    """
    if settings.kafka_oauth_aws_region:
        return _amazon(settings.kafka_oauth_aws_region)
    return _oidc(
        settings.kafka_oauth_token_url or "",
        settings.kafka_oauth_client_id or "",
        settings.kafka_oauth_client_secret or SecretStr(""),
        settings.kafka_oauth_scope,
    )


_amazon = cache(AmazonTokens)
_oidc = cache(OidcTokens)


def _reason(answer: httpx.Response) -> str:
    """The code that the endpoint gives as its reason (RFC 6749, section 5.2), where it does."""
    try:
        code = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f", {code[:80]!r}" if isinstance(code, str) else ""
