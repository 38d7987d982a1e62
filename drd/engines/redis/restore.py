"""Restore: look, refuse what cannot work, choose the way, and take the other way where the first is closed."""

from __future__ import annotations

import ipaddress
from typing import Literal

from drd.engines.redis.connect import client
from drd.engines.redis.dump import ACL_ARTIFACT, RDB_ARTIFACT
from drd.engines.redis.keys import restore_keys
from drd.engines.redis.lent import take_back
from drd.engines.redis.rdb.cursor import Cursor
from drd.engines.redis.rdb.walk import is_supported, read_magic
from drd.engines.redis.replicate import CannotConnectBack, replicate
from drd.engines.redis.settings import RedisSettings
from drd.engines.redis.target import TargetNode, look, require_fit, state
from drd.engines.redis.topology import Layout
from drd.errors import IntegrityError, TargetError, TargetNotEmpty
from drd.model import Backup, Notice, RestoreResult, TargetState
from drd.protocols import ArtifactReader, WorkContext

Way = Literal["replication", "keys"]


def snapshots_of(artifacts: ArtifactReader) -> list[str]:
    """Return the names of a backup's snapshots, shard by shard."""
    names = [n for n in artifacts.names() if n == RDB_ARTIFACT or n.endswith(f"/{RDB_ARTIFACT}")]
    if not names:
        raise IntegrityError("the backup holds no snapshot")
    return names


def inspect(settings: RedisSettings, backup: Backup) -> TargetState:
    """Say where the backup would go; raises :class:`~drd.errors.TargetError` when the target cannot take it."""
    layout, nodes = look(settings)
    require_fit(settings, layout, nodes, backup)
    return state(layout, nodes)


def restore(settings: RedisSettings, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> RestoreResult:
    """Load the backup into the empty target; see :class:`drd.protocols.Engine`."""
    layout, nodes = look(settings)
    notices: list[Notice] = []
    if any(node.left_behind for node in nodes):
        notices = _take_back(settings, nodes)
        layout, nodes = look(settings)
    found = state(layout, nodes)
    if not found.empty:
        raise TargetNotEmpty(
            f"{found.description} holds {found.detail}",
            hint="nothing was changed; restore into an empty server, or FLUSHALL and FUNCTION FLUSH this one first",
        )
    require_fit(settings, layout, nodes, backup)
    snapshots = snapshots_of(artifacts)
    if ACL_ARTIFACT in artifacts.names() and settings.selection.everything:
        notices.append(
            Notice("acl_not_restored", f"users are in the backup as {ACL_ARTIFACT}, but were not changed here")
        )
    way, why = _way(settings, layout, nodes, artifacts, snapshots)
    if way == "replication":
        try:
            replicate(settings, nodes[0].address, artifacts, snapshots[0], ctx)
        except CannotConnectBack as error:
            if settings.restore_via == "replication" or not _parseable(artifacts, snapshots):
                raise
            way, why = "keys", error.message
    if way == "keys":
        restore_keys(settings, layout, artifacts, snapshots, ctx)
        if why:
            notices.append(Notice("restored_key_by_key", f"restored key by key: {why}"))
    return RestoreResult(tuple(notices))


def _take_back(settings: RedisSettings, nodes: list[TargetNode]) -> list[Notice]:
    """Undo what a restore left that was killed."""
    notices = []
    for node in nodes:
        if node.left_behind:
            with client(settings, node.address, "target", "REPLICAOF") as c:
                notices.append(take_back(c, node.address))
    return notices


def _way(
    settings: RedisSettings, layout: Layout, nodes: list[TargetNode], artifacts: ArtifactReader, snapshots: list[str]
) -> tuple[Way, str]:
    """Choose how to restore and say why not by replication."""
    if not settings.selection.everything:
        return "keys", ""
    why_not = obstacle(settings, layout, nodes, snapshots)
    if settings.restore_via == "replication":
        if why_not and (layout.kind == "cluster" or len(snapshots) > 1 or nodes[0].tls_replication):
            raise TargetError(f"restore by replication is not possible: {why_not}", hint="set restore_via: keys")
        return "replication", ""
    if settings.restore_via == "keys":
        return "keys", ""
    if why_not and _parseable(artifacts, snapshots):
        return "keys", why_not
    return "replication", ""


def obstacle(settings: RedisSettings, layout: Layout, nodes: list[TargetNode], snapshots: list[str]) -> str:
    """Return why replication from drd cannot or should not be used, or nothing."""
    if layout.kind == "cluster":
        return "a cluster does not replicate from outside"
    if len(snapshots) > 1:
        return "the backup is of a cluster with several shards"
    if nodes[0].tls_replication:
        return "the target replicates over TLS only"
    if layout.kind == "sentinel":
        return "Sentinel would take the target for failed while it replicates"
    if settings.holder_advertise:
        return ""
    if settings.tls and not _is_loopback(settings.holder_listen):
        return "replication from drd is not encrypted"
    if _is_loopback(settings.holder_listen) and not _is_loopback(nodes[0].address.host):
        return f"{nodes[0].address} cannot reach drd, which listens on {settings.holder_listen} (holder_listen)"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parseable(artifacts: ArtifactReader, snapshots: list[str]) -> bool:
    """Whether drd's own reader knows the version of every snapshot."""
    for name in snapshots:
        with artifacts.open(name, length=9) as stream:
            if not is_supported(*read_magic(Cursor([stream.read()]))):
                return False
    return True
