"""Sites whose drills run in scratch servers of the runtime ``process``, and what such servers leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from devstack import standins
from tests.support.drd_site import ROOT, Site
from tests.support.services import present

TRADING_SUITE = ROOT / "restore_drills" / "trading.yaml"
CLOSED = {
    "postgres": "postgresql://admin@127.0.0.1:1/x",
    "redis": "redis://127.0.0.1:1",
    "clickhouse": "http://a@127.0.0.1:1",
}


def with_drills(site: Site, scratch_root: Path, **drills: dict[str, Any]) -> Site:
    """Configure drills, and scratch servers below ``scratch_root``; sources become ones that nobody can reach."""
    with present():
        programs = {"clickhouse": str(standins.clickhouse_programs())}
    site.config["scratch"] = {"dir": str(scratch_root), "programs": programs}
    site.config["drills"] = drills
    for source in site.sources.values():
        source["url"] = CLOSED[source["type"]]
        source["password"] = {"env": "NOBODY_SETS_THIS"}
    return site


def left_behind(scratch_root: Path) -> list[str]:
    """Return folders of scratch servers, and processes that run from them."""
    found = [str(path) for path in scratch_root.glob("*")] if scratch_root.exists() else []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(scratch_root) in (entry / "cwd").readlink().as_posix():
                found.append(f"process {entry.name}")
        except OSError:  # it ended meanwhile
            continue
    return found
