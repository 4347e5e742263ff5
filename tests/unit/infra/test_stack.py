from __future__ import annotations

from infra.local.programs import worker_environment
from infra.local.stack import on_loopback
from stream.settings import Settings


def test_the_local_stack_is_unsecured_whatever_the_environment_says() -> None:
    secured = Settings.model_validate(
        {
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": "intent",
            "kafka_sasl_password": "hush-hush",
            "kafka_ssl_cafile": "ca.pem",
        }
    )
    local = worker_environment(on_loopback(secured))
    assert local["INTENT_KAFKA_SECURITY_PROTOCOL"] == "PLAINTEXT"
    assert not [
        name for name in local if name.startswith(("INTENT_KAFKA_SASL", "INTENT_KAFKA_SSL"))
    ]
