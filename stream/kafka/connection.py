"""How our clients reach Kafka, and what it means when one can't."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.helpers import create_ssl_context
from pydantic import SecretStr

from stream.exceptions import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnavailableError,
    InvalidSettingsError,
    TokenUnavailableError,
)
from stream.kafka.tokens import NoTokenError, tokens
from stream.settings import KafkaSettings

_LOGIN: Final = (SaslAuthenticationFailed, UnsupportedSaslMechanismError)
_REFUSALS: Final[tuple[type[Exception], ...]] = (*_LOGIN, NoTokenError, ssl.SSLError)
_RIGHTS: Final = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
_PATIENCE_S: Final = 15.0
_REFUSAL_MS: Final = 5_000


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """The arguments of every aiokafka client that say where Kafka is and how to connect to it.

    Raises:
        InvalidSettingsError: when a certificate or key can't be read, or a package is missing.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            **_login(settings),
        }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    return options


@asynccontextmanager
async def running(kind: Any, settings: KafkaSettings, **options: Any) -> AsyncIterator[Any]:
    """An aiokafka client of this class that runs while the block does.

    Args:
        kind: consumer, producer or admin client.
        settings: where Kafka is and how to connect to it.
        options: the client's further arguments.

    Raises:
        InvalidSettingsError: when a certificate or key can't be read.
        BrokerRefusedError: when Kafka refuses the login or an operation, or TLS with it fails.
        BrokerUnavailableError: when Kafka does not answer. Both also for errors in the block.
    """
    client = kind(**client_options(settings), **options)
    try:
        await start(client, settings)
        yield client
    except KafkaError as error:
        raise broker_error(settings, error) from error
    finally:
        await _stop(client)


async def start(client: Any, settings: KafkaSettings) -> None:
    """Start an aiokafka client; one that can't be started is stopped.

    Raises:
        BrokerRefusedError: when Kafka refuses the login, or TLS with it fails.
        BrokerUnavailableError: when Kafka does not answer, or takes too long.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await client.start()
    except (KafkaError, TimeoutError) as error:
        await _stop(client)
        # Who is silent refuses nobody.
        refusal = None if isinstance(error, TimeoutError) else await _refusal(settings)
        raise broker_error(settings, refusal or error) from error


@asynccontextmanager
async def answering(settings: KafkaSettings, within_s: float = _PATIENCE_S) -> AsyncIterator[None]:
    """Bounds what the block asks of Kafka: a client that lost its broker may wait for ever.

    Args:
        settings: where Kafka is and how to connect to it.
        within_s: how long the block may take, in seconds.

    Raises:
        BrokerUnavailableError: when the block takes longer, or a client fails in it.
    """
    try:
        async with asyncio.timeout(within_s):
            yield
    except (KafkaError, TimeoutError) as error:
        raise broker_error(settings, error) from error


async def partitions_of(settings: KafkaSettings, *topics: str) -> list[TopicPartition]:
    """The partitions that topics have, whatever the settings say; none of one that isn't there.

    Args:
        settings: where Kafka is and how to connect to it.
        topics: their full names.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    async with running(AIOKafkaAdminClient, settings) as admin:
        described = await admin.describe_topics(list(topics))
    return [
        TopicPartition(topic["topic"], number)
        for topic in described
        for number in range(len(topic["partitions"]))
    ]


def broker_error(settings: KafkaSettings, error: Exception) -> BrokerError:
    """What an aiokafka client's error means, and what to check."""
    where = f"Kafka at {settings.kafka_bootstrap}"
    if isinstance(error, NoTokenError):
        return TokenUnavailableError(f"no connection to {where}: {error.args[0]}")
    if isinstance(error, _LOGIN) and settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return BrokerRefusedError(
            f"{where} refused the token ({error}); check that the listener takes OAUTHBEARER, and "
            "that issuer, audience and INTENT_KAFKA_OAUTH_SCOPE are those that it expects"
        )
    if isinstance(error, _LOGIN):
        return BrokerRefusedError(
            f"{where} refused the login of {settings.kafka_sasl_username} by "
            f"{settings.kafka_sasl_mechanism} ({error}); check INTENT_KAFKA_SASL_USERNAME, "
            "INTENT_KAFKA_SASL_PASSWORD and INTENT_KAFKA_SASL_MECHANISM"
        )
    if isinstance(error, _RIGHTS):
        return BrokerRefusedError(
            f"{where} does not allow it ({error!r}); check the account's ACLs"
        )
    if isinstance(error, ssl.SSLError):
        return BrokerRefusedError(
            f"TLS with {where} failed ({error}); check INTENT_KAFKA_SECURITY_PROTOCOL, "
            "INTENT_KAFKA_SSL_CAFILE and INTENT_KAFKA_SSL_CERTFILE, and that the broker's "
            "certificate names the host in INTENT_KAFKA_BOOTSTRAP"
        )
    what = "did not answer in time" if isinstance(error, TimeoutError) else f"failed ({error!r})"
    return BrokerUnavailableError(
        f"{where} {what}; check that it runs, INTENT_KAFKA_BOOTSTRAP and, for its listener, "
        f"INTENT_KAFKA_SECURITY_PROTOCOL (now {settings.kafka_security_protocol})"
    )


def _login(settings: KafkaSettings) -> dict[str, Any]:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return {"sasl_oauth_token_provider": tokens(settings)}
    return {
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": _plain(settings.kafka_sasl_password),
    }


async def _refusal(settings: KafkaSettings) -> Exception | None:
    """Why the first server that refuses us does: aiokafka only logs it."""
    options = client_options(settings) | {"request_timeout_ms": _REFUSAL_MS}
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers")):
        try:
            (await create_conn(host, port, **options)).close()
        except (KafkaError, OSError) as failure:
            cause: BaseException = failure.__cause__ or failure
            if isinstance(cause, _REFUSALS):
                return cause
    return None


async def _stop(client: Any) -> None:
    await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=settings.kafka_ssl_cafile,
            certfile=settings.kafka_ssl_certfile,
            keyfile=settings.kafka_ssl_keyfile,
            # Without one OpenSSL would ask at the terminal for that of an encrypted key.
            password=_plain(settings.kafka_ssl_key_password) or "",
        )
        return context
    except OSError as error:
        raise InvalidSettingsError(
            f"the keys for TLS with Kafka can't be read ({error}); INTENT_KAFKA_SSL_CAFILE, "
            "INTENT_KAFKA_SSL_CERTFILE and INTENT_KAFKA_SSL_KEYFILE must name PEM files, and "
            "INTENT_KAFKA_SSL_KEY_PASSWORD must fit an encrypted key"
        ) from error


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
