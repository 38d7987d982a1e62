"""Replace the data set of a live Redis at once: the server loads the new one beside the old and changes over.

drd plays the primary, as for any restore by replication, and says that its snapshot is of the server's own history;
with ``repl-diskless-load swapdb`` the server then goes on answering reads from the old data set while it loads, and
drops it only when the new one is whole (7.0 and newer; 6.2 answers ``-LOADING`` meanwhile). There is no place for two
data sets under names, so the old one is first backed up, while writes wait (``CLIENT PAUSE … WRITE``, which ends by
itself should drd be killed). From then until the end the server takes no writes. Sources: redis
``src/replication.c`` (``readSyncBulkPayload``), the commands' documentation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Literal

import redis

from drd.engines.redis import live, rights, sentinels
from drd.engines.redis.borrowed import Loan, give_back, holds_new, lend, own_settings, read_loan
from drd.engines.redis.connect import Client, config_get, mapped, open_client
from drd.engines.redis.engine import RedisEngine
from drd.engines.redis.fingerprint import aligned, from_scans
from drd.engines.redis.primary import ActingPrimary
from drd.engines.redis.rdb.scan import NOT_CHECKED, scan_chunks
from drd.engines.redis.replicate import Job, promote, wait_for_append_only_file, wait_for_connection, wait_for_load
from drd.engines.redis.restore import obstacle, snapshots_of
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.target import TargetNode, look, require_fit
from drd.engines.redis.topology import read_info
from drd.errors import IntegrityError, TargetError
from drd.model import Backup, Fingerprint, Notice, Progress, Recovered, compare_fingerprints
from drd.protocols import ArtifactReader, Engine, WorkContext

_PAUSE_MS = 10_000
_PAUSE_AGAIN_S = 3.0
_OLDEST = (6, 2)
_ALONE_S = 15.0
_POLL_S = 0.1


class RedisReplacer:
    """Implements :class:`drd.protocols.Replacer`; keeps what :meth:`stage` learned of a snapshot until :meth:`swap`."""

    keeps: Literal["beside", "backup"] = "backup"

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._found: Fingerprint | None = None
        self._expected: Fingerprint | None = None
        self._swapped: set[str] = set()

    def survey(self, backup: Backup, artifacts: ArtifactReader) -> Sequence[str]:
        """Say the steps; raises TargetError for a cluster, an old server, too little memory, a Sentinel in alarm."""
        node = self._node(backup, artifacts)
        with_replicas = int(node.info.get("connected_slaves", "0") or 0)
        watchers = sentinels.require_calm(self._settings)
        patient = (f"have {watchers} sentinel(s) wait with a failover until the end",) if watchers else ()
        return (
            f"read the snapshot whole and compare it with the fingerprint; {node.address} serves on",
            *patient,
            "hold writes (reads go on), and back its data up to the store, pinned: the way back",
            "load the snapshot beside the old data and change over at once, writes are refused meanwhile",
            "read every key back, then take writes again"
            + (f"; its {with_replicas} replica(s) synchronise anew" if with_replicas else ""),
        )

    def stage(self, restore_id: str, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Sequence[Notice]:
        """Read the snapshot whole: checksum, structure and counts, before the server is asked for anything."""
        del restore_id
        self._node(backup, artifacts)
        (name,) = snapshots_of(artifacts)
        with artifacts.open(name) as stream:
            scan = scan_chunks(stream.chunks(), self._settings.tools_dir, ctx.cancel)
        if scan.structure == NOT_CHECKED:
            raise TargetError(
                f"the snapshot is of a version ({scan.magic} {scan.version}) that drd cannot read before a swap",
                hint="restore it into an empty server with --into, or use a newer drd",
            )
        self._found, self._expected = from_scans([scan]), None
        return ()

    def fingerprint(self, restore_id: str, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Return what the snapshot holds."""
        del restore_id, ctx
        if self._found is None:
            raise AssertionError("stage() comes first")
        self._expected = expected
        return aligned(expected, self._found)

    def swap(
        self,
        restore_id: str,
        backup: Backup,
        artifacts: ArtifactReader,
        ctx: WorkContext,
        save_old: Callable[[Engine], None],
    ) -> Sequence[str]:
        """Save the old data set, change over, read the new one back, and only then take writes again."""
        settings, node = self._settings, self._node(backup, artifacts)
        sentinels.require_calm(settings)
        with (
            mapped("target", node.address, settings.login, "REPLICAOF"),
            closing(open_client(settings, node.address, settings.login)) as client,
        ):
            job = Job(settings, node.address, client, ctx)
            with (
                _lent(job, restore_id) as loan,
                sentinels.patience(settings, node.address),
                _writes_held(settings, node.address) as release,
            ):
                ctx.progress(Progress(ctx.source, "save the old data"))
                save_old(RedisEngine(replace(settings, prefer="primary")))
                ctx.cancel.raise_if_cancelled()
                self._change_over(job, loan, artifacts, release)
            wait_for_append_only_file(job)
        return ()

    def _change_over(self, job: Job, loan: Loan, artifacts: ArtifactReader, release: Callable[[], None]) -> None:
        """Make the server load the snapshot as drd's replica, and its own primary again, whatever happens."""
        settings, ctx, client = job.settings, job.ctx, job.client
        (name,) = snapshots_of(artifacts)
        size, sent = artifacts.size(name), [0]

        def passed(count: int) -> None:
            sent[0] += count
            ctx.progress(Progress(ctx.source, "swap", sent[0], size, "replication"))

        def snapshot() -> Iterator[memoryview]:
            sent[0] = 0
            with artifacts.open(name) as stream:
                yield from stream.chunks()

        history = read_info(client, "replication").get("master_replid", "")
        with (
            ActingPrimary(
                settings.holder_listen, size, snapshot, passed, ctx.deadline_s, (history, loan.offset)
            ) as primary,
            ctx.cancel.on_cancel(primary.stop),
        ):
            primary.password = loan.password
            announced = Address(settings.holder_advertise or settings.holder_listen, primary.address.port)
            client.execute_command("REPLICAOF", announced.host, announced.port)
            try:
                release()  # writes are refused from here on: who waits with one is told so
                wait_for_connection(job, primary, announced)
                wait_for_load(job, primary)
                self._compare(ctx)
            finally:
                promote(job)
                if holds_new(client, loan):
                    self._swapped.add(loan.restore)

    def _compare(self, ctx: WorkContext) -> None:
        """Read the new data set back from the server, while nobody else can write to it."""
        if self._expected is None:
            return
        ctx.progress(Progress(ctx.source, "compare"))
        if wrong := compare_fingerprints(self._expected, live.fingerprint(self._settings, self._expected, ctx)):
            raise IntegrityError(
                f"loaded, but not equal to the fingerprint: {wrong[0].name}: {wrong[0].fact} expected "
                f"{wrong[0].expected}, found {wrong[0].found}"
            )

    def recover(self, restore_id: str) -> Recovered:
        """Make a server that a killed swap left a primary of its own again, with all of the old data or of the new."""
        if restore_id in self._swapped:
            return Recovered(replaced=True)
        layout, nodes = look(self._settings)
        if layout.kind == "cluster":
            return Recovered(replaced=None)
        primary = nodes[0].address
        for address in (primary, *sentinels.replicas_of(self._settings)):
            with (
                mapped("target", address, self._settings.login, "REPLICAOF"),
                closing(open_client(self._settings, address, self._settings.login)) as client,
            ):
                loan = read_loan(config_get(client, "masterauth"))
                if loan is not None and loan.restore == restore_id:
                    return self._end(client, address, loan, primary)
        return Recovered(replaced=None)

    def _end(self, client: Client, address: Address, loan: Loan, primary: Address) -> Recovered:
        """End a killed swap on the server that bears its mark, which need not be the primary any more."""
        own, lost = own_settings(client, loan)
        if address == primary:
            _wait_until_alone(client, address)
            new = holds_new(client, loan)
            client.execute_command("REPLICAOF", "NO", "ONE")
            text = f"{address} was left a replica of a restore that was killed; it is a primary of its own again"
        else:
            with closing(open_client(self._settings, primary, self._settings.login)) as leader:
                new = holds_new(leader, loan)
            text = f"{address} had settings of a restore that was killed; the sentinels have made {primary} the primary"
        sentinels.relax(self._settings)
        give_back(client, own)
        return Recovered(new, (Notice("leftover-removed", f"{text}; {lost}" if lost else text),))

    def undo(self, restore_id: str) -> Sequence[str]:
        """Never called: the operation loads the backup that keeps the old data."""
        raise TargetError(f"the old data of {restore_id} is kept as a backup", hint="see: drd restore list")

    def drop_old(self, restore_id: str) -> Sequence[str]:
        """Never called: the backup that keeps the old data is the repository's."""
        raise TargetError(f"the old data of {restore_id} is kept as a backup", hint="see: drd restore list")

    def _node(self, backup: Backup, artifacts: ArtifactReader) -> TargetNode:
        """Look at the server; raises TargetError where its data cannot be replaced at once."""
        layout, nodes = look(self._settings)
        require_fit(self._settings, layout, nodes, backup)
        if layout.kind == "cluster":
            raise TargetError(
                f"the cluster at {nodes[0].address} cannot be replaced in place: it does not replicate from outside",
                hint="stop what writes, drd backup now, then redis-cli --cluster call "
                f"{nodes[0].address} FLUSHALL --cluster-only-masters (FUNCTION FLUSH, too), and restore without "
                "--replace; the same way back: docs/replace.md, Cluster",
            )
        unwatched = replace(layout, kind="standalone") if layout.kind == "sentinel" else layout
        why = obstacle(self._settings, unwatched, nodes, snapshots_of(artifacts))
        if not why and self._settings.restore_via == "keys":
            why = "restore_via is keys"
        if why:
            raise TargetError(
                f"the data of {nodes[0].address} cannot be replaced in place: {why}",
                hint="a swap needs one server that replicates from drd; restore into an empty one with --into",
            )
        version = nodes[0].info.get("redis_version", "0").split(".")
        if tuple(int(part) for part in version[:2] if part.isdigit()) < _OLDEST:
            raise TargetError(
                f"{nodes[0].address} ({nodes[0].product}) cannot load a data set beside the one it has",
                hint="Redis 6.2 and newer, and Valkey, can; restore into an empty server with --into",
            )
        _require_memory(nodes[0], backup)
        rights.require_swap(self._settings, nodes[0].address)
        return nodes[0]


