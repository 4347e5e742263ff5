"""The product on an Apache Kafka that wants TLS, and a login, a token or a certificate."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import pytest
from pydantic import SecretStr

from infra.local.programs import KAFKA_LIBS, programs
from infra.local.stack import Stack
from stream.domain import codec, topics
from stream.domain.events import decode
from stream.domain.profile_state import ProfileState
from stream.domain.rules import Rules
from stream.exceptions import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnavailableError,
    TokenUnavailableError,
)
from stream.kafka.admin import create_topics
from stream.kafka.outbox import Outbox, Outgoing
from stream.kafka.preflight import check_topics
from stream.ports import free_ports
from stream.settings import Settings
from tests.conftest import isolate
from tests.sinks import unlanded
from tests.tokens import CLIENT, SECRET, Endpoint, endpoint, unsecured_token
from tests.workers import exit_code, lag, online, records, send, title_open, until, worker

_EC: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
_PASSWORD: Final = "hush-hush"


def certificate(home: Path, name: str, *extensions: str, authority: str | None = None) -> None:
    """Make `<name>.pem` and `<name>.key`, signed by `authority`, or by itself."""
    signer = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key") if authority else ()
    line = ("openssl", "req", "-x509", *_EC, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    more = (option for extension in extensions for option in ("-addext", extension))
    subprocess.run(
        (*line, "-subj", f"/CN={name}", *signer, *more), cwd=home, check=True, capture_output=True
    )


def secured(home: Path, broker: int, controller: int, login: int, token: int, mutual: int) -> str:
    """A broker's properties beside those of the local stack, of which they take the place.

    At the port `login` it takes users by password, at `token` by an unsecured token, at `mutual` by
    certificate, all over TLS. A connection by token ends when the token expires. Everything is
    allowed to "intent" and "client", and nothing to "guest".
    """
    ports = {"BROKER": broker, "LOGIN": login, "TOKEN": token, "MUTUAL": mutual}
    listeners = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    module = "org.apache.kafka.common.security"
    users = f'user_intent="{_PASSWORD}" user_guest="{_PASSWORD}"'
    return "\n".join(
        (
            f"listeners={listeners},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners={listeners}",
            "listener.security.protocol.map="
            "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,TOKEN:SASL_SSL,MUTUAL:SSL",
            "listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
            "listener.name.login.plain.sasl.jaas.config="
            f"{module}.plain.PlainLoginModule required {users};",
            "listener.name.login.scram-sha-512.sasl.jaas.config="
            f"{module}.scram.ScramLoginModule required;",
            "listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER",
            "listener.name.token.oauthbearer.sasl.jaas.config="
            f"{module}.oauthbearer.OAuthBearerLoginModule required;",
            "listener.name.token.oauthbearer.connections.max.reauth.ms=3600000",
            "listener.name.mutual.ssl.client.auth=required",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={home / 'keystore.pem'}",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={home / 'authority.pem'}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS;User:intent;User:CN=client",
            "",
        )
    )


class Ways(NamedTuple):
    """Settings for the three ways into the broker."""

    login: Settings
    token: Settings
    certificate: Settings


@pytest.fixture(scope="module")
def token_endpoint() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


@pytest.fixture(scope="module")
def kafka(
    stack: Stack, token_endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ways]:
    """The stack's settings, but for a secured Kafka that takes the place of the stack's."""
    home = tmp_path_factory.mktemp("secured")
    certificate(home, "authority")
    for name in ("server", "client"):
        leaf = ("subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE")
        certificate(home, name, *leaf, authority="authority")
    pair = (home / "server.key").read_text() + (home / "server.pem").read_text()
    (home / "keystore.pem").write_text(pair)

    plain, controller, login, token, mutual = free_ports(5)
    ports = {"kafka_port": plain, "kafka_controller_port": controller}
    program = programs(home, stack.settings.model_copy(update=ports))["kafka"]
    program.prepare()
    with Path(program.command[-1]).open("a") as properties:
        properties.write(secured(home, plain, controller, login, token, mutual))
    with (home / "kafka.log").open("wb") as log:
        process = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *program.command), stdout=log, stderr=log
        )
    try:
        until(program.is_ready, f"a secured Kafka; see {home / 'kafka.log'}")
        line = ("java", "-XX:TieredStopAtLevel=1", "-cp", f"{KAFKA_LIBS}/*")
        server = ("kafka.admin.ConfigCommand", "--bootstrap-server", f"127.0.0.1:{plain}")
        user = ("--alter", "--entity-type", "users", "--entity-name", "intent")
        credential = ("--add-config", f"SCRAM-SHA-512=[password={_PASSWORD}]")
        subprocess.run((*line, *server, *user, *credential), check=True, capture_output=True)
        yield Ways(
            stack.settings.model_copy(
                update={
                    "kafka_bootstrap": f"127.0.0.1:{login}",
                    "kafka_security_protocol": "SASL_SSL",
                    "kafka_sasl_mechanism": "SCRAM-SHA-512",
                    "kafka_sasl_username": "intent",
                    "kafka_sasl_password": SecretStr(_PASSWORD),
                    "kafka_ssl_cafile": home / "authority.pem",
                }
            ),
            stack.settings.model_copy(
                update={
                    "kafka_bootstrap": f"127.0.0.1:{token}",
                    "kafka_security_protocol": "SASL_SSL",
                    "kafka_sasl_mechanism": "OAUTHBEARER",
                    "kafka_oauth_token_url": token_endpoint.url,
                    "kafka_oauth_client_id": CLIENT,
                    "kafka_oauth_client_secret": SecretStr(SECRET),
                    "kafka_oauth_scope": "kafka",
                    "kafka_ssl_cafile": home / "authority.pem",
                }
            ),
            stack.settings.model_copy(
                update={
                    "kafka_bootstrap": f"127.0.0.1:{mutual}",
                    "kafka_security_protocol": "SSL",
                    "kafka_ssl_cafile": home / "authority.pem",
                    "kafka_ssl_certfile": home / "client.pem",
                    "kafka_ssl_keyfile": home / "client.key",
                }
            ),
        )
    finally:
        process.terminate()
        exit_code(process)


def test_a_worker_behind_a_login_recovers_its_state_and_carries_an_event_to_features(
    kafka: Ways, redis: str, served_model: str, tmp_path: Path
) -> None:
    settings = isolate(kafka.login, tmp_path).model_copy(update={"model_version": served_model})
    asyncio.run(create_topics(settings))
    event = title_open("member")
    before = title_open("member", occurred_at_ms=event["occurred_at_ms"] - 1)
    send(settings, [event])
    (sent,) = records(settings, topics.BROWSE_EVENTS)

    async def leave_state_behind() -> None:
        state = ProfileState()
        taken = decode(
            topics.BROWSE_EVENTS, b"member", orjson.dumps(before), broker_time_ms=sent.timestamp
        )
        state.apply(taken, Rules())
        changelog = topics.SESSIONS_CHANGELOG
        async with Outbox(settings) as outbox:
            await outbox.deliver(
                [Outgoing(changelog, sent.partition, b"member", codec.encode(state))]
            )

    asyncio.run(leave_state_behind())
    log = tmp_path / "worker.log"
    with worker(settings, log, wait=True):
        until(lambda: online(settings, "member") == event["event_id"], "the event in the features")
        assert online(settings, "member", "sequence_no") == 2
        until(lambda: lag(settings) == 0, "no lag")
    assert _PASSWORD not in log.read_text()


def test_a_worker_and_a_sink_with_tokens_go_on_when_those_expire(
    kafka: Ways, token_endpoint: Endpoint, redis: str, served_model: str, tmp_path: Path
) -> None:
    settings = isolate(kafka.token, tmp_path).model_copy(
        update={"model_version": served_model, "sink_interval_s": 0.2}
    )
    asyncio.run(create_topics(settings))
    logs = [tmp_path / "worker.log", tmp_path / "sink.log"]
    token_endpoint.lifetime_s = 8
    with (
        worker(settings, logs[0], wait=True),
        worker(settings, logs[1], "intentstream", "sink"),
    ):
        for _ in range(3):
            renewed = len(token_endpoint.issued) + 2
            until(lambda renewed=renewed: len(token_endpoint.issued) >= renewed, "new tokens")
            event = title_open("member")
            send(settings, [event])
            until(lambda event=event: online(settings, "member") == event["event_id"], "the event")
        until(lambda: lag(settings) == 0, "no lag")
        until(lambda: unlanded(settings) == 0, "all rows landed")
    assert set(token_endpoint.issued) == {"kafka"}
    assert not [log for log in logs if SECRET in log.read_text() or "eyJ" in log.read_text()]


def test_who_gets_no_token_is_told_what_to_check(
    kafka: Ways, token_endpoint: Endpoint, tmp_path: Path
) -> None:
    settings = isolate(kafka.token, tmp_path)
    wrong = {"kafka_oauth_client_secret": SecretStr("wrong-one")}
    with pytest.raises(TokenUnavailableError, match="INTENT_KAFKA_OAUTH_CLIENT_SECRET") as refused:
        asyncio.run(check_topics(settings.model_copy(update=wrong)))
    assert "wrong-one" not in str(refused.value)
    stale = {"kafka_oauth_scope": "stale"}
    token_endpoint.fault = (200, f'{{"access_token": "{unsecured_token(CLIENT, -60)}"}}'.encode())
    try:
        with pytest.raises(
            BrokerRefusedError, match=r"refused the token.*INTENT_KAFKA_OAUTH_SCOPE"
        ):
            asyncio.run(check_topics(settings.model_copy(update=stale)))
    finally:
        token_endpoint.fault = None


def test_a_password_over_tls_gets_in(kafka: Ways, tmp_path: Path) -> None:
    works(isolate(kafka.login, tmp_path).model_copy(update={"kafka_sasl_mechanism": "PLAIN"}))


def test_a_certificate_gets_in(kafka: Ways, tmp_path: Path) -> None:
    works(isolate(kafka.certificate, tmp_path))


def works(settings: Settings) -> None:
    asyncio.run(create_topics(settings))
    send(settings, [title_open("member")])
    assert len(records(settings, topics.BROWSE_EVENTS)) == 1


@pytest.mark.parametrize(
    ("changed", "kind", "advice"),
    [
        (
            {"kafka_sasl_password": SecretStr("wrong")},
            BrokerRefusedError,
            "INTENT_KAFKA_SASL_PASSWORD",
        ),
        (
            {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
            BrokerRefusedError,
            "INTENT_KAFKA_SASL_MECHANISM",
        ),
        ({"kafka_ssl_cafile": None}, BrokerRefusedError, "INTENT_KAFKA_SSL_CAFILE"),
        (
            {"kafka_security_protocol": "SSL"},
            BrokerUnavailableError,
            "INTENT_KAFKA_SECURITY_PROTOCOL",
        ),
        (
            {"kafka_security_protocol": "PLAINTEXT"},
            BrokerUnavailableError,
            "INTENT_KAFKA_SECURITY_PROTOCOL",
        ),
        (
            {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "guest"},
            BrokerRefusedError,
            "ACLs",
        ),
    ],
)
def test_who_is_refused_is_told_what_to_check(
    kafka: Ways,
    tmp_path: Path,
    changed: dict[str, Any],
    kind: type[BrokerError],
    advice: str,
) -> None:
    with pytest.raises(BrokerError, match=advice) as refused:
        asyncio.run(check_topics(isolate(kafka.login, tmp_path).model_copy(update=changed)))
    assert type(refused.value) is kind


def test_a_client_without_its_certificate_is_told_which_is_missing(
    kafka: Ways, tmp_path: Path
) -> None:
    without = {"kafka_ssl_certfile": None, "kafka_ssl_keyfile": None}
    settings = isolate(kafka.certificate, tmp_path).model_copy(update=without)
    with pytest.raises(BrokerRefusedError, match="INTENT_KAFKA_SSL_CERTFILE"):
        asyncio.run(check_topics(settings))
