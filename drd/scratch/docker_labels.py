"""Find the containers, networks and volumes that are marked as a scratch server's, and remove those that may go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drd.scratch.docker_engine import Client, mapped
from drd.scratch.marking import MARK, NAME, reason_to_remove

KEPT = "drd-kept-"
_SELECT = {"label": f"{MARK}=1"}


def reap(client: Client, now: datetime, *, kept_too: bool = False) -> list[str]:
    """Remove the containers, then the networks and volumes, that may go; return a line for each container.

    With ``kept_too`` also those that were kept.
    """
    lines: list[str] = []
    staying: set[str] = set()
    removed: set[str] = set()
    with mapped("look for scratch servers that were left behind"):
        containers = client.containers.list(all=True, filters=_SELECT, ignore_removed=True)
        volumes = client.volumes.list(filters=_SELECT)
        networks = client.networks.list(filters=_SELECT)
    kept = {volume.name.removeprefix(KEPT) for volume in volumes if volume.name.startswith(KEPT)}
    for container in containers:
        server_id = container.labels.get(f"{MARK}.id", "")
        why = reason_to_remove(container.labels, now, kept=server_id in kept and not kept_too)
        if why and server_id:
            remove(client, server_id)
            removed.add(server_id)
            lines.append(f"removed the container {container.name}: {why}")
        else:
            staying.add(server_id)
    for other in (*networks, *volumes):
        found = dict(other.attrs.get("Labels") or {})
        server_id = found.get(f"{MARK}.id", "")
        if not server_id or server_id in staying | removed or not (why := reason_to_remove(found, now, kept=False)):
            continue
        remove(client, server_id)
        removed.add(server_id)
        lines.append(f"removed what was left of the container {NAME}{server_id}: {why}")
    return lines


def remove(client: Client, server_id: str) -> None:
    """Remove all that has the labels of one server; what is gone already is fine. Raises ScratchError."""
    mine = {"label": f"{MARK}.id={server_id}"}
    what = f"the scratch container {NAME}{server_id}"
    by_hand = f"docker rm --force --volumes {NAME}{server_id}"
    with mapped(f"remove {what}", by_hand):
        for container in client.containers.list(all=True, filters=mine, ignore_removed=True):
            _gone(lambda container=container: container.remove(force=True, v=True))
    with mapped(f"remove the network and volume of {what}", by_hand):
        for network in client.networks.list(filters=mine):
            _gone(network.remove)
        for volume in client.volumes.list(filters=mine):
            _gone(volume.remove)


def _gone(removal: Any) -> None:
    import docker.errors

    try:
        removal()
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if error.status_code != 409 or "already in progress" not in str(error.explanation):
            raise
