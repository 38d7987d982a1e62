"""What an idle daemon costs: memory and processor time with 3 and with 100 sources, each with a month of backups.

``python benchmarks/daemon.py [SECONDS]``: nothing is due, the heartbeat is the default (a minute), health and page are
served on a free port of loopback, the store is a folder. Memory is the proportional set size (PSS), after a first
heartbeat and at the end; the promise is 120 MiB, 200 MiB with 100 sources, and 1 % of one processor.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from drd.model import Backup
from drd.repository.catalog import Catalog
from drd.repository.layout import new_backup_id
from drd.repository.repository import Repository
from drd.stores.local import LocalStore

MIB = 1 << 20
BACKUPS = 30


def fill(folder: Path, sources: int) -> None:
    """Put a month of backups of each source into the store: manifests alone, as nobody looks for more."""
    store = LocalStore(folder)
    now = datetime.now(UTC)
    info = Repository(store).open_or_create(now)
    catalog = Catalog(store)
    for number in range(sources):
        for days in range(BACKUPS, 0, -1):
            at = now - timedelta(days=days)
            catalog.publish(
                Backup(
                    id=new_backup_id(at),
                    source=f"source-{number:03d}",
                    engine="redis",
                    engine_version="7.2.4",
                    kind="full",
                    parent=None,
                    started_at=at,
                    finished_at=at + timedelta(seconds=4),
                    recovery_point=at,
                    window_start=None,
                    artifacts=(),
                    compression="zstd",
                    encryption="none",
                    recipients=(),
                    plain_bytes=0,
                    stored_bytes=0,
                    rows=1000,
                    lease_generation=1,
                    repository_id=info.id,
                )
            )
    store.close()


def configuration(folder: Path, sources: int) -> Path:
    """Write a configuration whose schedules are due once a year."""
    names = [f"source-{number:03d}" for number in range(sources)]
    document = {
        "store": {"type": "local", "path": str(folder / "store")},
        "sources": {name: {"type": "redis", "url": "redis://127.0.0.1:1"} for name in names},
        "schedules": {"yearly": {"cron": "0 0 1 1 *"}, "tidy": {"do": "prune", "cron": "0 1 1 1 *"}},
        "daemon": {"listen": "127.0.0.1:0", "state_dir": str(folder / "state")},
    }
    path = folder / "drd.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def pss_mib(pid: int) -> float:
    """Return the proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / MIB


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def measure(sources: int, seconds: float) -> None:
    """Print one line of figures."""
    with tempfile.TemporaryDirectory(prefix="drd-bench-") as name:
        folder = Path(name)
        fill(folder / "store", sources)
        log = folder / "log"
        with log.open("wb") as stream:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "drd", "--config", str(configuration(folder, sources)), "daemon"], stderr=stream
            )
        try:
            while b"leader.gained" not in log.read_bytes():
                time.sleep(0.1)
            time.sleep(20)  # the first look at every source, and the first page
            first, used, began = pss_mib(daemon.pid), processor_s(daemon.pid), time.monotonic()
            time.sleep(seconds)
            share = (processor_s(daemon.pid) - used) / (time.monotonic() - began)
            memory = f"{first:6.1f} MiB, {pss_mib(daemon.pid):6.1f} MiB after {seconds:.0f} s"
            work = f"{sources:4d} sources, {sources * BACKUPS:5d} backups"
            print(f"{work}: {memory}, {100 * share:5.2f} % of a processor", flush=True)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)


if __name__ == "__main__":
    for count in (3, 100):
        measure(count, float(sys.argv[1]) if len(sys.argv) > 1 else 180)
