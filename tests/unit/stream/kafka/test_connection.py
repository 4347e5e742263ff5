from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from stream.exceptions import BrokerRefusedError, BrokerUnavailableError, InvalidSettingsError
from stream.kafka.connection import broker_error, client_options
from stream.kafka.transport import credentials
from stream.settings import Settings

LOGIN = {
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_sasl_username": "intent",
    "kafka_sasl_password": "hush-hush",
}
OIDC = {
    "kafka_sasl_mechanism": "OAUTHBEARER",
    "kafka_oauth_token_url": "https://login.example.com/token",
    "kafka_oauth_client_id": "intent",
    "kafka_oauth_client_secret": "hush-hush",
}
LOGIN_OPTIONS = {
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_plain_username": "intent",
    "sasl_plain_password": "hush-hush",
}


@pytest.mark.parametrize(
    ("protocol", "given", "login", "has_tls"),
    [
        ("PLAINTEXT", {}, {}, False),
        ("SSL", {}, {}, True),
        ("SASL_PLAINTEXT", LOGIN, LOGIN_OPTIONS, False),
        ("SASL_SSL", LOGIN, LOGIN_OPTIONS, True),
    ],
)
def test_settings_become_a_client_s_arguments(
    protocol: str, given: dict[str, str], login: dict[str, str], has_tls: bool
) -> None:
    options = client_options(
        Settings.model_validate(
            {"kafka_bootstrap": "here:1", "kafka_security_protocol": protocol, **given}
        )
    )
    context = options.pop("ssl_context", None)
    assert options == {"bootstrap_servers": "here:1", "security_protocol": protocol, **login}
    assert (context is not None) == has_tls
    if context:
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("protocol", "given"),
    [
        ("PLAINTEXT", {}),
        ("SSL", {}),
        ("SASL_PLAINTEXT", LOGIN),
        ("SASL_SSL", LOGIN),
        ("SASL_PLAINTEXT", OIDC),
        ("SASL_SSL", OIDC),
    ],
)
def test_faust_s_clients_get_the_same_arguments(protocol: str, given: dict[str, str]) -> None:
    settings = Settings.model_validate({"kafka_security_protocol": protocol, **given})

    def comparable(options: dict[str, Any]) -> dict[str, Any]:
        told = {name: value for name, value in options.items() if name != "ssl_context"}
        return {**told, "has_tls": options.get("ssl_context") is not None}

    options = client_options(settings)
    del options["bootstrap_servers"]
    faust = credentials_to_aiokafka_auth(credentials(settings))
    assert comparable(dict(faust)) == comparable(options)


def test_our_certificate_is_shown_with_its_encrypted_key(tmp_path: Path) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    subject = ("-subj", "/CN=client", "-passout", "pass:hush-hush")
    line = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    files = ("-out", str(certificate), "-keyout", str(key))
    subprocess.run((*line, *subject, *files), check=True, capture_output=True)
    given = {
        "kafka_security_protocol": "SSL",
        "kafka_ssl_certfile": certificate,
        "kafka_ssl_keyfile": key,
    }
    client_options(Settings.model_validate({**given, "kafka_ssl_key_password": "hush-hush"}))
    for password in (None, "wrong"):
        with pytest.raises(InvalidSettingsError, match="INTENT_KAFKA_SSL_KEY_PASSWORD"):
            client_options(Settings.model_validate({**given, "kafka_ssl_key_password": password}))


def test_an_authority_that_can_t_be_read_is_named(tmp_path: Path) -> None:
    settings = Settings(kafka_security_protocol="SSL", kafka_ssl_cafile=tmp_path / "absent.pem")
    with pytest.raises(InvalidSettingsError, match="INTENT_KAFKA_SSL_CAFILE"):
        client_options(settings)


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (SaslAuthenticationFailed("Invalid credentials"), BrokerRefusedError, "SASL_PASSWORD"),
        (TopicAuthorizationFailedError("browse-events"), BrokerRefusedError, "ACLs"),
        (
            ssl.SSLCertVerificationError("self-signed"),
            BrokerRefusedError,
            "INTENT_KAFKA_SSL_CAFILE",
        ),
        (KafkaConnectionError("nobody"), BrokerUnavailableError, "INTENT_KAFKA_BOOTSTRAP"),
    ],
)
def test_what_failed_says_what_to_check(
    error: Exception, kind: type[BrokerUnavailableError], advice: str
) -> None:
    settings = Settings.model_validate({"kafka_security_protocol": "SASL_SSL", **LOGIN})
    told = broker_error(settings, error)
    assert type(told) is kind
    assert advice in str(told)
    assert "hush-hush" not in str(told)
