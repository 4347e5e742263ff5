"""What is made of the errors that can't be had from a real server on demand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from redis import exceptions as redis_errors
from redis._parsers.base import BaseParser
from redis.sentinel import MasterNotFoundError

from features.online.answers import ANSWERS, typed_errors
from stream.exceptions import StoreError, StoreRefusedError, StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


def answered(error: Exception) -> StoreError:
    """What a caller gets of an error of the store's client."""
    with pytest.raises(StoreError) as failure, typed_errors():
        raise error
    return failure.value


def of_server(text: str) -> StoreError:
    """What a caller gets of a server's answer, which the client's own parser has read."""
    return answered(BaseParser.parse_error(text))


IN_SCRIPT_OF_REDIS_6 = "ERR Error running script (call to f_57ade87c8731): "

PASSES = [
    ("LOADING Redis is loading the dataset in memory", "reading its data"),
    ("BUSY Redis is busy running a script. You can only call SCRIPT KILL.", "SCRIPT KILL"),
    ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
    ("MISCONF Redis is configured to save RDB snapshots, but it is unable to", "its disk"),
    ("MISCONF Errors writing to the AOF file: No space left on device", "its disk"),
    ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
    ("READONLY You can't write against a read only replica.", "name the master"),
    ("MASTERDOWN Link with MASTER is down", "lost its master"),
    ("CLUSTERDOWN Hash slot not served", "no node serves"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "moving"),
    ("NOSCRIPT No matching script. Please use EVAL.", "forgotten its scripts"),
    ("UNBLOCKED force unblock from blocking operation", "a replica"),
    ("IOERR error or timeout reading to target instance", "another node"),
    ("ERR max number of clients reached", "maxclients"),
    ("ERR max number of clients + cluster connections reached", "maxclients"),
    ("ERR Script killed by user with SCRIPT KILL. script: 57ade", "nothing was written"),
    (
        IN_SCRIPT_OF_REDIS_6 + "@user_script:48: @user_script: 48: -MISCONF Redis is configured",
        "its disk",
    ),
    (
        IN_SCRIPT_OF_REDIS_6 + "@user_script:48: @user_script: 48: -NOREPLICAS Not enough good",
        "min-replicas-to-write",
    ),
    (
        IN_SCRIPT_OF_REDIS_6 + "@user_script:48: @user_script: 48: -OOM command not allowed",
        "maxmemory",
    ),
    (
        "READONLY You can't write against a read only replica. script: 57ade, on @user_script:48.",
        "name the master",
    ),
]

REFUSES = [
    ("NOAUTH Authentication required.", "the password"),
    ("WRONGPASS invalid username-password pair or user is disabled.", "the password"),
    ("NOPERM User w has no permissions to run the 'eval' command", "EVALSHA"),
    (
        "ERR AUTH <password> called without any password configured for the default user. Are you "
        "sure your configuration is correct?",
        "the password",
    ),
    ("ERR wrong number of arguments for 'auth' command", "the password"),
    ("ERR ACL failure in script: User w has no permissions to run the 'hset' command", "HSET"),
    (
        IN_SCRIPT_OF_REDIS_6 + "@user_script:48: @user_script: 48: The user executing the script "
        "can't run this command or subcommand",
        "HSET",
    ),
    (IN_SCRIPT_OF_REDIS_6 + "@user_script:42: WRONGTYPE Operation against a key", "Other data"),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", "Other data"),
    ("DENIED Redis is running in protected mode because", "protected mode"),
    ("CROSSSLOT Keys in request don't hash to the same slot", "redis_cluster"),
    ("MOVED 3999 127.0.0.1:6381", "redis_cluster"),
    ("ASK 3999 127.0.0.1:6381", "redis_cluster"),
    ("NOPROTO unsupported protocol version", "Redis 6"),
    ("ERR unknown command 'EVALSHA', with args beginning with:", "lacks a command"),
    ("ERR DB index is out of range", "`db`"),
    ("ERR SELECT is not allowed in cluster mode", "`db`"),
    ("ERR This instance has cluster support disabled", "INTENT_REDIS_TYPE to redis"),
]


