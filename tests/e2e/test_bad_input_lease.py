"""Two drd at work on one source: the second is refused by name and harms nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import MakeSite
from tests.support.drd_site import Running, Site
from tests.support.trading_site import POSTGRES, REDIS

pytestmark = pytest.mark.e2e


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """Give a site of two sources."""
    return make_site(POSTGRES, REDIS)


@pytest.fixture
def holder(site: Site) -> Iterator[Running]:
    """Give a backup of Redis that stands still in its middle, holding the lease."""
    site.config["store"]["max_bandwidth"] = "64KiB"
    running = site.start("backup", "now", REDIS)
    leases = site.store_dir / "leases" / f"source-{REDIS}"
    deadline = time.monotonic() + 30
    while not list(leases.glob("*.json")):
        assert running.process.poll() is None, running.finish().described
        assert time.monotonic() < deadline, "no lease was taken"
        time.sleep(0.01)
    running.process.send_signal(signal.SIGSTOP)
    del site.config["store"]["max_bandwidth"]
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.send_signal(signal.SIGCONT)
        running.process.wait()


def test_lease_held_by_a_live_holder(site: Site, holder: Running) -> None:
    """The source at work elsewhere is exit 11 with the holder's pid; the other source is backed up; both end well."""
    site("backup", "now", REDIS).fails(11, f"backup {REDIS}: ", str(holder.pid))
    site("backup", "now").fails(11, f"backup {REDIS}: ", str(holder.pid), rc=3)
    assert [line["source"] for line in site("list", "--json").succeeds().json["backups"]] == [POSTGRES]
    assert len(site("verify", "--json").succeeds().json["unfinished"]) <= 1

    holder.process.send_signal(signal.SIGCONT)
    holder.finish().succeeds()
    site("verify", "--deep").succeeds()
    assert sorted(line["source"] for line in site("list", "--json").succeeds().json["backups"]) == [POSTGRES, REDIS]


def test_lease_of_a_dead_holder(site: Site, holder: Running) -> None:
    """A holder of this host that was killed blocks nobody: the next run takes over and sweeps."""
    holder.process.kill()
    holder.process.wait()
    site("backup", "now", REDIS).succeeds()
    assert len(site("list", REDIS, "--json").succeeds().json["backups"]) == 1
    site("verify", "--deep").succeeds()
