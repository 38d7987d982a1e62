"""Answers of some length go packed to clients that take gzip: a page of many sources is a tenth of its size then.

Nothing that is packed holds a secret, so its length tells an onlooker none.
"""

from __future__ import annotations

import gzip

WORTH_BYTES = 1024
"""Shorter answers fit a packet as they are."""
_LEVEL = 5


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip, by its header ``Accept-Encoding`` (RFC 9110, 12.5.3)."""
    wanted = {}
    for item in accept_encoding.lower().split(","):
        name, _, parameters = item.partition(";")
        wanted[name.strip()] = _weight(parameters)
    return wanted.get("gzip", wanted.get("*", 0.0)) > 0


def packed(data: bytes) -> bytes:
    """Return the same for the same data."""
    return gzip.compress(data, _LEVEL, mtime=0)


def _weight(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