def _require_memory(node: TargetNode, backup: Backup) -> None:
    """Raise TargetError when the old and the new data set together are more than the server's machine has."""
    used, total = node.info.get("used_memory", "0"), node.info.get("total_system_memory", "0")
    more = backup.facts.get("used_memory_bytes")
    if used.isdigit() and total.isdigit() and int(total) and isinstance(more, int) and int(used) + more > int(total):
        raise TargetError(
            f"{node.address} uses {int(used) >> 20:,} MiB and would need {more >> 20:,} MiB beside it; its machine has "
            f"{int(total) >> 20:,} MiB",
            hint="restore into another server with --into; nothing was changed",
        )


@contextmanager
def _lent(job: Job, restore_id: str) -> Iterator[Loan]:
    """Lend the server what a swap needs, and with it the mark, for as long as the block runs."""
    offset = int(read_info(job.client, "replication").get("master_repl_offset", "0") or 0)
    loan, own = lend(job.client, restore_id, offset=offset, subject=str(job.target))
    try:
        yield loan
    except sentinels.StillPatient:  # the mark tells who comes next
        raise
    except BaseException:
        give_back(job.client, own)
        raise
    give_back(job.client, own)


@contextmanager
def _writes_held(settings: RedisSettings, address: Address) -> Iterator[Callable[[], None]]:
    """Let writes wait until the block ends or its value is called; by itself the server waits ten seconds at most."""
    done = threading.Event()
    with closing(open_client(settings, address, settings.login)) as client:
        client.execute_command("CLIENT", "PAUSE", _PAUSE_MS, "WRITE")

        def hold() -> None:
            while not done.wait(_PAUSE_AGAIN_S):
                with suppress(redis.exceptions.RedisError, OSError):  # it ends by itself, and the next try may work
                    client.execute_command("CLIENT", "PAUSE", _PAUSE_MS, "WRITE")

        thread = threading.Thread(target=hold, name="drd-redis-pause", daemon=True)
        thread.start()

        def release() -> None:
            if not done.is_set():
                done.set()
                thread.join()
                client.execute_command("CLIENT", "UNPAUSE")

        try:
            yield release
        finally:
            release()


def _wait_until_alone(client: Client, address: Address) -> None:
    """Wait until the server sees that its primary is gone; raises TargetError while another drd is at it."""
    until = time.monotonic() + _ALONE_S
    while True:
        info = read_info(client, "replication")
        if info.get("role") != "slave":
            return
        if info.get("master_link_status") == "down" and info.get("master_sync_in_progress") == "0":
            return
        if time.monotonic() > until:
            raise TargetError(f"another drd restores into {address} right now", hint="wait for it, then look there")
        time.sleep(_POLL_S)
