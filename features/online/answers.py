"""What an online store's errors mean: which pass by themselves, and which need an operator.

The table holds what Redis 6 to 8, Valkey, Redis Cluster and Sentinel answer to the commands that
are sent here: HMGET, EVAL, EVALSHA, SCRIPT LOAD and what a connection begins with. Their texts are
in the servers' sources (`shared` in server.c, cluster.c, script.c). A server that gets its disk,
its replicas or its memory back takes the same write then, so such an answer passes.

An answer that isn't known here is taken to pass. A writer that holds and tries again tells of it in
its log, its readiness and its metrics as long as it lasts, and goes on if it does pass; one that
ends would be started again and again, and its partitions would change hands each time.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from redis import exceptions as redis_errors
from redis import sentinel
from redis.asyncio import sentinel as asyncio_sentinel

from stream.exceptions import (
    IntentstreamError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Meaning(NamedTuple):
    """What an error says of the store."""

    passes: bool
    """Whether the same command may succeed later, without anybody changing settings or data."""

    advice: str
    """Sentences: what is the matter, and what to look at."""


_RIGHTS: Final = Meaning(
    False,
    "Check the user, the password and the rights (HMGET, HSET, EXPIRE, PERSIST, EVAL, EVALSHA, "
    "SCRIPT LOAD; of a cluster CLUSTER SLOTS too) in INTENT_REDIS_URL.",
)
_IS_CLUSTER: Final = Meaning(
    False, "It is a node of a cluster: set INTENT_REDIS_TYPE to redis_cluster."
)
_FULL: Final = Meaning(True, "All its connections are taken: close some or raise its `maxclients`.")

ANSWERS: Final[Mapping[str, Meaning]] = {
    "LOADING": Meaning(True, "It has started and is reading its data."),
    "BUSY": Meaning(True, "A script holds it up; SCRIPT KILL ends one that has written nothing."),
    "NOREPLICAS": Meaning(
        True,
        "It has fewer replicas than its `min-replicas-to-write` asks for: bring them back, or "
        "lower it.",
    ),
    "MISCONF": Meaning(
        True,
        "It can't save its snapshot or append-only file, and takes no writes until it can: look "
        "at its log and at the space on its disk.",
    ),
    "OOM": Meaning(
        True, "Its memory is full: raise its `maxmemory`, or give the features a time to live."
    ),
    "READONLY": Meaning(
        True,
        "It is a replica: after a failover the address leads to the master again; else "
        "INTENT_REDIS_URL has to name the master.",
    ),
    "MASTERDOWN": Meaning(True, "It is a replica that has lost its master."),
    "NOMASTERLINK": Meaning(True, "It is a replica that has lost its master."),
    "CLUSTERDOWN": Meaning(
        True, "The cluster has slots that no node serves: bring its nodes back."
    ),
    "TRYAGAIN": Meaning(True, "The cluster is moving the keys' slot."),
    "NOSCRIPT": Meaning(True, "It has forgotten its scripts; the next write brings its own."),
    "UNBLOCKED": Meaning(True, "It has become a replica."),
    "IOERR": Meaning(True, "It could not reach another node."),
    "NOAUTH": _RIGHTS,
    "WRONGPASS": _RIGHTS,
    "NOPERM": _RIGHTS,
    "DENIED": Meaning(
        False, "It is in protected mode: give it a password or an address to bind to."
    ),
    "WRONGTYPE": Meaning(
        False, "Other data has keys of ours: use another database, or delete those keys."
    ),
    "CROSSSLOT": _IS_CLUSTER,
    "MOVED": _IS_CLUSTER,
    "ASK": _IS_CLUSTER,
    "NOPROTO": Meaning(False, "It is too old: Redis 6 or newer, or Valkey, is needed."),
}
"""Meanings by the answer's first word."""

ERR_ANSWERS: Final[Mapping[str, Meaning]] = {
    "max number of clients": _FULL,
    "Script killed by user": Meaning(True, "Somebody ended the script; nothing was written."),
    "AUTH": _RIGHTS,
    "auth": _RIGHTS,
    "invalid password": _RIGHTS,
    "ACL failure": _RIGHTS,
    "can't run this command": _RIGHTS,
    "No permissions": _RIGHTS,
    "unknown command": Meaning(
        False, "It lacks a command that is needed, or has it under another name."
    ),
    "DB index": Meaning(False, "It has no such database: check `db` in INTENT_REDIS_URL."),
    "SELECT is not allowed": Meaning(
        False, "A cluster has one database: take `db` out of INTENT_REDIS_URL."
    ),
    "cluster support disabled": Meaning(
        False, "It is no node of a cluster: set INTENT_REDIS_TYPE to redis."
    ),
}
"""Meanings by words in an answer that begins with ERR."""

