"""Restarts a Triton of which a model version no longer answers.

    python -m infra.local.guard SUPERVISOR_SOCKET TRITON_URL

A supervised program of its own. It asks each ready version for a tiny inference (`infra.probe`) and
kills the server, with the processes of its models, when one is stuck; the supervisor starts it
again, with the versions that it served. A server that isn't up or is loading is left alone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from xmlrpc.client import Error as RpcError

import psutil

from infra.local.remote import supervisor_at
from infra.probe import stuck_versions
from stream.plain_text import log_plainly

INTERVAL_S: Final = 2.0
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - left behind by what is killed

_log = logging.getLogger(__name__)


def check(rpc: Any, url: str) -> None:
    """Look once; kill the server when one of its versions is stuck."""
    pid = int(rpc.getProcessInfo("triton")["pid"])
    if not pid:
        return
    try:
        stuck = stuck_versions(url)
    except TimeoutError:
        stuck = ["the server itself"]
    except OSError:
        return  # it starts, or is being restarted
    # The process that was asked, not one that has taken its place meanwhile.
    if stuck and int(rpc.getProcessInfo("triton")["pid"]) == pid:
        _log.error("Restarting Triton, process %d; stuck: %s", pid, ", ".join(stuck))
        shared = {Path(one.path) for one in psutil.Process(pid).memory_maps()}
        # Its process group: a stopped child would outlive it.
        os.killpg(pid, signal.SIGKILL)
        for path in shared:
            if path.is_relative_to(_SHARED_MEMORY):
                path.unlink(missing_ok=True)


def main() -> None:
    """Look every few seconds, until ended."""
    log_plainly()
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    socket, url = sys.argv[1:]
    rpc = supervisor_at(Path(socket))
    while True:
        time.sleep(INTERVAL_S)
        try:
            check(rpc, url)
        except (OSError, RpcError, HTTPException, psutil.Error) as error:
            _log.warning("Nothing to be seen or done: %r", error)


if __name__ == "__main__":
    main()
