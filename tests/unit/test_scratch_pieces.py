"""The parts of scratch runtimes that need no server."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.errors import ScratchError
from drd.model import ScratchSpec
from drd.scratch import ledger, marking, owners
from drd.scratch.images import image_name
from drd.scratch.owners import Owner, ProcessId
from drd.scratch.process import ProcessRuntime
from drd.scratch.programs import choose
from drd.scratch.ready import last_words
from drd.scratch.recipes import RECIPES
from drd.scratch.recipes.recipe import numbers
from drd.scratch.sizes import without_room

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
GIB = 1 << 30


def spec(engine="postgres", version="17.2", **changes):
    values = {
        "size_bytes": GIB,
        "memory_bytes": GIB,
        "cpus": 1.0,
        "pids": 100,
        "disk_bytes": 4 * GIB,
        "expires_s": 60.0,
    }
    return ScratchSpec(engine, version, **{**values, **changes})


@pytest.mark.parametrize(
    ("engine", "version", "name"),
    [
        ("postgres", "17.2 (Debian 17.2-1.pgdg120+1)", "postgres:17"),
        ("postgres", "9.6.24", "postgres:9.6"),
        ("redis", "7.2.4", "redis:7.2"),
        ("clickhouse", "25.8.1.5101", "clickhouse/clickhouse-server:25.8"),
    ],
)
def test_each_release_has_its_image(engine, version, name):
    """The official image of the release, unless one is configured or the drill names one."""
    assert image_name(RECIPES[engine], spec(engine, version), {}) == name
    release = name.rpartition(":")[2]
    assert (
        image_name(RECIPES[engine], spec(engine, version), {engine: "mirror/x:{release}-a"}) == f"mirror/x:{release}-a"
    )
    assert (
        image_name(RECIPES[engine], spec(engine, version, image="own@sha256:0"), {engine: "mirror/x"}) == "own@sha256:0"
    )


@pytest.mark.parametrize(
    ("engine", "have", "want", "fits"),
    [
        ("postgres", "15.20", "15.3", True),
        ("postgres", "16.1", "15.3", False),
        ("redis", "7.2.4", "7.0.15", True),
        ("redis", "7.0.15", "7.2.4", False),
        ("redis", "8.0.1", "7.4.0", False),
        ("clickhouse", "26.7.2.1", "26.7.9.1", True),
        ("clickhouse", "26.8.1.1", "25.3.2.1", True),
        ("clickhouse", "25.3.2.1", "25.8.1.1", False),
        ("postgres", "15.20", "unheard of", False),
    ],
)
def test_only_a_server_that_can_read_the_backup_fits(engine, have, want, fits):
    """PostgreSQL by major version, Redis not older within one, ClickHouse not older."""
    assert RECIPES[engine].fits(numbers(have), numbers(want)) is fits


def test_the_nearest_program_is_chosen(tmp_path: Path):
    """Of several that would do, the one that is nearest to the backup's version."""
    for version in ("7.4.1", "7.2.9", "6.2.14"):
        folder = tmp_path / version
        folder.mkdir()
        program = folder / "redis-server"
        program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
        program.chmod(0o755)
    folders = [tmp_path / "7.4.1", tmp_path / "6.2.14", tmp_path / "7.2.9"]
    assert choose(RECIPES["redis"], spec("redis", "7.2.1"), folders).version == (7, 2, 9)
    with pytest.raises(ScratchError, match=r"no Redis 7.5 in .* there is 6.2.14"):
        choose(RECIPES["redis"], spec("redis", "7.5", image=str(tmp_path / "6.2.14")), folders)


def test_the_fate_of_an_owner():
    """This process is alive; another start time is another process; another host or namespace cannot be seen."""
    me = Owner.current()
    assert me.fate() == "alive"
    assert Owner.from_json(json.loads(json.dumps(me.to_json()))) == me
    assert dataclasses.replace(me, started_ticks=me.started_ticks + 1).fate() == "gone"
    assert dataclasses.replace(me, boot="another").fate() == "gone"
    assert dataclasses.replace(me, host="another", boot="another").fate() == "unknown"
    assert dataclasses.replace(me, namespace="pid:[1]").fate() == "unknown"
    for damaged in (None, [], {}, {**me.to_json(), "pid": "1"}):
        assert Owner.from_json(damaged) is None


