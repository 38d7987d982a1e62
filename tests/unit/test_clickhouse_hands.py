"""Databases change their names as they are to, whoever dies or comes in between; the process that is told to do it."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import clickhouse_connect
import pytest

from drd.engines.clickhouse import hands
from drd.engines.clickhouse.client import TARGET, Server, ServerRefusal
from drd.engines.clickhouse.handover import by_hands
from drd.engines.clickhouse.renames import Change, change_names, token_of
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.errors import TargetError, ToolError
from drd.model import Secret

BEGINNING = {"a": "new a", "a_old": "old a", "b": "new b", "b_old": "old b", "c_old": "old c"}
ENDED = {"a": "old a", "a_away": "new a", "b": "old b", "b_away": "new b", "c": "old c"}
CHANGES = (Change("a", "a_away", "a_old"), Change("b", "b_away", "b_old"), Change("c", None, "c_old"))
SETTINGS = ClickHouseSettings(
    "https://admin@ch:8443", Secret("s3cret!"), ca_file=Path("/ca.pem"), connect_timeout_s=3.5, stall_timeout_s=70.0
)


class Dead(BaseException):
    """Nothing runs any more: neither what catches errors, nor what clears up."""


class Names:
    """Databases by name, which are renamed as ClickHouse does; ``before`` is called before each rename."""

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self.settings = SETTINGS
        self.there = dict(BEGINNING)
        self.before = before
        self.sent = 0

    def rows(self, sql: str, parameters: object = None) -> list[dict[str, str]]:
        del parameters
        return [] if "processes" in sql else [{"name": name} for name in self.there]

    def execute(self, sql: str, **_: object) -> None:
        self.sent += 1
        self.before(self.sent)
        old, new = (word.strip("`") for word in sql.removeprefix("RENAME DATABASE ").split(" TO "))
        if old not in self.there:
            raise ServerRefusal(81, f"no {old}")
        if new in self.there:
            raise ServerRefusal(82, f"{new} exists")
        self.there[new] = self.there.pop(old)


def at(nth: int, raised: BaseException) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == nth:
            raise raised

    return before


def changed(server: Any) -> None:
    change_names(server, CHANGES, token_of("r"))


@pytest.mark.parametrize("nth", range(1, 6))
def test_who_comes_after_a_death_ends_it(nth: int) -> None:
    """Whatever rename was the last, the same changes lead to the same names; and again to no other."""
    server = Names(at(nth, Dead()))
    with pytest.raises(Dead):
        changed(server)
    server.before = lambda _: None
    changed(server)
    assert server.there == ENDED
    changed(server)
    assert server.there == ENDED


@pytest.mark.parametrize(("first", "again"), list(itertools.product(range(1, 6), range(1, 6))))
def test_two_who_rename_at_once_agree(first: int, again: int) -> None:
    """What the other one has just renamed is no reason to go back, wherever each of them is."""
    other = Names()

    def meanwhile(nth: int) -> None:
        if nth == first:
            other.there = server.there
            other.before = at(again, Dead())
            try:
                changed(other)
            except Dead:
                return

    server = Names(meanwhile)
    changed(server)
    assert server.there == ENDED


@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("raised", [ServerRefusal(497, "not allowed"), TargetError("lost")])
def test_a_refusal_gives_the_names_back(nth: int, raised: Exception) -> None:
    """Who had a name has it again, and the first error is told."""
    server = Names(at(nth, raised))
    with pytest.raises(type(raised), match=str(raised).replace("(", r"\(").replace(")", r"\)")):
        changed(server)
    assert server.there == BEGINNING


def test_a_stranger_under_the_name_is_left_alone() -> None:
    """A database that a client makes in the moment of no name is not taken for the built one; its refusal is told."""

    def stranger(nth: int) -> None:
        if nth == 2:
            server.there["a"] = "a client's"

    server = Names(stranger)
    with pytest.raises(ServerRefusal, match="a exists"):
        changed(server)
    assert server.there == BEGINNING | {"a": "a client's", "a_away": "new a"}


def test_an_order_says_all_that_a_connection_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads back as it was, with every setting that the client looks at; one of another version is refused."""
    order = hands.Order(SETTINGS, "r", CHANGES)
    again = hands.Order.read(order.line())
    assert (again.settings, again.restore_id, tuple(again.changes)) == (SETTINGS, "r", CHANGES)
    assert (again.ready_within_s, again.done_within_s) == (order.ready_within_s, order.done_within_s)
    nothing = replace(SETTINGS, password=None, ca_file=None)
    assert hands.Order.read(hands.Order(nothing, "r", ()).line()).settings == nothing
    with pytest.raises(ValueError, match="version 3"):
        hands.Order.read(order.line().replace(b'"version": 2', b'"version": 3'))

    known = {field.name for field in fields(ClickHouseSettings)}
    used = set()

    class Noted(ClickHouseSettings):
        def __getattribute__(self, name: str) -> Any:
            used.add(name)
            return super().__getattribute__(name)

    class Client:
        server_settings: ClassVar[dict[str, Any]] = {}

        def command(self, *_: object, **__: object) -> None:
            """Answer nothing."""

    monkeypatch.setattr(clickhouse_connect, "get_client", lambda **_: Client())
    Server(Noted(SETTINGS.url, SETTINGS.password, ca_file=SETTINGS.ca_file), TARGET).execute("SELECT 1")
    assert used & known == {"url", "password", "ca_file", "connect_timeout_s", "stall_timeout_s"}


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Traceback: password s3cret!' >&2; exit 1", r"Traceback: password \[HIDDEN\]"),
        ("exit 7", "it ended with status 7"),
        ("""read order; echo '{"ready": true}'; exec <&- >&-; sleep 1""", "it was kept waiting for too long"),
    ],
)
def test_hands_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, why: str) -> None:
    """Told with the reason, before anything was renamed; nothing runs on."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    server = Server(SETTINGS, TARGET)

    def look() -> None:
        subprocess.run(["sleep", "0.3"], check=True)  # until it has left

    with pytest.raises(ToolError, match=why) as caught:
        by_hands(server, "r", CHANGES, look)
    assert "nothing was renamed" in caught.value.hint
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(ToolError, match="No such file"):
        by_hands(server, "r", CHANGES)


def test_hands_that_nobody_orders_end_by_themselves() -> None:
    """An alarm ends them while they wait for a drd that stands still, though their input stays open."""
    code = "from drd.engines.clickhouse import hands; hands.ORDER_WITHIN_S = 1; hands.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.wait(20) == -signal.SIGALRM
