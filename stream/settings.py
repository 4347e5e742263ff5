"""All settings of the product, read from the environment (prefix `INTENT_`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.exceptions import InvalidSettingsError

_LOGIN: Final = ("kafka_sasl_username", "kafka_sasl_password")
_OIDC: Final = ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
_OAUTH: Final = (*_OIDC, "kafka_oauth_scope", "kafka_oauth_aws_region")
_SASL: Final = ("kafka_sasl_mechanism", *_LOGIN, *_OAUTH)
_TLS: Final = (
    "kafka_ssl_cafile",
    "kafka_ssl_certfile",
    "kafka_ssl_keyfile",
    "kafka_ssl_key_password",
)
KAFKA_SECURITY: Final = ("kafka_security_protocol", *_SASL, *_TLS)
"""The settings that say how a connection to Kafka is secured."""


class _Group(BaseSettings):
    # The input of a failed validation holds the passwords.
    model_config = SettingsConfigDict(
        env_prefix="INTENT_", env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )


class KafkaSettings(_Group):
    """Where Kafka is, how to connect to it, and our names there.

    Ports here and below are those of the servers that `make up` starts on loopback; they come
    first, because addresses that aren't set are made of them.
    """

    kafka_port: int = Field(9092, ge=1, le=65535)
    kafka_controller_port: int = Field(9093, ge=1, le=65535)
    kafka_bootstrap: str = Field(
        default_factory=lambda given: f"127.0.0.1:{given['kafka_port']}",
        description="Kafka bootstrap servers; default: at INTENT_KAFKA_PORT of this machine.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Of the listener that the bootstrap servers name."
    )
    kafka_sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None
    ) = Field(None, description="GSSAPI is not supported.")
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_oauth_token_url: str | None = Field(
        None,
        pattern="^https?://",
        description="For OAUTHBEARER: the token endpoint of an OIDC server, asked for a token by "
        "client credentials.",
    )
    kafka_oauth_client_id: str | None = None
    kafka_oauth_client_secret: SecretStr | None = None
    kafka_oauth_scope: str | None = Field(
        None, description="Asked for with the token; default: what the server gives the client."
    )
    kafka_oauth_aws_region: str | None = Field(
        None,
        description="For OAUTHBEARER with Amazon MSK's IAM, in place of an OIDC server: the "
        "cluster's region; needs the extra `aws`.",
    )
    kafka_ssl_cafile: Path | None = Field(
        None, description="PEM of the authority to trust; default: the system's."
    )
    kafka_ssl_certfile: Path | None = Field(
        None, description="PEM of our own certificate, where the broker asks for one (mTLS)."
    )
    kafka_ssl_keyfile: Path | None = Field(
        None, description="PEM of its private key, if that isn't in the certificate's file."
    )
    kafka_ssl_key_password: SecretStr | None = Field(
        None, description="Of the private key, if it is encrypted."
    )
    consumer_group: str = Field("intentstream", description="Faust app id and consumer group.")
    topic_prefix: str = Field("", description="Put before every topic's name.")
    topic_partitions: int = Field(4, ge=1, description="Partitions of the topics we create.")
    topic_replicas: int = Field(1, ge=1, description="Replicas of the topics we create.")

    @model_validator(mode="after")
    def _kafka_security_is_whole(self) -> Self:
        protocol = self.kafka_security_protocol
        given = {name for name in KAFKA_SECURITY if getattr(self, name) is not None}
        sasl, tls = given.intersection(_SASL), given.intersection(_TLS)
        problems = []
        needed, useless = self._login_needs(sasl)
        if protocol.startswith("SASL") and needed - sasl:
            problems.append(f"{protocol} needs {_variables(needed - sasl)} too")
        if protocol.startswith("SASL") and useless & sasl:
            problems.append(
                f"{_variables(useless & sasl)} would not be used with "
                f"{self.kafka_sasl_mechanism}{' of Amazon' * bool(self.kafka_oauth_aws_region)}"
            )
        if sasl and not protocol.startswith("SASL"):
            problems.append(
                f"{_variables(sasl)} would not be used with {protocol}; "
                "set INTENT_KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT"
            )
        if tls and not protocol.endswith("SSL"):
            problems.append(
                f"{_variables(tls)} would not be used with {protocol}; "
                "set INTENT_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"
            )
        if tls - {"kafka_ssl_cafile"} and "kafka_ssl_certfile" not in tls:
            problems.append("a private key needs its certificate; set INTENT_KAFKA_SSL_CERTFILE")
        if problems:
            raise PydanticCustomError("security", "{problems}", {"problems": "; ".join(problems)})
        return self

    def _login_needs(self, given: set[str]) -> tuple[set[str], set[str]]:
        """The settings that the mechanism needs, and those that it has no use for."""
        if self.kafka_sasl_mechanism != "OAUTHBEARER":
            return {"kafka_sasl_mechanism", *_LOGIN}, {*_OAUTH}
        if "kafka_oauth_aws_region" in given:
            return set(), {*_LOGIN, *_OAUTH} - {"kafka_oauth_aws_region"}
        return {*_OIDC}, {*_LOGIN}

    def topic(self, name: str) -> str:
        """The full name of the topic `name` under the configured prefix."""
        return f"{self.topic_prefix}{name}"


class StateSettings(_Group):
    """What is kept of a profile, and which events are too late or too large for it."""

    window_length: int = Field(64, ge=2, le=256, description="Interactions a window holds (L).")
    session_gap_s: int = Field(1800, gt=0, description="Idle time that ends a session.")
    allowed_lateness_s: int = Field(
        24 * 3600, gt=0, description="How far behind the broker's time an event may be."
    )
    max_ahead_s: int = Field(300, ge=0, description="How far ahead of the broker's time.")
    idle_profile_s: int = Field(
        400 * 86_400,
        ge=0,
        description="A profile without an event for so long by the broker's time loses its state; "
        "longer than the topics keep events, or erased ones could come back. 0: never.",
    )
    max_event_bytes: int = Field(65_536, gt=0, description="A larger record is a dead letter.")
    catalogue: Path | None = Field(
        None,
        description="Parquet with `title_id` and `duration_s`; default: what the live version "
        "carries, where INTENT_TRITON_MODELS can be read.",
    )


class TritonSettings(_Group):
    """Where Triton is, and how it is asked."""

    triton_http_port: int = Field(8000, ge=1, le=65535)
    triton_grpc_port: int = Field(8001, ge=1, le=65535)
    triton_metrics_port: int = Field(8002, ge=1, le=65535)
    triton_url: str = Field(
        default_factory=lambda given: f"127.0.0.1:{given['triton_grpc_port']}",
        pattern=r"[^,\s]",
        description="Triton's gRPC address; of several, separated by commas, a profile is always "
        "asked at the same. Default: at INTENT_TRITON_GRPC_PORT of this machine.",
    )
    model_name: str = "fm_intent"
    model_version: str = Field(
        "",
        description="Version to pin; empty follows what `model publish` made live, and takes "
        "Triton's default before that.",
    )
    triton_models: Path = Field(
        Path(".local/triton/models"),
        description="The model repository that Triton reads; `model publish` writes into it, "
        "workers read the live version's titles. A relative path begins at the checkout, or where "
        "there is none in the working directory.",
    )
    inference_batch: int = Field(128, ge=1, description="Rows of one Triton request at most.")
    inference_concurrency: int = Field(
        2, ge=1, description="Requests in flight at most, for each Triton."
    )
    inference_deadline_s: float = Field(2.0, gt=0, description="Deadline of one Triton request.")

    @property
    def triton_urls(self) -> tuple[str, ...]:
        """The address of each Triton."""
        named = (address.strip() for address in self.triton_url.split(","))
        return tuple(dict.fromkeys(filter(None, named)))


class ReleaseSettings(_Group):
    """How far a new model version may be from the one that is live."""

    release_max_divergence: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Mean divergence of a head, in bits, that a new version may have.",
    )
    release_min_overlap: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Mean share of next titles that a new version must propose too.",
    )


class StoreSettings(_Group):
    """The online store, and Feast's registry."""

    redis_port: int = Field(6379, ge=1, le=65535)
    online_store: str = Field(
        "redis",
        description="`redis`; `sqlite` for a first look; else a file like "
        "features/feature_store.yaml, of which `online_store` is taken: docs/extending.md.",
    )
    unfenced_store: bool = Field(
        False,
        description="Accept an online store that doesn't refuse older features: they may "
        "overwrite newer ones then.",
    )
    redis_url: SecretStr = Field(
        default_factory=lambda given: SecretStr(f"127.0.0.1:{given['redis_port']}"),
        description="Feast's Redis connection string; default: INTENT_REDIS_PORT of this machine.",
    )
    redis_type: Literal["redis", "redis_cluster", "redis_sentinel"] = Field(
        "redis", description="One server, a cluster, or a master that Sentinels name."
    )
    redis_sentinel_master: str = Field(
        "mymaster", description="Sentinel's name of the master; INTENT_REDIS_URL: the Sentinels."
    )
    feature_registry: Path | None = Field(
        None,
        description="Feast registry file; default features/data/registry.db in the checkout, or "
        "where there is none in the working directory.",
    )
    feature_ttl_s: int = Field(0, ge=0, description="Redis TTL of a profile's features; 0: none.")
    title_ttl_s: int = Field(0, ge=0, description="Redis TTL of a title's features; 0: none.")
    store_sweep_s: int = Field(
        3600,
        ge=0,
        description="Within so long every row is looked at once and, where the store has lost it, "
        "published again; 0: only when the store is doubted.",
    )


