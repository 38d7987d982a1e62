"""Ports over a store, for tests of operations."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from drd.cancel import CancelToken
from drd.ops.ports import Ports, Tuning
from drd.protocols import Store
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.lease import Holder
from drd.repository.repository import Repository
from tests.support.engine import DictFormat


def make_ports(store: Store, folder: Path, *, holder: Holder | None = None, codec: Codec | None = None) -> Ports:
    """Wire operations to ``store``, with small parts and the engine of :mod:`tests.support.engine`."""
    return Ports(
        store=store,
        codec=codec or Codec(1),
        repository=Repository(store),
        catalog=Catalog(store),
        formats=lambda _kind: DictFormat(),
        tuning=Tuning(2, 64 << 10, 1 << 20, folder / "spool", 1 << 20, 2),
        holder=holder or Holder.of_this_process(),
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        cancel=CancelToken(),
        progress=lambda _step: None,
    )
