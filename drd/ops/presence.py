"""Tell an empty repository from none: an unmounted disk and a wrong prefix must not look like "no backups yet"."""

from __future__ import annotations

from drd.errors import CatalogError
from drd.ops.ports import Ports


def demand_repository(ports: Ports) -> list[str]:
    """Return the sources in the store; raises :class:`~drd.errors.CatalogError` when no repository is there at all.

    Where only ``drd.json`` was lost there are backups still, and each stands by its own manifest.
    """
    sources = ports.catalog.sources()
    if not sources and ports.repository.peek() is None:
        ports.repository.open()
    return sources


def why_no_repository(ports: Ports) -> CatalogError | None:
    """Return what :func:`demand_repository` raises, None when there is a repository."""
    try:
        demand_repository(ports)
    except CatalogError as error:
        return error
    return None
