"""What a daemon outlives: a store, a database and a disk that fail it, and a server that never answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.alertmanager import Alertmanager
from tests.conftest import StartRedis, StartS3
from tests.faults.conftest import MakeSite, slow_down
from tests.faults.subjects import PostgresSubject, RedisSubject
from tests.support.daemons import RunningDaemon, backups, timed, wait_until
from tests.support.services import do_without

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]


AWAY_S = float(os.environ.get("DRD_STORE_AWAY_S", "4"))
"""How long the store is away; ten minutes were tried once, see docs/daemon.md."""


def ready(daemon: RunningDaemon) -> int:
    """Return the status of /readyz."""
    return daemon.get("/readyz")[0]


def used(daemon: RunningDaemon) -> tuple[float, int, int]:
    """Return the seconds of processor and the resident bytes of the daemon's own process, and its lines of log."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    busy_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return busy_s, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), len(daemon.said().splitlines())


def sit_out(daemon: RunningDaemon) -> None:
    """Have the store away for its time: the daemon lives, says why it is not ready, and does not run hot."""
    busy_s, resident, lines = used(daemon)
    failures, answered = sum(daemon.series("drd_store_operations_total", 'outcome="error"')), heartbeat(daemon)
    ends = time.monotonic() + AWAY_S
    while (left_s := ends - time.monotonic()) > 0:
        time.sleep(min(left_s, 5))
        assert daemon.running.process.poll() is None, daemon.said()
        status, body = daemon.get("/readyz")
        told = json.loads(body)
        assert (status, told["store"]["ok"], told["scheduler"]["ok"]) == (503, False, bool(answered)), body
        assert told["store"]["reason"], body
        assert daemon.get("/healthz")[0] == 200
    after = used(daemon)
    busy_s, resident, lines = after[0] - busy_s, after[1] - resident, after[2] - lines
    cost = f"{busy_s:.2f} s of processor, {resident / 2**20:+.1f} MiB, {lines} lines of log"
    sys.stdout.write(f"store away for {AWAY_S:.0f} s: {cost}\n")
    assert busy_s <= 0.3 * AWAY_S + 1
    assert resident <= 32 << 20
    assert lines <= 5 * AWAY_S + 10
    assert sum(daemon.series("drd_store_operations_total", 'outcome="error"')) > failures
    assert heartbeat(daemon) == answered, "it says that the store answered"


def heartbeat(daemon: RunningDaemon) -> float:
    """Return when the store last answered, 0 for never."""
    return sum(daemon.series("drd_heartbeat_timestamp_seconds"))


def test_a_store_that_is_away_at_the_start_and_later(
    start_s3: StartS3, make_site: MakeSite, small_redis: RedisSubject
) -> None:
    """The daemon starts without it, is not ready, works as soon as it comes, and again after it was away."""
    server = start_s3(name="s3-daemon")
    bucket = server.fresh_bucket("daemon")
    server.stop()
    store = {
        "type": "s3",
        "bucket": bucket,
        "endpoint_url": server.url,
        "access_key_id": server.objects.access_key_id,
        "secret_access_key": {"env": "S3_SECRET"},
        "connect_timeout": "1s",
        "read_timeout": "2s",
        "patience": "1s",
    }
    site = timed(make_site(small_redis, store=store), often={"interval": "2s"})
    site.env["S3_SECRET"] = server.objects.secret_access_key
    site.secrets.add(server.objects.secret_access_key)
    with RunningDaemon(site) as daemon:
        daemon.wait("store.away")
        sit_out(daemon)
        assert not daemon.of("job.started")
        server.start()
        daemon.wait("job.ended", outcome="ok")
        wait_until("readiness", lambda: ready(daemon) == 200, said=daemon.said)
        server.stop()
        daemon.wait("job.ended", outcome="failed", exit_code=12, timeout_s=60)
        daemon.wait("store.away", times=2)
        sit_out(daemon)
        assert sum(daemon.series("drd_job_consecutive_failures")) > 0
        server.start()
        back = time.monotonic()
        done = len(daemon.of("job.ended", outcome="ok"))
        daemon.wait("job.ended", outcome="ok", times=done + 1, timeout_s=60)
        daemon.wait("store.answers", times=2)
        sys.stdout.write(f"a backup {time.monotonic() - back:.1f} s after the store was back\n")
        assert heartbeat(daemon) > 0
        assert len(daemon.of("store.away")) <= 4, "it says so once each time, not at each heartbeat"
        daemon.end().succeeds()
    told = json.loads(server.client().get_object(Bucket=bucket, Key="jobs/backup/often/redis.json")["Body"].read())
    assert {"ok", "failed"} <= {run["outcome"] for run in told["runs"]}
    site("verify", write_config=False).succeeds()


