"""Several daemons of one repository, people beside them, and holders of leases that die or stand still."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import MakeSite, slow_down
from tests.faults.subjects import PostgresSubject, RedisSubject, parts_in_store
from tests.support.daemons import RunningDaemon, backups, history, job_of, timed, wait_until
from tests.support.drd_site import Site

pytestmark = pytest.mark.faults
JOB = "backup/often/redis"
ELSEWHERE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A process number space of its own: nobody outside knows whether a holder in it lives, as if on another host."""


@pytest.fixture
def site(make_site: MakeSite, small_redis: RedisSubject) -> Site:
    """Give a site with a small Redis that is backed up every second."""
    return timed(make_site(small_redis), often={"interval": "1s"})


def beside(site: Site, folder: Path) -> Site:
    """Give a second site over the same store."""
    return site.at(folder / "second", spool={"dir": str(folder / "second-spool"), "limit": "16MiB"})


def done_since(daemon: RunningDaemon, count: int) -> bool:
    return len(daemon.of("job.ended", outcome="ok")) > count


def test_one_of_two_daemons_plans_and_the_other_takes_over(site: Site, tmp_path: Path) -> None:
    """It does when the first stands still past its lease, which then, woken, notices; and back after a kill -9."""
    with RunningDaemon(site) as first:
        first.wait("job.ended", outcome="ok")
        with RunningDaemon(beside(site, tmp_path), argv=ELSEWHERE) as second:
            second.wait("store.answers", leader=False)
            time.sleep(1.5)
            assert not second.of("job.started")

            first.signal(signal.SIGSTOP)
            second.wait("leader.gained")
            second.wait("job.ended", outcome="ok")
            first.signal(signal.SIGCONT)
            first.wait("leader.lost")
            started = len(first.of("job.started"))
            done = len(second.of("job.ended", outcome="ok"))
            wait_until("more backups by the second", lambda: done_since(second, done), said=second.said)
            assert len(first.of("job.started")) == started
            runs = history(site, JOB)["runs"]
            assert [run["planned_at"] for run in runs] == sorted((run["planned_at"] for run in runs), reverse=True)

            second.kill()
            killed = time.monotonic()
            first.wait("leader.gained", times=2)
            assert time.monotonic() - killed > 0.9, "the lease of one that may live was not waited for"
            done = len(first.of("job.ended", outcome="ok"))
            wait_until("backups by the first again", lambda: done_since(first, done), said=first.said)
            first.end().succeeds()
    site("verify", "redis", write_config=False).succeeds()


def test_a_daemon_that_is_killed_is_followed_at_once_on_its_own_host(site: Site, tmp_path: Path) -> None:
    """Where everybody can see that the holder is gone, nobody waits; what its job was at is cancelled and made anew."""
    with RunningDaemon(site) as first:
        first.wait("job.ended", outcome="ok")
        job = job_of(first)
        first.kill()
        with RunningDaemon(beside(site, tmp_path)) as second:
            second.wait("leader.gained", timeout_s=15)
            second.wait("job.ended", outcome="ok")
            wait_until("the orphan to end", lambda: not Path(f"/proc/{job}/cmdline").exists() or _zombie(job))
            second.end().succeeds()
    site("verify", "redis", write_config=False).succeeds()


def _zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_job_that_stood_still_past_its_lease_publishes_nothing(pg: PostgresSubject, make_site: MakeSite) -> None:
    """Its process is stopped in the middle of a backup; a person takes the source over; woken, it notices."""
    site = timed(make_site(pg), nightly={"interval": "1h"})
    slow_down(site, "4MiB")
    with RunningDaemon(site, argv=ELSEWHERE) as daemon:
        wait_until("parts in the store", lambda: parts_in_store(site, "pg") > 2, said=daemon.said)
        pid = _of_command("drd.cli.job", site)
        os.kill(pid, signal.SIGSTOP)
        by_hand = site.at(site.folder.parent / "hand", spool={"dir": str(site.folder / "hand-spool"), "limit": "16MiB"})
        slow_down(by_hand, None)
        run = wait_until("the lease to expire", lambda: _ok(by_hand), timeout_s=60)
        made = backups(site, "pg")
        assert [b["id"] for b in run.json["backups"]] == made
        os.kill(pid, signal.SIGCONT)
        ended = daemon.wait("job.ended", timeout_s=60)
        assert (ended["outcome"], ended["exit_code"]) == ("skipped", 11), ended
        assert "took over" in ended["message"]
        assert backups(site, "pg") == made
        daemon.kill()
    by_hand("verify", "pg", "--deep").succeeds()


def _ok(site: Site) -> object:
    run = site("backup", "now", "--json")
    assert run.rc in {0, 11}, run.described
    return run if run.rc == 0 else None


def _of_command(word: str, site: Site) -> int:
    """Return the pid of the process below this site's daemon whose command line has the word."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                here = (entry / "cwd").readlink() == site.folder
                if here and word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError(f"no process {word}")


def test_people_and_daemons_exclude_each_other(pg: PostgresSubject, make_site: MakeSite) -> None:
    """While a person backs a source up, the daemon's turn is skipped, is no failure, and comes again soon after."""
    site = timed(make_site(pg), nightly={"interval": "1h"})
    by_hand = site.at(site.folder.parent / "hand", spool={"dir": str(site.folder / "hand-spool"), "limit": "16MiB"})
    slow_down(by_hand, "300KiB")
    hand = by_hand.start("backup", "now")
    wait_until("parts in the store", lambda: parts_in_store(site, "pg") > 0)
    with RunningDaemon(site) as daemon:
        skipped = daemon.wait("job.ended", outcome="skipped")
        assert "another drd works on" in skipped["message"]
        hand.process.send_signal(signal.SIGINT)
        assert hand.finish().rc == 130
        daemon.wait("job.ended", outcome="ok", timeout_s=60)
        assert not daemon.of("job.ended", outcome="failed")
        daemon.end(timeout_s=60).succeeds()
    assert history(site, "backup/nightly/pg")["failures"] == 0
    assert len(backups(site, "pg")) == 1
