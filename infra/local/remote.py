"""The remote interface of a stack's supervisor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

SOCKET: Final = "supervisor.sock"
"""Name of the supervisor's socket in the stack's home."""


def supervisor_at(socket: Path) -> Any:
    """The functions that the supervisor listening on `socket` offers; nothing is asked yet."""
    transport = SupervisorTransport(None, None, f"unix://{socket}")
    return ServerProxy("http://supervisor", transport=transport).supervisor
