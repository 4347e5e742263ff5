from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
from pydantic import SecretStr

from stream.exceptions import InvalidSettingsError, TokenUnavailableError
from stream.kafka.connection import broker_error, client_options
from stream.kafka.tokens import AmazonTokens, NoTokenError, OidcTokens
from stream.settings import Settings
from tests.tokens import CLIENT, SECRET, Endpoint, endpoint


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with endpoint() as running:
        running.lifetime_s = 100
        yield running


def tokens(server: Endpoint, clock: Clock, secret: str = SECRET) -> OidcTokens:
    return OidcTokens(server.url, CLIENT, SecretStr(secret), "kafka", clock)


def test_a_token_is_kept_until_a_fifth_of_its_lifetime_is_left(server: Endpoint) -> None:
    clock = Clock()
    provider = tokens(server, clock)
    first = asyncio.run(provider.token())
    clock.now_s += 79
    assert asyncio.run(provider.token()) == first
    assert server.issued == ["kafka"]
    clock.now_s += 1
    asyncio.run(provider.token())
    assert len(server.issued) == 2


def test_clients_in_several_threads_share_a_token(server: Endpoint) -> None:
    provider = tokens(server, Clock())
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: asyncio.run(provider.token()), range(8)))
    assert len(set(got)) == len(server.issued) == 1


def test_a_token_that_can_not_be_renewed_is_used_until_it_expires(server: Endpoint) -> None:
    clock = Clock()
    provider = tokens(server, clock)
    first = asyncio.run(provider.token())
    server.fault = (503, b"")
    clock.now_s += 99
    assert asyncio.run(provider.token()) == first
    clock.now_s += 1
    with pytest.raises(NoTokenError, match="HTTP 503"):
        asyncio.run(provider.token())


def test_a_token_of_unknown_lifetime_is_asked_for_each_time(server: Endpoint) -> None:
    server.fault = (200, b'{"access_token": "one"}')
    provider = tokens(server, Clock())
    assert asyncio.run(provider.token()) == "one"
    server.fault = (200, b'{"access_token": "two"}')
    assert asyncio.run(provider.token()) == "two"


@pytest.mark.parametrize(
    ("secret", "fault", "advice"),
    [
        ("wrong-one", None, "HTTP 401, 'invalid_client'.*INTENT_KAFKA_OAUTH_CLIENT_SECRET"),
        (SECRET, (500, b"<html>"), "HTTP 500.*INTENT_KAFKA_OAUTH_SCOPE"),
        (SECRET, (200, b"<html>"), "is no token; check INTENT_KAFKA_OAUTH_TOKEN_URL"),
        (SECRET, (200, b'{"access_token": ""}'), "is no token"),
    ],
)
def test_an_endpoint_that_gives_no_token_is_named_with_what_to_check(
    server: Endpoint, secret: str, fault: tuple[int, bytes] | None, advice: str
) -> None:
    server.fault = fault
    with pytest.raises(NoTokenError, match=advice) as refused:
        asyncio.run(tokens(server, Clock(), secret).token())
    told = broker_error(Settings(), refused.value)
    assert type(told) is TokenUnavailableError
    assert server.url in str(told)
    assert secret not in str(told)


def test_an_endpoint_that_is_not_there_is_named() -> None:
    absent = OidcTokens("http://127.0.0.1:1/token", CLIENT, SecretStr(SECRET), None)
    with pytest.raises(NoTokenError, match=r"127\.0\.0\.1:1.*INTENT_KAFKA_OAUTH_TOKEN_URL"):
        asyncio.run(absent.token())


def amazon() -> Settings:
    return Settings.model_validate(
        {
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "OAUTHBEARER",
            "kafka_oauth_aws_region": "eu-west-1",
        }
    )


def test_amazon_s_package_signs_tokens_that_are_kept_until_shortly_before_they_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    regions = []

    class MSKAuthTokenProvider:
        @staticmethod
        def generate_auth_token(region: str) -> tuple[str, int]:
            regions.append(region)
            return f"token-{len(regions)}", round((clock.now_s + 900) * 1000)

    module = ModuleType("aws_msk_iam_sasl_signer")
    vars(module)["MSKAuthTokenProvider"] = MSKAuthTokenProvider
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", module)
    provider = AmazonTokens("eu-west-1", clock)
    assert [asyncio.run(provider.token()) for _ in range(2)] == ["token-1"] * 2
    clock.now_s += 720
    assert asyncio.run(provider.token()) == "token-2"
    assert regions == ["eu-west-1"] * 2
    assert isinstance(client_options(amazon())["sasl_oauth_token_provider"], AmazonTokens)


def test_credentials_that_amazon_s_package_does_not_find_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class MSKAuthTokenProvider:
        @staticmethod
        def generate_auth_token(region: str) -> tuple[str, int]:
            raise ValueError("no credentials")

    module = ModuleType("aws_msk_iam_sasl_signer")
    vars(module)["MSKAuthTokenProvider"] = MSKAuthTokenProvider
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", module)
    with pytest.raises(NoTokenError, match=r"no credentials.*AWS credentials"):
        asyncio.run(AmazonTokens("eu-west-1").token())


def test_the_extra_that_amazon_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    with pytest.raises(InvalidSettingsError, match=r"intentstream\[aws\]"):
        AmazonTokens("eu-west-1")