@pytest.fixture
def never_answers() -> Iterator[int]:
    """Give the port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        yield deaf.getsockname()[1]


def test_a_database_that_is_down_and_one_that_never_answers(
    start_redis: StartRedis,
    make_site: MakeSite,
    small_redis: RedisSubject,
    alertmanager: Alertmanager,
    never_answers: int,
) -> None:
    """Both are tried again, told of as failed and late, and hold nobody up; the one that comes back is well again."""
    server = start_redis(name="redis-daemon")
    server.stop()
    site = timed(make_site(small_redis), hourly={"cron": "0 * * * *"}, soon={"interval": "1h"})
    deaf = f"deaf-{os.getpid()}"
    down = f"down-{os.getpid()}"
    site.sources[deaf] = {"type": "redis", "url": f"redis://127.0.0.1:{never_answers}", "deadline": "2s", "rpo": "3s"}
    site.sources[down] = {"type": "redis", "url": server.url, "password": {"env": "DOWN_SECRET"}}
    site.env["DOWN_SECRET"] = server.password
    site.secrets.add(server.password)
    site.config["alertmanager"] = {"urls": [alertmanager.url]}

    def firing(source: str) -> set[str]:
        alerts: list[dict[str, Any]] = alertmanager.alerts()
        return {a["labels"]["alertname"] for a in alerts if a["labels"].get("source") == source}

    with RunningDaemon(site) as daemon:
        daemon.wait("job.ended", outcome="ok", source="redis")
        failed = daemon.wait("job.ended", outcome="failed", source=deaf, timeout_s=60)
        assert failed["exit_code"] == 13
        daemon.wait("job.ended", outcome="failed", source=down, times=2)
        wait_until("alerts", lambda: firing(down) == {"DrdBackupFailed"}, said=daemon.said)
        wait_until("lateness", lambda: firing(deaf) == {"DrdBackupFailed", "DrdBackupLate"}, said=daemon.said)
        server.start()
        daemon.wait("job.ended", outcome="ok", source=down)
        wait_until("the alert to end", lambda: not firing(down), said=daemon.said)
        daemon.end(timeout_s=60).succeeds()
    assert len(backups(site, down)) == 1


SMALL_DISK = 'mount -t tmpfs -o "size=3m" none "$DISK" || exit 99; exec "$@"'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_fails_the_job_and_not_the_daemon(make_site: MakeSite, pg: PostgresSubject) -> None:
    """The job says which folder is full; with another folder, by a reload, the next try succeeds."""
    site = timed(make_site(pg), nightly={"interval": "1h"})
    disk = site.folder / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        do_without("this machine allows no mount namespace")
    site.config["spool"] = {"dir": str(disk), "limit": "64MiB"}
    site.env["DISK"] = str(disk)
    slow_down(site, "300KiB")
    with RunningDaemon(site, argv=("unshare", "--mount", "sh", "-c", SMALL_DISK, "sh")) as daemon:
        failed = daemon.wait("job.ended", outcome="failed", timeout_s=60)
        assert failed["exit_code"] == 13
        assert "is full" in failed["message"]
        assert str(disk) in failed["message"]
        text = site.config_file.read_text().replace(str(disk), str(site.folder / "room")).replace("300KiB", "1GiB")
        site.config_file.write_text(text)
        daemon.signal(signal.SIGHUP)
        daemon.wait("config.reloaded")
        daemon.wait("job.ended", outcome="ok", timeout_s=60)
        daemon.end(timeout_s=60).succeeds()
    assert Path(site.folder, "room").is_dir()
    assert len(backups(site, "pg")) == 1
