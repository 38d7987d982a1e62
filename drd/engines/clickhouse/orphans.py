"""BACKUPs and RESTOREs that a killed drd left running: the server goes on with them against a gateway that is gone.

A job is ended only when its id is one of ours that names its owner, it runs under our own user, and the owner shows no
sign of life (:mod:`alive`). All others are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from drd.engines.clickhouse import alive
from drd.engines.clickhouse.client import ACCESS_DENIED, Server, ServerRefusal
from drd.engines.clickhouse.job import OWNED, RUNNING, kill_job
from drd.model import Notice

_UNOWNED = re.compile(r"drd-\d{8}T\d{6}Z-[a-z0-9]{6}-[0-9a-f]{8}")
_UNSEEN = "jobs that a killed drd may have left on the server were not looked for, as the user may not see them"
_VERBS = {"CREATING_BACKUP": "BACKUP", "RESTORING": "RESTORE"}


def end_orphans(server: Server) -> list[Notice]:
    """End the jobs of drds that are gone and wait until the server has let go of them; say what was done.

    A job that does not end within half a minute is named in a notice with the statement that ends it. A user who may
    not see what runs ends nothing, and is told so.
    """
    try:
        running = _running(server)
    except ServerRefusal as refusal:
        if refusal.number != ACCESS_DENIED:
            raise
        return [Notice("orphans-unseen", f"{_UNSEEN}: {refusal.text}")]
    owners = {job_id: found.group(1) for job_id in running if (found := OWNED.fullmatch(job_id))}
    gone = alive.gone(server, set(owners.values()))
    notices: list[Notice] = []
    for job_id, row in running.items():
        verb = _VERBS[row["status"]]
        if owners.get(job_id) in gone:
            if left := kill_job(server, job_id):
                notices.append(Notice("orphan-left", f"a {verb} of a drd that was killed ({job_id}) goes on: {left}"))
            else:
                notices.append(Notice("orphan-ended", f"ended a {verb} that a drd left when it was killed ({job_id})"))
        elif _UNOWNED.fullmatch(job_id):
            end = f"KILL QUERY WHERE query_id = '{row['query_id']}'"
            text = f"the server runs a {verb} of drd ({job_id}) that shows no sign whether its drd lives; if not: {end}"
            notices.append(Notice("orphan-unclear", text))
    return notices


def queries_of(server: Server, owner: str) -> list[str]:
    """Give the query ids of one owner's jobs that still run."""
    return [
        row["query_id"]
        for job_id, row in _running(server).items()
        if (found := OWNED.fullmatch(job_id)) and found.group(1) == owner
    ]


def _running(server: Server) -> dict[str, Mapping[str, Any]]:
    """Map the id of each job of drd's that runs under our own user to its row."""
    rows = server.rows(
        "SELECT b.id AS id, b.query_id AS query_id, toString(b.status) AS status FROM system.backups AS b "
        "INNER JOIN system.processes AS p ON p.query_id = b.query_id "
        "WHERE startsWith(b.id, 'drd-') AND p.user = currentUser() ORDER BY id"
    )
    return {row["id"]: row for row in rows if row["status"] in RUNNING}