class SinkSettings(_Group):
    """The offline store, and the process that fills it."""

    offline_dir: Path | None = Field(
        None,
        description="Holds the offline store's folders data/intent_features and "
        "data/title_profiles; default features/, where the command `feast` looks.",
    )

    sink_port: int = Field(9465, ge=0, le=65535, description="The sink's metrics and health.")
    sink_interval_s: float = Field(60.0, gt=0, description="Time between a partition's files.")
    erasure_rewrite_s: float = Field(
        86_400.0, gt=0, description="Time between two looks for landed rows of erased profiles."
    )
    sink_max_rows: int = Field(20_000, ge=1, description="Rows that the sink holds at most.")
    sink_merge_after_s: float = Field(
        3600.0,
        ge=0,
        description="A past day's files are merged when none was written for so long; 0: never.",
    )
    offline_memory_mib: int = Field(
        2048,
        ge=256,
        description="Memory of a historical read's join; what is more is spilled into TMPDIR.",
    )


class SearchSettings(_Group):
    """The re-ranking service."""

    search_host: str = Field("127.0.0.1", description="Where the re-ranking service binds.")
    search_port: int = Field(6567, ge=1, le=65535, description="Of the re-ranking service.")
    rerank_weights: Path | None = Field(
        None, description="JSON file of the re-ranker's weights; default: those of the code."
    )


