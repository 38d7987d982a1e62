"""Daemons that are killed, stopped, reloaded and robbed of their servers, by a seeded plan: afterwards all is well.

``DRD_SOAK_S`` is how long it goes on (15 s; an hour is a good night's run), ``DRD_SOAK_SEED`` the plan's seed. A long
storm comes in rounds of five minutes, after each of which everything is verified and some of it restored; after the
last one, all. ``pytest -rP`` shows what happened.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartRedis
from tests.faults.conftest import MakeSite
from tests.faults.subjects import PostgresSubject, RedisSubject
from tests.support.daemons import RunningDaemon, timed, wait_until
from tests.support.drd_site import Site
from tests.support.soak_times import DaemonLife, idle_s, leaderless_s

pytestmark = [pytest.mark.faults, pytest.mark.timeout(9000)]
SOAK_S = float(os.environ.get("DRD_SOAK_S", "15"))
SEED = int(os.environ.get("DRD_SOAK_SEED", "5"))
ROUND_S = 300.0
RESTORED = 3
"""As many backups of each source are restored after a round; after the last one of a long soak, all."""
KEPT = 12
LEADERLESS_S = 20.0
"""The longest time without a leader while a daemon is up and nobody harms it: a lease that expires (3 s), a heartbeat
(1 s), and the rest for a machine that has other things to do."""
IDLE_S = 20.0
"""The longest time that leaders leave a source alone: an interval (2 s) or a back-off (2.5 s), and the rest for the
machine. A run of another source keeps nobody waiting, as two may run at once."""
DIED, SERVER_GONE = 1, 13
"""What a job may fail with in this storm: its process was killed, or the database was."""


class Storm:
    """Two daemons over one store, and what happens to them."""

    def __init__(self, sites: list[Site], server: RedisSubject, pg: PostgresSubject, seed: int) -> None:
        self.sites = sites
        self.redis = server
        self.pg = pg
        self.rng = random.Random(seed)
        self.daemons: list[RunningDaemon] = []
        self.lives: list[DaemonLife] = []
        self.done: Counter[str] = Counter()

    def begin(self) -> None:
        """Start both daemons."""
        self.daemons = []
        for which in range(2):
            self._start(which)

    def _start(self, which: int) -> None:
        daemon = RunningDaemon(self.sites[which])
        self.daemons[which : which + 1] = [daemon]
        self.lives.append(DaemonLife(which, daemon.running.err_path))

    def life(self, which: int) -> DaemonLife:
        """Return the life of the daemon that runs there now."""
        return next(life for life in reversed(self.lives) if life.which == which)

    def strike(self) -> None:
        """Do one thing of the plan to one of the daemons, or to a database."""
        which = self.rng.randrange(2)
        what = self.rng.choice(["kill", "kill", "kill_job", "kill_job", "stop", "reload", "term", "server", "write"])
        self.done[what] += 1
        getattr(self, what)(which)

    def kill(self, which: int) -> None:
        self.life(which).ended_at = time.time()
        self.daemons[which].kill()
        self._start(which)

    def term(self, which: int) -> None:
        self.daemons[which].wait("daemon.started")
        self.life(which).ended_at = time.time()
        self.daemons[which].end(timeout_s=90).succeeds()
        self._start(which)

    def kill_job(self, which: int) -> None:
        for pid in _children(self.daemons[which].pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self, which: int) -> None:
        daemon = self.daemons[which]
        victims = [daemon.pid, *_children(daemon.pid)]
        began = time.time()
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(self.rng.uniform(1.0, 4.0))
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.life(which).stops.append((began, time.time()))

    def reload(self, which: int) -> None:
        self.daemons[which].wait("daemon.started")
        self.daemons[which].signal(signal.SIGHUP)

    def server(self, which: int) -> None:
        self.redis.server.kill()
        time.sleep(self.rng.uniform(0.5, 3.0))
        self.redis.server.start()

    def write(self, which: int) -> None:
        self.pg.grow(0.02)
        with self.redis.server.client() as client:
            client.set(f"storm:{self.rng.randrange(50)}", self.rng.randbytes(2000))

    def end(self) -> None:
        """End both daemons in peace."""
        for which, daemon in enumerate(self.daemons):
            daemon.wait("daemon.started")
            self.life(which).ended_at = time.time()
            daemon.end(timeout_s=90).succeeds()

    def kill_all(self) -> None:
        """Leave nothing running, whatever happened."""
        for daemon in self.daemons:
            if daemon.running.process.poll() is None:
                daemon.kill()


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
    site.config["retention"] = {"keep_last": KEPT, "keep_within": None}
    other = site.at(tmp_path / "other", spool={"dir": str(tmp_path / "other-spool"), "limit": "16MiB"})
    storm = Storm([site, other], stormy, pg, SEED)
    ends, restored, rounds = time.monotonic() + SOAK_S, 0, 0
    while time.monotonic() < ends:
        first = len(storm.lives)
        try:
            storm.begin()
            calm_at = min(ends, time.monotonic() + ROUND_S)
            while time.monotonic() < calm_at:
                time.sleep(storm.rng.uniform(0.3, 2.5))
                storm.strike()
            for name in ("redis", "pg"):
                _wait_for_another(site, name, storm)
            storm.end()
        finally:
            storm.kill_all()
        told = _judge(storm.lives[first:])
        rounds += 1
        restored += _look(site, storm, [stormy, pg], whole=SOAK_S >= ROUND_S / 2 and time.monotonic() >= ends)
        sys.stdout.write(
            f"round {rounds}, seed {SEED}: {dict(storm.done)} so far, {restored} backups restored so far; {told}\n"
        )
        sys.stdout.flush()
    assert stormy.leftovers() == []
    assert pg.leftovers() == []


def _wait_for_another(site: Site, source: str, storm: Storm) -> None:
    before = set(_ids(site, source))
    wait_until(
        f"a backup of {source} after the storm", lambda: set(_ids(site, source)) - before, 120, storm.daemons[0].said
    )


def _judge(lives: list[DaemonLife]) -> str:
    """Demand that no source was left out and nothing failed but for what the storm did; return what happened."""
    events = [event for life in lives for event in life.events]
    bugs = [
        event
        for event in events
        if event["event"] in {"job.broken", "heart.failed", "dispatcher.failed", "history.damaged"}
    ]
    assert not bugs, bugs
    ended = [event for event in events if event["event"] == "job.ended"]
    strange = [
        event for event in ended if event["outcome"] == "failed" and event["exit_code"] not in {DIED, SERVER_GONE}
    ]
    assert not strange, strange
    assert not [event for event in ended if event["exit_code"] == DIED and "signal 9" not in event["message"]], ended
    leaderless = leaderless_s(lives)
    assert leaderless <= LEADERLESS_S, leaderless
    said = [f"longest without a leader {leaderless:.1f} s"]
    for name in ("redis", "pg"):
        idle = idle_s(lives, name)
        assert idle <= IDLE_S, (name, idle)
        good = sum(event["outcome"] == "ok" and event["job"] == f"backup/often/{name}" for event in ended)
        said.append(f"{good} backups of {name}, longest idle {idle:.1f} s")
    return "; ".join(said)


def _look(site: Site, storm: Storm, subjects: list[Any], *, whole: bool) -> int:
    """Verify everything, and restore what is listed, ``whole`` or a few; return how many backups that were."""
    site("verify", "--deep", timeout_s=600).succeeds()
    count = 0
    for subject in subjects:
        found = site("list", subject.name, "--json", write_config=False).succeeds().json["backups"]
        assert found, storm.done
        assert {item["outcome"] for item in found} == {"ok"}
        points = sorted(datetime.fromisoformat(item["recovery_point"]) for item in found)
        chosen = points if whole else storm.rng.sample(points, min(RESTORED, len(points)))
        for point in chosen:
            subject.clear()
            into = ["--source", subject.name, *subject.into()]
            site("restore", "--at", point.isoformat(), *into, write_config=False, timeout_s=300).succeeds()
            count += 1
        subject.clear()
    return count


def _ids(site: Site, source: str) -> list[str]:
    return [path.parent.name for path in site.store_dir.glob(f"backups/{source}/*/manifest.json")]