@pytest.mark.parametrize(("text", "told"), PASSES)
def test_an_answer_that_passes_is_tried_again_and_says_what_to_look_at(
    text: str, told: str
) -> None:
    error = of_server(text)
    assert isinstance(error, StoreUnavailableError)
    assert told in str(error)


@pytest.mark.parametrize(("text", "told"), REFUSES)
def test_an_answer_that_does_not_pass_says_what_an_operator_has_to_do(text: str, told: str) -> None:
    error = of_server(text)
    assert isinstance(error, StoreRefusedError)
    assert told in str(error)


def test_every_answer_of_the_table_is_tried_here() -> None:
    tried = {text.split(" ")[0] for text, _ in [*PASSES, *REFUSES]}
    assert set(ANSWERS) - tried == {"NOMASTERLINK"}


def test_an_answer_that_is_not_known_is_tried_again_and_told() -> None:
    error = of_server("NEWERR of a release to come")
    assert isinstance(error, StoreUnavailableError)
    assert "NEWERR of a release to come" in str(error)


@pytest.mark.parametrize("prefix", ["NOREPLICAS", "WRONGTYPE"])
def test_the_command_of_a_pipeline_is_not_repeated_and_its_answer_is_understood(
    prefix: str,
) -> None:
    told = f"Command # 1 (HMGET p-secret f) of pipeline caused error: {prefix} words"
    error = answered(redis_errors.ResponseError(told))
    assert isinstance(error, StoreUnavailableError) == ANSWERS[prefix].passes
    assert "p-secret" not in str(error)


@pytest.mark.parametrize(
    "error",
    [
        redis_errors.ConnectionError("Connection refused"),
        redis_errors.TimeoutError("Timeout reading from socket"),
        redis_errors.MaxConnectionsError("Too many connections"),
        redis_errors.ClusterError("TTL exhausted."),
        redis_errors.SlotNotCoveredError('Slot "7" is not covered by the cluster.'),
        redis_errors.RedisClusterException("All slots are not covered"),
        redis_errors.ExternalAuthProviderError("problem with LDAP service"),
        MasterNotFoundError("No master found for 'intents'"),
        ConnectionResetError("reset"),
    ],
)
def test_a_server_that_can_not_be_asked_passes(error: Exception) -> None:
    assert isinstance(answered(error), StoreUnavailableError)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (redis_errors.NoPermissionError("no rights", status_code="NOPERM"), StoreRefusedError),
        (redis_errors.AuthenticationError("wrong", status_code="WRONGPASS"), StoreRefusedError),
        (redis_errors.ConnectionError("refused"), StoreUnavailableError),
        (redis_errors.BusyLoadingError("loading", status_code="LOADING"), StoreUnavailableError),
    ],
)
def test_a_cluster_that_can_not_be_explored_is_judged_by_what_its_nodes_answered(
    cause: Exception, kind: type[StoreError]
) -> None:
    error = redis_errors.RedisClusterException("Redis Cluster cannot be connected")
    error.__cause__ = cause
    assert type(answered(error)) is kind


def test_a_full_disk_passes_and_a_missing_table_needs_an_operator(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "online.db")) as database:
        with pytest.raises(StoreRefusedError, match="features apply"), typed_errors():
            database.execute("SELECT 1 FROM intents")
        database.execute("CREATE TABLE intents (a)")
        database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(StoreUnavailableError, match="the disk"), typed_errors():
            database.execute("INSERT INTO intents VALUES (zeroblob(100000))")


def test_a_locked_database_passes_and_a_file_that_is_none_needs_an_operator(
    tmp_path: Path,
) -> None:
    path = tmp_path / "online.db"
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(path, timeout=0)) as two:
        one.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailableError, match="who else writes"), typed_errors():
            two.execute("CREATE TABLE intents (a)")
    path.write_bytes(b"no database" * 100)
    with (
        closing(sqlite3.connect(path)) as database,
        pytest.raises(StoreRefusedError, match="no database"),
        typed_errors(),
    ):
        database.execute("SELECT * FROM sqlite_master")
