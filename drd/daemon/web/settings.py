"""Where and to whom the daemon shows itself: values alone, made of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from drd.model import Secret

MOST_HEAD_BYTES = 16 << 10
"""Of a request: its line and headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to listen: ``host`` and ``port`` (0: a free one), or a ``unix`` socket; with a certificate, over TLS."""

    host: str = "127.0.0.1"
    port: int = 8088
    unix: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __str__(self) -> str:
        if self.unix is not None:
            return f"unix:{self.unix}"
        scheme = "https" if self.cert_file else "http"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may read and who may change; ``hosts`` are the names by which the server may be asked for, None: any.

    Without ``token`` everybody may read who can connect; without ``control_token`` nobody may change anything.
    """

    token: Secret | None = None
    control_token: Secret | None = None
    hosts: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """All of it; ``textfile`` is where metrics are written to besides, if anywhere."""

    place: Place = field(default_factory=Place)
    access: Access = field(default_factory=Access)
    textfile: Path | None = None
