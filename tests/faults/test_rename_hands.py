"""Databases of ClickHouse change places, and drd, its second pair of hands, or both die on the way.

A relay holds one of the renames, so that each of them dies exactly there. Two databases change places, by four renames.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.clickhouse import ClickHouse
from devstack.errors import DevstackError
from devstack.process import ProcessId, descendants, identify, is_alive
from drd.engines.clickhouse.quoting import literal
from drd.engines.marks import Mark, kept_name
from tests.faults import renaming_drd
from tests.faults.subjects import wait_for
from tests.support.clickhouse_relay import Held, Relay, relay_to
from tests.support.drd_site import ROOT
from tests.support.replace_site import reading

pytestmark = pytest.mark.faults

ID = "20261122T181455Z-k3f9qa"
RENAME = "RENAME DATABASE"
SIGN = "drd-alive-"


class Swap:
    """Two live databases that hold "new", and beside them two that hold "old"; a drd is to put these in their place."""

    def __init__(self, server: ClickHouse, relay: Relay, prefix: str) -> None:
        self.server = server
        self.relay = relay
        self.live = (f"{prefix}_a", f"{prefix}_b")
        self.old = tuple(kept_name(ID, name, "old") for name in self.live)
        self.names = [*self.live, *self.old, *(kept_name(ID, name, "undone") for name in self.live)]
        for live, old in zip(self.live, self.old, strict=True):
            for name, value in ((live, "new"), (old, "old")):
                server.query(f"CREATE DATABASE {name}")
                server.query(f"CREATE TABLE {name}.t ENGINE = Log AS SELECT '{value}' AS v")
            server.query(f"CREATE MATERIALIZED VIEW {old}.parked ENGINE = Log AS SELECT v FROM {old}.t")
            server.query(f"DETACH TABLE {old}.parked PERMANENTLY")
            mark = literal(Mark(ID, "old", live, "its own", ("parked",)).text())
            server.query(f"ALTER DATABASE {old} MODIFY COMMENT {mark}")

    def values(self) -> list[str]:
        """Read both live databases; raises where one has no name."""
        return [self.server.query(f"SELECT v FROM {name}.t").strip() for name in self.live]

    def demand_finished(self) -> None:
        """Demand that both live databases hold what was kept, with their comment and their view."""
        assert self.values() == ["old", "old"]
        for name in self.live:
            assert self.server.query(f"SELECT count() FROM {name}.parked").strip() == "0"
            comment = f"SELECT comment FROM system.databases WHERE name = '{name}'"
            assert self.server.query(comment).strip() == "its own"

    def absent(self) -> list[str]:
        there = {row["name"] for row in self.server.rows("SELECT name FROM system.databases")}
        return [name for name in self.live if name not in there]

    def undone(self) -> bool:
        """Whether both live names are there, and hold what was kept."""
        try:
            return self.values() == ["old", "old"]
        except DevstackError:  # between two renames
            return False

    def begin(self, verb: str = "undo") -> subprocess.Popen[str]:
        """Start the drd."""
        process = subprocess.Popen(
            [sys.executable, renaming_drd.__file__, verb, ID],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        assert process.stdin
        order = {"url": self.relay.url, "password": self.server.password, "ca_file": str(self.relay.ca_file)}
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return process

    def begin_until(self, word: str, nth: int) -> tuple[subprocess.Popen[str], Held]:
        """Start the drd and hold the n-th statement with ``word`` that it or its hands send; return once it is held."""
        held = self.relay.hold(word, nth)
        drd = self.begin()
        held.reached()
        return drd, held

    def clear(self) -> None:
        for name in self.names:
            self.server.query(f"DROP DATABASE IF EXISTS {name} SYNC")


def hands_of(drd: subprocess.Popen[str]) -> ProcessId:
    me = identify(drd.pid)
    assert me
    (found,) = descendants(me)
    return found


def end(drd: subprocess.Popen[str]) -> str:
    """Wait for a drd that was not killed; return what it printed."""
    said, _ = drd.communicate(timeout=30)
    return said


def kill(drd: subprocess.Popen[str]) -> None:
    drd.kill()
    drd.communicate(timeout=30)


def left_alone(hands: ProcessId) -> None:
    """Demand that the hands end by themselves."""
    wait_for("the hands to end", lambda: not is_alive(hands))


@pytest.fixture(scope="module")
def relay(clickhouse_source: ClickHouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Give a relay with TLS, whose certificate only its own ``ca_file`` knows."""
    with relay_to(clickhouse_source.port, tmp_path_factory.mktemp("relay")) as made:
        yield made


