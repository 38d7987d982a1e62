"""Daemons that are killed, stopped, reloaded and robbed of their servers, by a seeded plan: afterwards all is well.

``DRD_SOAK_S`` is how long the faults go on (15 s; an hour is a good night's run), ``DRD_SOAK_SEED`` the plan's seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import StartRedis
from tests.faults.conftest import MakeSite
from tests.faults.subjects import PostgresSubject, RedisSubject
from tests.support.daemons import RunningDaemon, timed, wait_until
from tests.support.drd_site import Site

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]
SOAK_S = float(os.environ.get("DRD_SOAK_S", "15"))
SEED = int(os.environ.get("DRD_SOAK_SEED", "5"))
RESTORED = 3
"""As many backups of each source are restored after a short soak; after one of a minute or more, all."""
LONGEST_S = 45.0
"""The longest time between two tries of a source: an interval (2 s), both daemons gone or stopped (4 s each), a lease
that expires (3 s), a back-off (2.5 s), two starts of Python on a busy machine, and a run of another source. Whether one
succeeds is up to the storm, which may well hit each of them for a minute."""


class Storm:
    """Two daemons over one store, and what happens to them."""

    def __init__(self, sites: list[Site], server: RedisSubject, seed: int) -> None:
        self.sites = sites
        self.redis = server
        self.rng = random.Random(seed)
        self.daemons = [RunningDaemon(site) for site in sites]
        self.done: list[str] = []

    def strike(self) -> None:
        """Do one thing of the plan to one of the daemons, or to the database."""
        which = self.rng.randrange(2)
        what = self.rng.choice(["kill", "kill", "kill_job", "kill_job", "stop", "reload", "term", "server"])
        self.done.append(what)
        getattr(self, what)(which)

    def kill(self, which: int) -> None:
        self.daemons[which].kill()
        self.daemons[which] = RunningDaemon(self.sites[which])

    def term(self, which: int) -> None:
        self.daemons[which].wait("daemon.started")
        self.daemons[which].end(timeout_s=60).succeeds()
        self.daemons[which] = RunningDaemon(self.sites[which])

    def kill_job(self, which: int) -> None:
        for pid in _children(self.daemons[which].pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self, which: int) -> None:
        daemon = self.daemons[which]
        victims = [daemon.pid, *_children(daemon.pid)]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(self.rng.uniform(1.0, 4.0))
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def reload(self, which: int) -> None:
        self.daemons[which].wait("daemon.started")
        self.daemons[which].signal(signal.SIGHUP)

    def server(self, which: int) -> None:
        self.redis.server.kill()
        time.sleep(self.rng.uniform(0.5, 3.0))
        self.redis.server.start()

    def tries(self, source: str) -> list[datetime]:
        """Return when a backup of a source was begun, by either daemon and its successors."""
        lines = (line for site in self.sites for path in site.folder.glob("run-*.err") for line in path.open())
        events = [json.loads(line) for line in lines if '"job.started"' in line and line.rstrip().endswith("}")]
        times = (e["timestamp"] for e in events if e["job"] == f"backup/often/{source}")
        return sorted(map(datetime.fromisoformat, times))

    def end(self) -> None:
        for daemon in self.daemons:
            daemon.wait("daemon.started")
            daemon.end(timeout_s=90).succeeds()


def _children(pid: int) -> list[int]:
    """Return the processes that a daemon started, all of whom are jobs."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def test_after_a_storm_every_backup_restores_and_no_source_was_left_out(
    start_redis: StartRedis, small_redis: RedisSubject, pg: PostgresSubject, make_site: MakeSite, tmp_path: Path
) -> None:
    """Whatever was killed at whatever moment: what is listed is whole, and each source was tried again and again."""
    stormy = RedisSubject(start_redis(name="redis-storm"), small_redis.target)
    stormy.fill(0.3)
    site = timed(make_site(stormy, pg), often={"interval": "2s"}, tidy={"do": "prune", "interval": "7s"})
    other = site.at(tmp_path / "other", spool={"dir": str(tmp_path / "other-spool"), "limit": "16MiB"})
    storm = Storm([site, other], stormy, SEED)
    try:
        ends = time.monotonic() + SOAK_S
        while time.monotonic() < ends:
            time.sleep(storm.rng.uniform(0.3, 2.5))
            storm.strike()
        before = len(_ids(site, "redis"))
        wait_until("a backup after the storm", lambda: len(_ids(site, "redis")) > before, 60, storm.daemons[0].said)
        storm.end()
    finally:
        for daemon in storm.daemons:
            if daemon.running.process.poll() is None:
                daemon.kill()
    site("verify", "--deep", timeout_s=600).succeeds()
    for subject in (stormy, pg):
        found = site("list", subject.name, "--json", write_config=False).succeeds().json["backups"]
        assert found, storm.done
        assert {item["outcome"] for item in found} == {"ok"}
        points = sorted(datetime.fromisoformat(item["recovery_point"]) for item in found)
        tries = storm.tries(subject.name)
        longest_s = max((b - a).total_seconds() for a, b in pairwise(tries))
        assert longest_s <= LONGEST_S, (longest_s, storm.done)
        chosen = points if SOAK_S >= 60 else storm.rng.sample(points, min(RESTORED, len(points)))
        for point in chosen:
            subject.clear()
            into = ["--source", subject.name, *subject.into()]
            site("restore", "--at", point.isoformat(), *into, write_config=False, timeout_s=300).succeeds()
        subject.clear()
    assert stormy.leftovers() == []
    assert pg.leftovers() == []


def _ids(site: Site, source: str) -> list[str]:
    return [path.parent.name for path in site.store_dir.glob(f"backups/{source}/*/manifest.json")]
