"""Memory and spool have ceilings that do not grow with the database; here with low limits and a table that doubles."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.postgres import Postgres
from tests.faults.conftest import MakeSite, slow_down
from tests.faults.subjects import PostgresSubject
from tests.support.drd_site import Running

pytestmark = pytest.mark.faults

MIB = 1 << 20
ROWS = 150_000  # about 100 MB
LIMIT_BYTES = 16 * MIB
PASSED_BYTES = 16 * MIB  # what a busy machine lets pg_dump write between two looks of drd
NOISE_BYTES = 24 * MIB


@dataclass
class Peak:
    """What one run of drd took at most."""

    memory_bytes: int = 0
    spool_bytes: int = 0


def peak_of(running: Running, spool: Path) -> Peak:
    """Watch a run to its end: the high-water mark of its own resident memory, and the blocks in its spool."""
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak.memory_bytes = max(peak.memory_bytes, _high_water_bytes(running.pid))
            peak.spool_bytes = max(peak.spool_bytes, _blocks_bytes(spool))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        running.finish().succeeds()
    finally:
        ended.set()
        watcher.join()
    return peak


def _high_water_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _blocks_bytes(folder: Path) -> int:
    total = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            try:
                total += Path(parent, name).stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


@pytest.fixture
def growing(postgres: Postgres) -> Iterator[PostgresSubject]:
    """Give a database with one table of some 100 MB that compresses a little, as real data do."""
    subject = PostgresSubject(postgres)
    with postgres.connect(subject.database) as session:
        session.execute("CREATE TABLE big (id int, v text)")
        grow(subject)
    yield subject
    subject.close()


def grow(subject: PostgresSubject) -> None:
    """Add ``ROWS`` rows."""
    with subject.server.connect(subject.database) as session:
        session.execute(
            """INSERT INTO big
                 SELECT n, md5(n::text) || md5((n * 3)::text) || md5((n * 7)::text) || repeat(md5(n::text), 16)
                 FROM generate_series(1, %s) n""",
            (ROWS,),
        )


def test_memory_and_spool_do_not_grow_with_the_table(make_site: MakeSite, growing: PostgresSubject) -> None:
    """With 16 MiB for parts and 16 MiB of spool, a slow store and twice the table change neither peak."""
    site = make_site(growing)
    site.config["pipeline"] = {"part_size": "1MiB", "memory": "16MiB", "workers": 2}
    site.config["spool"]["limit"] = "16MiB"
    slow_down(site, "16MiB")
    spool = Path(site.config["spool"]["dir"])
    once = peak_of(site.start("backup", "now"), spool)
    grow(growing)
    twice = peak_of(site.start("backup", "now"), spool)
    back = peak_of(site.start("restore", "--at", "now", *growing.into(), "--no-compare"), spool)
    plain = [backup["plain_bytes"] for backup in site("list", "--json").succeeds().json["backups"]]
    assert plain[0] > 80 * MIB
    assert plain[1] > 1.9 * plain[0]
    assert max(once.spool_bytes, twice.spool_bytes) <= LIMIT_BYTES + PASSED_BYTES
    assert back.spool_bytes < 1 * MIB
    assert twice.memory_bytes < once.memory_bytes + NOISE_BYTES
    assert max(once.memory_bytes, twice.memory_bytes, back.memory_bytes) < 200 * MIB
