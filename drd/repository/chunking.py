"""Where an artifact is cut into parts: a rule of the offset alone.

A table that only grew is therefore cut as it was yesterday, and its old parts can be referred to. Small artifacts
are cut small, so that they spread over the workers; large ones large, so that a terabyte stays near 30,000 objects.
"""

from __future__ import annotations

from drd.errors import ConfigError

MIB = 1 << 20
DEFAULT_PART_BYTES = 8 * MIB
MAX_BASE_BYTES = 64 * MIB
MAX_PART_BYTES = 4 * MAX_BASE_BYTES
"""No part of any backup decodes to more: what a reader may be asked to hold."""


def part_size_at(offset: int, base_bytes: int = DEFAULT_PART_BYTES) -> int:
    """Return the plain size of the part that begins at ``offset`` (only an artifact's last part is shorter).

    With the default base: 8 MiB up to 512 MiB, 16 MiB up to 2 GiB, 32 MiB after; other bases scale alike. Each
    threshold is a multiple of the sizes on both sides of it, so a part never crosses one.
    """
    if offset < 64 * base_bytes:
        return base_bytes
    if offset < 256 * base_bytes:
        return 2 * base_bytes
    return 4 * base_bytes


def piece_part_size(piece_bytes: int, base_bytes: int = DEFAULT_PART_BYTES) -> int:
    """Return the plain size of the parts of a piece: as few as four times ``base_bytes`` allow, all but alike."""
    count = max(1, -(-piece_bytes // (4 * base_bytes)))
    return max(1, -(-piece_bytes // count))


def validate_part_size(base_bytes: int) -> int:
    """Return ``base_bytes`` if it may be configured as ``pipeline.part_size``; raise ConfigError otherwise."""
    if not 1 <= base_bytes <= MAX_BASE_BYTES:
        raise ConfigError(
            f"pipeline.part_size of {base_bytes} bytes is out of range",
            hint=f"choose 1 byte to {MAX_BASE_BYTES // MIB} MiB; 8MiB is the default",
        )
    return base_bytes
