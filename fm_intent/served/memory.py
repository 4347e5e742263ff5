"""How much memory is free to a process: on a card, or on a host within its container's bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

_MEMINFO: Final = Path("/proc/meminfo")
_CONTAINER: Final = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device, meminfo: Path = _MEMINFO, container: Path = _CONTAINER) -> int:
    """Bytes that are free on a device; of a host, what its container may still take if less.

    Args:
        device: the CPU, or a card.
        meminfo: the kernel's account of the host's memory.
        container: the control group (version 2) of the process, where it is in one with a limit.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    host = _numbers(meminfo)["MemAvailable"] << 10
    try:
        limit = int((container / "memory.max").read_text())
        held = int((container / "memory.current").read_text())
        # Files that were read and may be dropped again count as held.
        held -= _numbers(container / "memory.stat")["inactive_file"]
    except (OSError, ValueError):  # there is no such group, or `max`: it has no limit
        return host
    return min(host, max(limit - held, 0))


def _numbers(path: Path) -> dict[str, int]:
    rows = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in rows}
