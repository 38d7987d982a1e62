"""The daemon does what its schedules say, on real servers, and ends as it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack.redis import Redis
from tests.faults.conftest import new_site
from tests.faults.subjects import RedisSubject
from tests.support.daemons import RunningDaemon, backups, history
from tests.support.drd_site import Site

pytestmark = pytest.mark.faults


@pytest.fixture
def site(tmp_path: Path, redis_source: Redis, redis_target: Redis) -> Site:
    """Give a site with a small Redis that is backed up every two seconds."""
    subject = RedisSubject(redis_source, redis_target)
    subject.fill(0.5)
    made = new_site(tmp_path, subject)
    made.config["schedules"] = {"often": {"interval": "2s"}}
    made.config["daemon"] = {"listen": "127.0.0.1:0", "lease": "2s", "heartbeat": "1s", "grace": "1s"}
    return made


def test_backs_up_again_and_again_and_ends_cleanly(site: Site) -> None:
    """Backups come by the interval, each a line of history in the store; SIGTERM ends the daemon with 0."""
    with RunningDaemon(site) as daemon:
        daemon.wait("job.ended", outcome="ok", times=2)
        daemon.end().succeeds()
    found = history(site, "backup/often/redis")
    assert found["failures"] == 0
    assert {run["backup"] for run in found["runs"] if run["outcome"] == "ok"} == set(backups(site, "redis"))
    assert len(found["runs"]) >= 2