def test_a_process_of_another_start_time_is_left_alone():
    """A number that was used again belongs to somebody else."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        found = owners.identify(process.pid)
        assert found is not None
        assert owners.end(ProcessId(found.pid, found.started_ticks + 1), signal.SIGKILL) is False
        assert process.poll() is None
        assert owners.end(found, signal.SIGTERM) is True
        assert process.wait() == -signal.SIGTERM


def entry(owner: Owner) -> ledger.Entry:
    return ledger.Entry("redis", owner, NOW + timedelta(hours=1), 9)


def test_a_folder_goes_when_its_drd_is_gone_or_it_has_expired(tmp_path: Path):
    """Not before, not while it is kept, and not while its owner cannot be seen."""
    me = Owner.current()
    dead = dataclasses.replace(me, started_ticks=1)
    later = NOW + timedelta(hours=2)
    alive = ledger.make_folder(tmp_path, entry(me), shared=False)
    left = ledger.make_folder(tmp_path, entry(dead), shared=True)
    unseen = ledger.make_folder(tmp_path, entry(dataclasses.replace(me, host="another")), shared=False)
    assert ledger.entry_of(alive) == entry(me)
    assert (alive.stat().st_mode & 0o777, left.stat().st_mode & 0o777) == (0o700, 0o711)
    assert [ledger.reason_to_remove(folder, NOW) for folder in (alive, left, unseen)] == ["", "its drd is gone", ""]
    assert {ledger.reason_to_remove(folder, later) for folder in (alive, left, unseen)} == {"it had expired"}
    (left / "kept").touch()
    assert ledger.reason_to_remove(left, NOW) == ""
    assert ledger.reason_to_remove(left, later) == "it had expired"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"owner": 1}', '{"engine": "redis", "expires_at": "never"}'])
def test_a_damaged_ledger_is_believed_in_nothing(tmp_path: Path, text: str):
    """Such a folder stays until it is surely nobody's, and names no process to end."""
    (tmp_path / "ledger.json").write_text(text)
    (tmp_path / "running.json").write_text('{"server": ["1", 2], "guardian": [1]}')
    assert ledger.entry_of(tmp_path) is None
    assert ledger.processes_of(tmp_path) == {}
    os.utime(tmp_path, (NOW.timestamp(), NOW.timestamp()))
    assert ledger.reason_to_remove(tmp_path, NOW + timedelta(minutes=5)) == ""
    assert ledger.reason_to_remove(tmp_path, NOW + timedelta(hours=2)) == "it has no ledger"


def test_labels_say_the_same_as_ledgers():
    """A container goes by the same rules; one without readable labels stays."""
    me = Owner.current()
    alive = marking.marks("0", me, NOW + timedelta(hours=1), {"run": "r"})
    dead = marking.marks("0", dataclasses.replace(me, started_ticks=1), NOW + timedelta(hours=1), {})
    assert marking.reason_to_remove(alive, NOW, kept=False) == ""
    assert marking.reason_to_remove(dead, NOW, kept=False) == "its drd is gone"
    assert marking.reason_to_remove(dead, NOW, kept=True) == ""
    assert marking.reason_to_remove(dead, NOW + timedelta(hours=2), kept=True) == "it had expired"
    assert marking.reason_to_remove({"drd.scratch": "1"}, NOW, kept=False) == ""


def test_room_is_looked_for_before_the_start():
    """Disk for what lies on disk, memory for Redis, and the limits are named."""
    without_room(spec(), 2 * GIB, "/x")
    with pytest.raises(ScratchError, match=r"/x has 1.0 GiB free"):
        without_room(spec(), GIB, "/x")
    with pytest.raises(ScratchError, match="cannot fit"):
        without_room(spec(disk_bytes=GIB), 9 * GIB, "/x")
    with pytest.raises(ScratchError, match="scratch Redis"):
        without_room(spec("redis", "7.0", size_bytes=2 * GIB), 9 * GIB, "/x")


def test_last_words_hide_the_password():
    """What a server says goes into errors; its password does not."""
    said = last_words("a\n\nb \npassword is hunter2\n" + "x" * 700, hide="hunter2")
    assert "hunter2" not in said
    assert len(said) <= 601
    assert last_words("one\ntwo\n") == "one | two"


def test_a_root_that_others_can_change_is_refused(tmp_path: Path):
    """A folder in /tmp that somebody else made, or may write, is no place for data."""
    root = tmp_path / "scratch"
    root.mkdir()
    root.chmod(0o777)
    items = ProcessRuntime(root, now=lambda: NOW).check()
    assert [item.outcome for item in items if item.name == "scratch process folder"] == ["failed"]
