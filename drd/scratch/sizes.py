"""Whether there is room for a scratch server."""

from __future__ import annotations

from drd.errors import ScratchError
from drd.model import ScratchSpec
from drd.wording import size

_OVERHEAD_BYTES = 128 << 20  # an empty cluster, its logs and its WAL


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
