"""How much memory a cache may take its share of."""

from __future__ import annotations

from pathlib import Path

import torch

from fm_intent.served.memory import free_bytes

CPU = torch.device("cpu")


def host(folder: Path, available_kib: int) -> Path:
    path = folder / "meminfo"
    path.write_text(
        f"MemTotal: 99999999 kB\nMemAvailable:  {available_kib} kB\nHugePages_Free: 0\n"
    )
    return path


def container(folder: Path, limit: str, held: int, files: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{held}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {files}\n")
    return folder


def test_a_host_has_what_its_kernel_calls_available(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, 1000), tmp_path / "none") == 1000 << 10


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    found = free_bytes(CPU, host(tmp_path, 1000), container(tmp_path, "5000", held=3000))
    assert found == 2000


def test_files_that_may_be_dropped_again_take_nothing(tmp_path: Path) -> None:
    bounds = container(tmp_path, "5000", held=3000, files=1000)
    assert free_bytes(CPU, host(tmp_path, 1000), bounds) == 3000


def test_a_container_has_no_more_than_its_host(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, 1), container(tmp_path, "5000", held=0)) == 1024


def test_a_container_without_a_limit_has_what_its_host_has(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, 7), container(tmp_path, "max", held=1)) == 7 << 10


def test_a_container_that_holds_more_than_its_limit_has_nothing(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, 7), container(tmp_path, "5", held=9)) == 0