SQLITE_ERRORS: Final[Mapping[int, Meaning]] = {
    sqlite3.SQLITE_ERROR: Meaning(
        False,
        "Its tables are missing or those of another release: run `intentstream features apply`, or "
        "start a worker.",
    ),
    sqlite3.SQLITE_PERM: Meaning(False, "Check the rights of the database's file."),
    sqlite3.SQLITE_READONLY: Meaning(False, "Check the rights of the database's file and folder."),
    sqlite3.SQLITE_AUTH: Meaning(False, "Check the rights of the database's file."),
    sqlite3.SQLITE_CORRUPT: Meaning(False, "Its file is damaged: put a whole copy in its place."),
    sqlite3.SQLITE_NOTADB: Meaning(False, "Its file is no database: move it away."),
}
"""By SQLite's primary result code; the others (busy, locked, disk full …) pass."""

_UNREACHABLE: Final = Meaning(True, "Check that it runs at the address of INTENT_REDIS_URL.")
_NO_MASTER: Final = Meaning(
    True,
    "Check that the Sentinels run at the addresses of INTENT_REDIS_URL and know the master as "
    "INTENT_REDIS_SENTINEL_MASTER.",
)
_SQLITE_PASSES: Final = Meaning(True, "Check the disk, and who else writes to the database.")
UNKNOWN: Final = Meaning(
    True, "It is tried again; if the same comes again and again, look at the server's log."
)
"""Of an answer that nobody has looked at yet."""

_IN_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -?([A-Z]{2,})\b")
"""Before Redis 7 an answer within a script came in the text of another."""

_CODE: Final = re.compile(r"-?([A-Z]{2,})\b")

_ERRORS: Final = (
    redis_errors.RedisError,
    redis_errors.RedisClusterException,
    sqlite3.Error,
    OSError,
)


def known_meaning(error: Exception) -> Meaning | None:
    """What an error of the client of Redis or SQLite says; None of any other error."""
    return meaning_of(error) if isinstance(error, _ERRORS) else None


@contextmanager
def typed_errors(
    meaning: Callable[[Exception], Meaning | None] = known_meaning,
) -> Iterator[None]:
    """Raises this package's errors for those of an online store's client.

    Args:
        meaning: What an error says of the store; None of one that isn't the client's.

    Raises:
        StoreUnavailableError: when the store can't be used now. Do the same again later.
        StoreRefusedError: when the store answers with an error that needs an operator.
    """
    try:
        yield
    except IntentstreamError:
        raise
    except Exception as error:
        said = meaning(error)
        if said is None:
            raise
        raise typed(error, said) from error


def typed(error: Exception, meaning: Meaning) -> StoreError:
    """This package's error for one of an online store's client."""
    reason = f"{type(error).__name__}: {_words(error)}"
    if meaning.passes:
        return StoreUnavailableError(
            f"The online store can't be used now ({reason}). {meaning.advice} Then try the same "
            "again."
        )
    return StoreRefusedError(f"The online store refused a command ({reason}). {meaning.advice}")


def meaning_of(error: BaseException) -> Meaning:
    """What an error of the client of Redis or SQLite says of the store."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return SQLITE_ERRORS.get((code or 0) & 0xFF, _SQLITE_PASSES)
    if isinstance(error, redis_errors.RedisClusterException):
        # The client asks each node for the slots, and keeps only what came of the last.
        cause = error.__cause__ or error.__context__
        return meaning_of(cause) if cause else ANSWERS["CLUSTERDOWN"]
    code, words = _answer(error)
    if code in ANSWERS:
        return ANSWERS[code]
    for part, meaning in ERR_ANSWERS.items():
        if part in words and isinstance(error, redis_errors.RedisError):
            return meaning
    if isinstance(error, (redis_errors.AuthenticationError, redis_errors.AuthorizationError)):
        return _RIGHTS
    if isinstance(error, (sentinel.MasterNotFoundError, asyncio_sentinel.MasterNotFoundError)):
        return _NO_MASTER
    if isinstance(error, (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError)):
        return _UNREACHABLE
    return UNKNOWN


def _answer(error: BaseException) -> tuple[str, str]:
    """The first word of the server's answer, and the answer without what the client put before."""
    words = _words(error)
    within = _IN_SCRIPT.search(words)
    if within:
        return within[1], words
    code = getattr(error, "status_code", None)
    if code is None and isinstance(error, redis_errors.ResponseError):
        first = _CODE.match(words)
        code = first[1] if first else None
    return code or "", words


def _words(error: BaseException) -> str:
    """The server's or the system's own words, which name no credentials.

    The client puts a whole command, with a profile's id and features, before an answer to one of a
    pipeline.
    """
    return str(error).rpartition(" of pipeline caused error: ")[2]