class BridgeSettings(_Group):
    """The bridge from a topic of another's events to ours."""

    bridge_topic: str = Field(
        "", description="Their topic, by its full name; INTENT_TOPIC_PREFIX is of ours alone."
    )
    bridge_adapter: str = Field("intent", description="What reads its events: docs/adapters.md.")
    bridge_options: dict[str, Any] = Field({}, description="Options of the adapter, as JSON.")
    bridge_format: Literal["json", "avro", "protobuf", "json-schema"] = Field(
        "json",
        description="Of the values; all but JSON in Confluent's wire format, with a registry and "
        "the extra `bridge`.",
    )
    bridge_port: int = Field(9466, ge=0, le=65535, description="The bridge's metrics and health.")
    schema_registry_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Of Confluent's registry or one with its API; several, separated by commas.",
    )
    schema_registry_username: str | None = None
    schema_registry_password: SecretStr | None = None
    schema_registry_cafile: Path | None = Field(
        None, description="PEM of the authority that the registry's certificate is of."
    )

    @model_validator(mode="after")
    def _registry_is_told(self) -> Self:
        if self.bridge_format != "json" and self.schema_registry_url is None:
            raise PydanticCustomError(
                "registry",
                "INTENT_BRIDGE_FORMAT={format} needs INTENT_SCHEMA_REGISTRY_URL too",
                {"format": self.bridge_format},
            )
        return self


