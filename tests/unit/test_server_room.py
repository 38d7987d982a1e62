"""Where the tests' servers have their data."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack import ledger
from tests.support import server_room


def meminfo(folder: Path, available_kilobytes: int) -> Path:
    """Write what a machine says of its memory."""
    path = folder / "meminfo"
    path.write_text(f"MemTotal:       24684092 kB\nMemFree:         100 kB\nMemAvailable:   {available_kilobytes} kB\n")
    return path


def test_short_memory_and_folders_on_disk_are_left_alone(tmp_path: Path):
    """Servers stay on the disk where the machine has little memory, and no folder on a disk passes for memory."""
    plenty = server_room.AVAILABLE_BYTES // 1024
    assert not server_room.roomy(server_room.MEMORY, meminfo(tmp_path, plenty - 1))
    assert not server_room.roomy(tmp_path, meminfo(tmp_path, plenty))
    assert not server_room.roomy(tmp_path / "nowhere", meminfo(tmp_path, plenty))


def test_a_choice_of_the_environment_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Who names a folder gets that one; without one it is memory or, as ever, the disk."""
    monkeypatch.setenv(server_room.VARIABLE, str(tmp_path))
    server_room.choose(environment := {server_room.VARIABLE: str(tmp_path)})
    assert environment == {server_room.VARIABLE: str(tmp_path)}
    assert ledger.base_dir() == tmp_path
    server_room.choose(environment := {})
    assert environment in ({}, {server_room.VARIABLE: str(server_room.MEMORY)})
