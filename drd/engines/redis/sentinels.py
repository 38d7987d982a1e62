"""The Sentinels that watch a primary while its data is replaced: they are given patience, and see it back in its role.

A Sentinel takes a primary for failed once it has not answered, or has reported a replica's role, for longer than
``down-after-milliseconds`` (for the role: two periods of INFO longer; redis ``sentinelCheckSubjectivelyDown``). Both
happen in a swap: held writes hold the Sentinel's own PUBLISH, and behind it its PING. So each gets an hour more. If
drd is killed then, the mark on the primary (:mod:`.borrowed`) says that the hour is to be taken off again; if nobody
comes within it, they fail over to a replica, which is as good as any.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from drd.engines.redis.connect import Client, mapped, open_client, text
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.topology import discover
from drd.errors import DrdError, TargetError

PATIENCE_MS = 3_600_000
_SETTING = "down-after-milliseconds"
_TIMEOUT_S = 10.0
_SEES_IT_S = 40.0  # a Sentinel asks a primary for INFO every ten seconds
_POLL_S = 0.2
_TROUBLE = frozenset({"s_down", "o_down", "failover_in_progress", "disconnected"})


class StillPatient(TargetError):
    """A Sentinel could not be given its own settings again: it would take an hour longer to notice a failure."""

    code = "sentinel_patient"


@dataclass(frozen=True, slots=True)
class Watch:
    """The Sentinels of one primary, by what they call it. None: nobody watches."""

    settings: RedisSettings
    name: str
    addresses: tuple[Address, ...]

    def ask(self) -> dict[Address, dict[str, str]]:
        """Return what each of them says of the primary; raises TargetError when one does not answer."""
        out = {}
        for address in self.addresses:
            with self.client(address) as client:
                out[address] = _row(client.execute_command("SENTINEL", "MASTER", self.name))
        return out

    def set_patience(self, values: dict[Address, int]) -> None:
        """Set after how many milliseconds each takes the primary for failed."""
        for address, value in values.items():
            with self.client(address) as client:
                client.execute_command("SENTINEL", "SET", self.name, _SETTING, value)

    @contextmanager
    def client(self, address: Address) -> Iterator[Client]:
        """Lend a client of one of them."""
        login = self.settings.sentinel_login
        try:
            with (
                mapped("target", address, login, "SENTINEL"),
                closing(open_client(self.settings, address, login, timeout_s=_TIMEOUT_S)) as client,
            ):
                yield client
        except DrdError as error:
            error.add_hint("every Sentinel of this primary must be reached, or one might fail it over")
            raise


def watch_of(settings: RedisSettings) -> Watch | None:
    """Find all Sentinels that watch the configured primary: who is configured, and whom that one knows."""
    name = settings.sentinel_master
    if not name:
        return None
    problem: DrdError | None = None
    for address in dict.fromkeys([settings.address, *(Address.parse(s, 26379) for s in settings.sentinels)]):
        try:
            with Watch(settings, name, ()).client(address) as client:
                rows = client.execute_command("SENTINEL", "SENTINELS", name)
        except DrdError as error:
            problem = error
            continue
        peers = [Address(peer["ip"], int(peer["port"])) for peer in map(_row, rows)]
        return Watch(settings, name, (address, *peers))
    raise problem or TargetError(f"no sentinel answers for {name}")


def replicas_of(settings: RedisSettings) -> list[Address]:
    """Name the replicas that the Sentinels know and that are up; nothing where nobody watches."""
    watch = watch_of(settings)
    if watch is None:
        return []
    with watch.client(watch.addresses[0]) as client:
        rows = [_row(row) for row in client.execute_command("SENTINEL", "REPLICAS", watch.name)]
    return [Address(row["ip"], int(row["port"])) for row in rows if not _TROUBLE & set(row["flags"].split(","))]


def require_calm(settings: RedisSettings) -> int:
    """Raise TargetError unless every Sentinel answers and sees the primary up; return how many there are."""
    watch = watch_of(settings)
    if watch is None:
        return 0
    for address, said in watch.ask().items():
        if trouble := sorted(_TROUBLE & set(said.get("flags", "").split(","))):
            raise TargetError(
                f"the sentinel {address} sees {watch.name} as {', '.join(trouble)}: it may be failed over any moment",
                hint=f"wait until it is well, then run again; to look: SENTINEL MASTER {watch.name}",
            )
    return len(watch.addresses)


@contextmanager
def patience(settings: RedisSettings, primary: Address) -> Iterator[None]:
    """Keep every Sentinel from failing the primary over while the block runs.

    Raises :class:`StillPatient` when one cannot be told that it is over, and TargetError when the primary is another
    one before the block, or after it.
    """
    watch = watch_of(settings)
    if watch is None:
        yield
        return
    own = {address: int(said[_SETTING]) for address, said in watch.ask().items()}
    try:
        watch.set_patience({address: value + PATIENCE_MS for address, value in own.items()})
        _require_primary(settings, primary, "nothing was changed; run again")
        yield
        _require_primary(settings, primary, "what it holds serves now; to try again, run it again")
    finally:
        _let_go(watch, own)


def relax(settings: RedisSettings) -> None:
    """Take off the hour that a killed swap gave; raises :class:`StillPatient`."""
    if (watch := watch_of(settings)) is not None:
        given = {address: int(said[_SETTING]) for address, said in watch.ask().items()}
        _let_go(watch, {address: value - PATIENCE_MS for address, value in given.items() if value > PATIENCE_MS})


def _let_go(watch: Watch, own: dict[Address, int]) -> None:
    """Wait until each sees a primary again, then give it its own patience back: earlier it would fail it over."""
    until = time.monotonic() + _SEES_IT_S
    try:
        while any(said.get("role-reported") != "master" for said in watch.ask().values()):
            if time.monotonic() > until:
                raise TargetError("they see a replica in the primary's place")
            time.sleep(_POLL_S)
        watch.set_patience(own)
    except DrdError as error:
        values = ", ".join(f"{address} {value}" for address, value in own.items())
        raise StillPatient(
            f"the sentinels of {watch.name} could not be given their own {_SETTING} again ({values}): {error.message}",
            hint=f"on each: SENTINEL SET {watch.name} {_SETTING} with its value",
        ) from error


def _require_primary(settings: RedisSettings, primary: Address, then: str) -> None:
    found = discover(settings, "target").shards[0].primary
    if found != primary:
        raise TargetError(f"the sentinels made {found} the primary in the place of {primary}", hint=then)


def _row(words: list[bytes]) -> dict[str, str]:
    """Read a list of names and values."""
    return dict(zip(map(text, words[::2]), map(text, words[1::2]), strict=False))