class WorkerSettings(_Group):
    """The worker's process."""

    batch_max_events: int = Field(1024, ge=1, description="Events in one micro-batch at most.")

    metrics_host: str = Field("127.0.0.1", description="Where the metrics server binds.")
    metrics_port: int = Field(9464, ge=0, le=65535, description="Prometheus metrics and health.")
    instance_id: str | None = Field(
        None,
        description="Static group membership (KIP-345): a restarted worker of the same id gets its "
        "partitions back at once. Of two of one id in a group the older ends.",
    )
    session_timeout_s: int = Field(10, ge=6, description="Silence that loses a worker its place.")
    commit_interval_s: float = Field(0.5, gt=0, description="Time between offset commits.")
    data_dir: Path = Field(Path(".local/worker"), description="Faust's data directory.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = Field(
        "text", description="Of what worker, sink, bridge and services log; json: a line a record."
    )


class ConsoleSettings(_Group):
    """The console: where it binds, who may see it, and what it looks at."""

    console_host: str = Field("127.0.0.1", description="Where the console binds.")
    console_port: int = Field(9467, ge=1, le=65535, description="Of the console.")
    console_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Whoever knows it sees the console. Needed, or the proxy's header, wherever it "
        "binds beyond loopback: `openssl rand -hex 32` makes one.",
    )
    console_trusted_header: str | None = Field(
        None,
        description="A header, such as X-Forwarded-User, by which a proxy says who looks; the "
        "proxy must take it out of what comes from outside.",
    )
    console_trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="The addresses or networks, separated by commas, whose header is trusted.",
    )
    console_targets: str = Field(
        "",
        pattern=r"^\s*(\w+=[^,\s]+\s*(,\s*|$))*$",
        description="Whose metrics the console reads, as job=host:port, separated by commas; the "
        "jobs are worker, sink, bridge and triton. Default: worker, sink and Triton of this "
        "machine.",
    )
    console_prometheus_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Prometheus, for the last hour and the alerts; else the console keeps an hour "
        "of what it read itself.",
    )
    console_alert_rules: Path | None = Field(
        None,
        description="Prometheus' file of alert rules, to be judged by the console where there is "
        "no Prometheus.",
    )
    console_may_act: bool = Field(
        False,
        description="Whether one may act as a member: real events on the real topics. "
        "`intentstream up` allows it on its own stack.",
    )


class Settings(
    ConsoleSettings,
    WorkerSettings,
    BridgeSettings,
    SearchSettings,
    SinkSettings,
    StoreSettings,
    ReleaseSettings,
    TritonSettings,
    StateSettings,
    KafkaSettings,
):
    """Typed settings; each field is the environment variable `INTENT_<FIELD>`.

    Code that needs one group of them takes that group as its argument.
    """


def _variables(names: Iterable[str]) -> str:
    return ", ".join(f"INTENT_{name.upper()}" for name in sorted(names))


@cache
def settings() -> Settings:
    """The process's settings, read once.

    Raises:
        InvalidSettingsError: when one is wrong, or some don't go together.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"{_variables(map(str, problem['loc']))} {problem['msg']}".lstrip()
            for problem in error.errors()
            # Said of an address that would have been made of a port, whatever setting is wrong.
            if problem["type"] != "default_factory_not_called"
        ]
        raise InvalidSettingsError("\n".join(problems)) from None
