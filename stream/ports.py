"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket
from itertools import islice
from typing import Final

_LOWEST: Final = 20_000
_HIGHEST: Final = 32_000
"""Below Linux's ephemeral ports, so that no outgoing connection takes a port before its server."""


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free now."""
    candidates = random.sample(range(_LOWEST, _HIGHEST), _HIGHEST - _LOWEST)
    return list(islice(filter(is_free, candidates), count))
