from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream.exceptions import InvalidSettingsError
from stream.settings import Settings, settings

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
CERTIFICATE = {"kafka_ssl_certfile": "client.pem", "kafka_ssl_keyfile": "client.key"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"kafka_security_protocol": "SSL"},
        {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": "ca.pem"},
        {"kafka_security_protocol": "SSL", **CERTIFICATE},
        {"kafka_security_protocol": "SSL", "kafka_ssl_certfile": "with-its-key.pem"},
        {"kafka_security_protocol": "SASL_PLAINTEXT", **LOGIN},
        {"kafka_security_protocol": "SASL_SSL", **LOGIN},
        {"kafka_security_protocol": "SASL_SSL", **LOGIN, **CERTIFICATE},
        {"kafka_security_protocol": "SASL_SSL", **OIDC},
        {"kafka_security_protocol": "SASL_SSL", **OIDC, "kafka_oauth_scope": "kafka"},
        {
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "OAUTHBEARER",
            "kafka_oauth_aws_region": "eu-west-1",
        },
    ],
)
def test_a_whole_set_of_kafka_s_security_is_taken(given: dict[str, str]) -> None:
    Settings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (
            {"kafka_security_protocol": "SASL_SSL"},
            "SASL_SSL needs INTENT_KAFKA_SASL_MECHANISM, INTENT_KAFKA_SASL_PASSWORD, "
            "INTENT_KAFKA_SASL_USERNAME too",
        ),
        *(
            (
                {"kafka_security_protocol": "SASL_PLAINTEXT", **LOGIN, missing: None},
                f"SASL_PLAINTEXT needs INTENT_{missing.upper()} too",
            )
            for missing in LOGIN
        ),
        (LOGIN, "set INTENT_KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT"),
        (
            {"kafka_security_protocol": "SSL", **LOGIN},
            "set INTENT_KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT",
        ),
        (
            {"kafka_ssl_cafile": "ca.pem"},
            "INTENT_KAFKA_SSL_CAFILE would not be used with PLAINTEXT; set "
            "INTENT_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL",
        ),
        (
            {"kafka_security_protocol": "SASL_PLAINTEXT", **LOGIN, **CERTIFICATE},
            "set INTENT_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL",
        ),
        (
            {"kafka_security_protocol": "SSL", "kafka_ssl_keyfile": "client.key"},
            "set INTENT_KAFKA_SSL_CERTFILE",
        ),
        (
            {"kafka_security_protocol": "SSL", "kafka_ssl_key_password": "hush-hush"},
            "set INTENT_KAFKA_SSL_CERTFILE",
        ),
        ({"kafka_security_protocol": "TLS"}, "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
        (
            {"kafka_security_protocol": "SASL_SSL", **LOGIN, "kafka_sasl_mechanism": "GSSAPI"},
            "'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512' or 'OAUTHBEARER'",
        ),
        *(
            (
                {"kafka_security_protocol": "SASL_SSL", **OIDC, missing: None},
                f"SASL_SSL needs INTENT_{missing.upper()} too",
            )
            for missing in ("kafka_oauth_token_url", "kafka_oauth_client_secret")
        ),
        (
            {"kafka_security_protocol": "SASL_SSL", **OIDC, "kafka_sasl_username": "intent"},
            "INTENT_KAFKA_SASL_USERNAME would not be used with OAUTHBEARER",
        ),
        (
            {"kafka_security_protocol": "SASL_SSL", **OIDC, "kafka_oauth_aws_region": "eu-west-1"},
            "INTENT_KAFKA_OAUTH_CLIENT_ID, INTENT_KAFKA_OAUTH_CLIENT_SECRET, "
            "INTENT_KAFKA_OAUTH_TOKEN_URL would not be used with OAUTHBEARER of Amazon",
        ),
        (
            {"kafka_security_protocol": "SASL_SSL", **LOGIN, "kafka_oauth_scope": "kafka"},
            "INTENT_KAFKA_OAUTH_SCOPE would not be used with SCRAM-SHA-512",
        ),
        (OIDC, "set INTENT_KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT"),
        (
            {
                "kafka_security_protocol": "SASL_SSL",
                **OIDC,
                "kafka_oauth_token_url": "login.example.com",
            },
            "kafka_oauth_token_url",
        ),
    ],
)
def test_security_that_does_not_go_together_is_refused_with_what_to_set(
    given: dict[str, str], advice: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate(given)
    assert advice in str(refused.value)
    assert "hush-hush" not in str(refused.value)


def test_passwords_are_not_printed() -> None:
    given = Settings.model_validate({"kafka_security_protocol": "SASL_SSL", **LOGIN})
    assert "hush-hush" not in repr(given)


def test_addresses_that_are_not_set_follow_the_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENT_KAFKA_PORT", "9192")
    monkeypatch.setenv("INTENT_REDIS_PORT", "6479")
    monkeypatch.setenv("INTENT_TRITON_GRPC_PORT", "8101")
    given = Settings()
    assert given.kafka_bootstrap == "127.0.0.1:9192"
    assert given.redis_url.get_secret_value() == "127.0.0.1:6479"
    assert given.triton_urls == ("127.0.0.1:8101",)


def test_an_address_that_is_set_stays_whatever_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENT_KAFKA_BOOTSTRAP", "kafka:19092")
    monkeypatch.setenv("INTENT_KAFKA_PORT", "9192")
    assert Settings().kafka_bootstrap == "kafka:19092"


def test_an_empty_variable_counts_as_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENT_CATALOGUE", "")
    monkeypatch.setenv("INTENT_KAFKA_BOOTSTRAP", "")
    given = Settings()
    assert given.catalogue is None
    assert given.kafka_bootstrap == f"127.0.0.1:{given.kafka_port}"


def test_a_wrong_variable_is_named_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENT_KAFKA_PORT", "many")
    monkeypatch.setenv("INTENT_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    settings.cache_clear()
    with pytest.raises(InvalidSettingsError, match=r"INTENT_KAFKA_PORT .*integer") as refused:
        settings()
    assert str(refused.value).count("INTENT_") == 1
