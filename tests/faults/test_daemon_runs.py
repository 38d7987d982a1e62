"""The daemon does what its schedules say, on real servers, and ends as it should."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.conftest import MakeSite, new_site, slow_down, spools
from tests.faults.subjects import ClickHouseSubject, PostgresSubject, RedisSubject, parts_in_store
from tests.support.daemons import RunningDaemon, backups, history, job_of, timed, wait_until
from tests.support.drd_site import Site
from tests.support.services import do_without

pytestmark = pytest.mark.faults
JOB = "backup/often/redis"


@pytest.fixture
def site(make_site: MakeSite, small_redis: RedisSubject) -> Site:
    """Give a site with a small Redis that is backed up every two seconds."""
    return timed(make_site(small_redis), often={"interval": "2s"})


@contextmanager
def listening(path: Path, heard: list[str]) -> Iterator[None]:
    """Be systemd: take down the first line of every datagram that comes to the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))

        def listen() -> None:
            while (word := channel.recv(4096).decode().split("\n")[0]) != "OVER":
                heard.append(word)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            channel.sendto(b"OVER", str(path))
            thread.join()


def test_backs_up_tells_systemd_reloads_and_ends_cleanly(site: Site) -> None:
    """One life: ready, backups, a reload that is refused and one that is taken, watchdog, an end with nothing lost."""
    heard: list[str] = []
    with listening(site.folder / "notify", heard):
        site.env |= {"NOTIFY_SOCKET": str(site.folder / "notify"), "WATCHDOG_USEC": "300000"}
        with RunningDaemon(site) as daemon:
            daemon.wait("job.ended", outcome="ok", job=JOB)
            good = site.config_file.read_text()
            site.config_file.write_text(good.replace("often", "0ften: {").replace("store", "stor"))
            daemon.signal(signal.SIGHUP)
            daemon.wait("config.refused")
            daemon.wait("job.ended", outcome="ok", job=JOB, times=2)
            changed = yaml.safe_load(good) | {
                "schedules": {"other": {"interval": "1s"}, "tidy": {"do": "prune", "interval": "1s"}}
            }
            site.config_file.write_text(yaml.safe_dump(changed))
            daemon.signal(signal.SIGHUP)
            daemon.wait("config.reloaded")
            daemon.wait("job.ended", outcome="ok", job="backup/other/redis")
            daemon.wait("job.ended", outcome="ok", job="prune/tidy/redis")
            daemon.end().succeeds()
    assert heard[0] == "READY=1"
    assert heard.count("RELOADING=1") == 2
    assert heard.count("READY=1") == 3
    assert heard.count("WATCHDOG=1") >= 3
    assert heard[-2:] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=121000000"]
    told = {run["backup"] for job in (JOB, "backup/other/redis") for run in history(site, job)["runs"] if run["backup"]}
    assert told <= set(backups(site, "redis"))
    assert len(told) >= 2
    assert site("backup", "now", write_config=False).rc == 0  # leases were released


def test_sigterm_has_a_backup_under_way_undone(pg: PostgresSubject, make_site: MakeSite) -> None:
    """After its grace a running backup is cancelled: pg_dump is gone, no part and no manifest stays."""
    site = timed(make_site(pg), nightly={"interval": "1h"})
    slow_down(site)
    with RunningDaemon(site) as daemon:
        wait_until("parts in the store", lambda: parts_in_store(site, "pg") > 2, said=daemon.said)
        daemon.end(timeout_s=60).succeeds()
        assert daemon.of("job.ended", outcome="cancelled")
    assert pg.leftovers() == []
    assert backups(site, "pg") == []
    assert parts_in_store(site, "pg") == 0
    assert spools(site) == []
    found = history(site, "backup/nightly/pg")
    assert found["retry"]["tries"] == 0
    slow_down(site, None)
    with RunningDaemon(site) as daemon:  # who comes next goes on with it at once
        daemon.wait("job.ended", outcome="ok")
        assert daemon.of("job.started")[0]["why"] == "retry"