@pytest.fixture
def swap(clickhouse_source: ClickHouse, clickhouse_database: str, relay: Relay) -> Iterator[Swap]:
    """Give databases that are about to change places."""
    made = Swap(clickhouse_source, relay, clickhouse_database)
    yield made
    made.clear()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_drd_is_killed_at_a_rename(swap: Swap, nth: int) -> None:
    """Before the first, between both, between two databases: all names are there without any further drd."""
    drd, held = swap.begin_until(RENAME, nth)
    hands = hands_of(drd)
    assert os.getsid(hands.pid) == os.getpgid(hands.pid) == hands.pid
    for kind in ("cmdline", "environ"):
        assert swap.server.password.encode() not in Path(f"/proc/{hands.pid}/{kind}").read_bytes()
    assert swap.absent() == ([swap.live[0]] if nth == 2 else [])
    kill(drd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(hands.pid, number)
    with reading(swap.values) as reader:
        held.release()
        left_alone(hands)
        time.sleep(0.1)
    assert reader.seen[-1] == ["old", "old"], reader.failed
    swap.demand_finished()
    assert end(swap.begin("undo")).count("_undone_") == 2


@pytest.mark.parametrize(("word", "nth"), [("ATTACH TABLE", 1), ("ATTACH TABLE", 2), ("MODIFY COMMENT", 4)])
def test_drd_is_killed_after_the_renames(swap: Swap, word: str, nth: int) -> None:
    """While it attaches views again, or gives a comment back: the hands do what is left, and then leave."""
    drd, held = swap.begin_until(word, nth)
    hands = hands_of(drd)
    kill(drd)
    held.release()
    left_alone(hands)
    swap.demand_finished()
    end(swap.begin("recover"))
    swap.demand_finished()


def test_drd_is_killed_before_it_says_go(swap: Swap) -> None:
    """The hands connect, find nobody there any more, and leave without a rename."""
    drd, held = swap.begin_until(SIGN, 1)
    hands = hands_of(drd)
    kill(drd)
    before = len(swap.relay.statements)
    held.release()
    left_alone(hands)
    assert not any(RENAME in text for text in swap.relay.statements[before:])
    assert swap.values() == ["new", "new"]


def test_the_hands_are_killed(swap: Swap) -> None:
    """Drd notices at once, and ends the renames itself; its exit code says so."""
    drd, held = swap.begin_until(RENAME, 2)
    os.kill(hands_of(drd).pid, signal.SIGKILL)
    wait_for("drd to go on", lambda: not swap.absent())
    held.release()  # and comes too late
    assert end(drd).count("_undone_") == 2
    assert drd.returncode == 0
    assert swap.values() == ["old", "old"]


def test_both_are_killed(swap: Swap) -> None:
    """Then a name is absent, as is said in docs/replace.md, and the next drd gives it its database."""
    drd, held = swap.begin_until(RENAME, 2)
    hands = hands_of(drd)
    kill(drd)
    os.kill(hands.pid, signal.SIGKILL)
    held.drop()
    left_alone(hands)
    assert swap.absent() == [swap.live[0]]
    end(swap.begin("recover"))
    assert swap.values() == ["old", "new"]
    assert end(swap.begin("undo")).count("_undone_") == 2
    assert swap.values() == ["old", "old"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_rename_is_refused(swap: Swap, killed: bool) -> None:
    """The fourth of four: both databases have their names again, whether drd lives to hear of it or not."""
    drd, held = swap.begin_until(RENAME, 4)
    hands = hands_of(drd)
    swap.server.query(f"DROP DATABASE {swap.old[1]} SYNC")
    if killed:
        kill(drd)
    held.release()
    if not killed:
        assert "(code 81)" in end(drd)
        assert drd.returncode == 13
    left_alone(hands)
    assert swap.values() == ["new", "new"]


def test_drd_is_suspended(swap: Swap) -> None:
    """The hands do not wait for it; it goes on from where they came to."""
    drd, held = swap.begin_until(RENAME, 2)
    drd.send_signal(signal.SIGSTOP)
    held.release()
    wait_for("the names", swap.undone)
    drd.send_signal(signal.SIGCONT)
    assert end(drd).count("_undone_") == 2
    assert drd.returncode == 0


def test_the_next_drd_waits_for_the_hands(swap: Swap) -> None:
    """One that comes while they are at it touches nothing before they have ended."""
    drd, held = swap.begin_until(RENAME, 2)
    hands = hands_of(drd)
    kill(drd)
    before = len(swap.relay.statements)
    following = swap.begin("recover")
    wait_for("it to look", lambda: sum(SIGN in text for text in swap.relay.statements[before:]) > 2)
    assert is_alive(hands)
    assert not any("COMMENT" in text or RENAME in text for text in swap.relay.statements[before:])
    held.release()
    end(following)
    assert following.returncode == 0
    assert swap.values() == ["old", "old"]
