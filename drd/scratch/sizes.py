"""Sizes in words, and whether there is room."""

from __future__ import annotations

from drd.errors import ScratchError
from drd.model import ScratchSpec

_OVERHEAD_BYTES = 128 << 20  # an empty cluster, its logs and its WAL


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in "KiB MiB" or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def without_room(spec: ScratchSpec, free_bytes: int, where: str) -> None:
    """Raise :class:`~drd.errors.ScratchError` when the backup cannot fit into the disk or its own limits."""
    if spec.engine == "redis":
        if spec.size_bytes > spec.memory_bytes:
            raise ScratchError(
                f"a backup of {size(spec.size_bytes)} cannot fit into a scratch Redis of {size(spec.memory_bytes)}",
                hint="raise the drill's memory limit",
            )
        return
    need = spec.size_bytes + _OVERHEAD_BYTES
    if need > spec.disk_bytes:
        raise ScratchError(
            f"a backup of {size(spec.size_bytes)} cannot fit into a scratch server of {size(spec.disk_bytes)}",
            hint="raise the drill's disk limit",
        )
    if need > free_bytes:
        raise ScratchError(
            f"no room for a scratch server: {where} has {size(free_bytes)} free, the backup needs {size(need)}",
            hint="free space there, or use another folder",
        )