def test_sigterm_ends_the_backup_that_clickhouse_makes(clickhouse: ClickHouseSubject, make_site: MakeSite) -> None:
    """After the grace the server's own BACKUP is gone as well; no manifest, no part, no lease and no process stay."""
    site = timed(make_site(clickhouse), nightly={"interval": "1h"})
    slow_down(site, "1MiB")
    with RunningDaemon(site) as daemon:
        wait_until("parts in the store", lambda: parts_in_store(site, "clickhouse"), 60, daemon.said)
        assert [row["status"] for row in _made_by_drd(clickhouse)] == ["CREATING_BACKUP"]
        job = job_of(daemon)
        began = time.monotonic()
        daemon.end(timeout_s=120).succeeds()
        took_s = time.monotonic() - began
        assert daemon.of("daemon.cancelling"), "it was given its grace first"
        assert daemon.of("job.ended", outcome="cancelled", exit_code=130)
    assert [row["status"] for row in _made_by_drd(clickhouse)] in ([], ["BACKUP_CANCELLED"], ["BACKUP_FAILED"])
    assert clickhouse.leftovers() == []
    assert not Path(f"/proc/{job}").exists()
    assert backups(site, "clickhouse") == []
    assert parts_in_store(site, "clickhouse") == 0
    assert spools(site) == []
    leases = [json.loads(path.read_text()) for path in site.store_dir.glob("leases/*/*.json")]
    assert len(leases) == 2
    assert all(lease["released"] for lease in leases)
    assert took_s < 60, "the job was killed and had no time to clear up"


def _made_by_drd(clickhouse: ClickHouseSubject) -> list[dict[str, Any]]:
    """Return the newest backup that the server knows of."""
    return clickhouse.server.rows("SELECT status FROM system.backups ORDER BY start_time DESC LIMIT 1")


def test_a_second_signal_ends_it_at_once_and_the_next_daemon_clears_up(
    pg: PostgresSubject, make_site: MakeSite
) -> None:
    """No waiting for the grace; what is left behind is no backup, and the next run sweeps it."""
    site = timed(make_site(pg), nightly={"interval": "1h"})
    site.config["daemon"]["grace"] = "5m"
    slow_down(site)
    with RunningDaemon(site) as daemon:
        wait_until("parts in the store", lambda: parts_in_store(site, "pg") > 2, said=daemon.said)
        job = job_of(daemon)
        daemon.signal(signal.SIGTERM)
        daemon.wait("daemon.draining")
        time.sleep(0.5)
        ended = daemon.end(timeout_s=10)
        assert (ended.rc, "Traceback" in daemon.said()) == (130, False)
    wait_until("the job's process to be gone", lambda: not Path(f"/proc/{job}").exists())
    wait_until("pg_dump to be gone", lambda: not [line for line in pg.leftovers() if "pg_dump" in line])
    assert backups(site, "pg") == []
    slow_down(site, None)
    site("backup", "now").succeeds()
    assert len(backups(site, "pg")) == 1


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that every user may look into (pytest's own are private to root)."""
    made = Path(tempfile.mkdtemp(prefix="drd-open-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


READ_ONLY = r"""
for folder in "$STATE" "$STORE"; do mount --bind "$folder" "$folder"; done
for folder in /bin /boot /etc /home /lib /opt /root /sbin /srv /tmp /usr /var /work; do
  if [ -d "$folder" ] && [ ! -L "$folder" ]; then
    mount --rbind "$folder" "$folder" && mount -o remount,bind,ro "$folder" || exit 9
  fi
done
# It may read all there is, since the tests' own Python may lie in root's home, and write nothing more for it.
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search \
  -- "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the system read-only for others")
def test_nobody_on_a_read_only_system(open_folder: Path, small_redis: RedisSubject) -> None:
    """Without root, writing only below state_dir: backups are made, also after all of state_dir was removed."""
    probe = ["unshare", "--mount", "sh", "-c", "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        do_without("this machine lets nobody make mounts")
    site = timed(new_site(open_folder / "site", small_redis), often={"interval": "1s"})
    state, store = site.folder / "state", site.store_dir
    del site.config["spool"]["dir"]
    for folder in (state, store):
        folder.mkdir()
        os.chown(folder, 65534, 65534)
    os.chown(site.identity_file, 65534, 65534)
    site.folder.chmod(0o755)
    site.env |= {"STATE": str(state), "STORE": str(store), "HOME": "/nonexistent"}
    with RunningDaemon(site, argv=("unshare", "--mount", "sh", "-c", READ_ONLY, "sh")) as daemon:
        daemon.wait("job.ended", outcome="ok")
        assert "Uid:\t65534" in Path(f"/proc/{daemon.pid}/status").read_text()
        for entry in state.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        done = len(daemon.of("job.ended", outcome="ok"))
        daemon.wait("job.ended", outcome="ok", times=done + 2)
        assert daemon.of("job.ended", outcome="failed") == [], daemon.said()
        daemon.end().succeeds()
    assert len(backups(site, "redis")) >= 3
