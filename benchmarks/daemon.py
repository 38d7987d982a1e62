"""What an idle daemon costs: memory and processor time with 3 and with 100 sources, each with a month of backups.

And how soon the page of 200 sources with 10,000 backups comes: wall time to its first byte and the daemon's processor
time for it, by a client that asks now and then, as a person does.

``python benchmarks/daemon.py [SECONDS]``: nothing is due, the heartbeat is the default (a minute), health and page are
served on a free port of loopback, the store is a folder. Memory is the proportional set size (PSS), after a first
heartbeat and at the end; the promise is 120 MiB, 200 MiB with 100 sources, and 1 % of one processor.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import yaml

from drd.model import Backup
from drd.repository.catalog import Catalog
from drd.repository.layout import new_backup_id
from drd.repository.repository import Repository
from drd.stores.local import LocalStore

MIB = 1 << 20
BACKUPS = 30
MANY_SOURCES, MANY_BACKUPS, PAGES = 200, 50, 40


def fill(folder: Path, sources: int, backups: int = BACKUPS) -> None:
    """Put a backup a day of each source into the store: manifests alone, as nobody looks for more."""
    store = LocalStore(folder)
    now = datetime.now(UTC)
    info = Repository(store).open_or_create(now)
    catalog = Catalog(store)
    for number in range(sources):
        for days in range(backups, 0, -1):
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


def show_page(daemon: int, log: Path) -> None:
    """Ask for the page again and again, and print how soon its first byte came."""
    port = int(re.findall(r"127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))[0])
    waited_s, spent_s, size = [], [], 0
    before = pss_mib(daemon)
    for _ in range(PAGES):
        time.sleep(1.3)  # longer than a page that was made for somebody else is given to others
        used, began = processor_s(daemon), time.monotonic()
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/", headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        waited_s.append(time.monotonic() - began)
        size = len(answer.read())
        spent_s.append(processor_s(daemon) - used)
        connection.close()
    p95 = statistics.quantiles(waited_s, n=20)[-1]
    wall = f"{1000 * statistics.median(waited_s):.0f} ms (median), {1000 * p95:.0f} ms (p95)"
    memory = f"PSS {before:.1f} MiB, {pss_mib(daemon):.1f} MiB after"
    spent = f"{1000 * statistics.mean(spent_s):.0f} ms of processor"
    print(f"  page, {size >> 10} KiB packed, {PAGES} times: first byte after {wall}, {spent}; {memory}", flush=True)


def measure(sources: int, seconds: float, backups: int = BACKUPS, *, page: bool = False) -> None:
    """Print one line of figures."""
    with tempfile.TemporaryDirectory(prefix="drd-bench-") as name:
        folder = Path(name)
        fill(folder / "store", sources, backups)
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
            work = f"{sources:4d} sources, {sources * backups:5d} backups"
            print(f"{work}: {memory}, {100 * share:5.2f} % of a processor", flush=True)
            if page:
                show_page(daemon.pid, log)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)


if __name__ == "__main__":
    lasts = float(sys.argv[1]) if len(sys.argv) > 1 else 180
    for count in (3, 100):
        measure(count, lasts)
    measure(MANY_SOURCES, lasts, MANY_BACKUPS, page=True)
