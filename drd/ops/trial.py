"""One trial of a drill: provision, fetch, restore, check one backup in one scratch server, and say what came of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime

from drd import wording
from drd.cancel import CancelToken, deadline
from drd.drills.checks import SuiteChecks, fingerprint_finding, short
from drd.drills.phases import Phases, WaitingReader
from drd.drills.suite import Drill, SuiteCheck
from drd.errors import (
    Cancelled,
    DrdError,
    IntegrityError,
    NoSuchBackup,
    QuestionError,
    ScratchError,
    TargetError,
    ToolError,
)
from drd.model import (
    Answer,
    Backup,
    Finding,
    Question,
    RestoreResult,
    ScratchEndpoint,
    ScratchSpec,
    compare_fingerprints,
)
from drd.ops.bounded import LOOK_GRACE_S, RESTORE_GRACE_S, run_bounded
from drd.ops.observe import Meter, ObservedReader
from drd.ops.ports import Ports
from drd.ops.presence import unless_removed
from drd.ops.restore import read_fingerprint
from drd.protocols import Engine, Examiner, ScratchRuntime, ScratchServer, WorkContext
from drd.repository.planning import Choice

EXPIRY_GRACE_S = 3600.0
"""How long after a drill's budget of time a reaper may remove its server whoever started it."""
KEPT_S = 24 * 3600.0
DEATH_WAIT_S = 2.0
"""How long a server that may have died is given to be seen dead: connections break before a runtime notices."""
_RESOURCES = re.compile(
    r"no space left|disk full|could not extend|out of memory|memory limit|maxmemory|not enough space|"
    r"closed the connection|did not connect to|cannot reach|no connection to|connection refused|connection reset|"
    r"in recovery mode|terminating connection|is not ready|lost the connection",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Bound:
    """An engine and an examiner bound to a scratch server."""

    engine: Engine
    examiner: Examiner


Bind = Callable[[ScratchEndpoint, Backup], Bound]


@dataclass
class Trial:
    """One backup on trial; :meth:`carry_out` fills in what came of it.

    ``damage`` says whether ``error`` is the backup's fault. ``connect`` says how to reach a server that was kept.
    """

    ports: Ports
    drill: Drill
    choice: Choice[Backup]
    run_id: str
    started_at: datetime
    phases: Phases
    found: Callable[[Finding], None]
    keep: bool = False
    findings: list[Finding] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    error: DrdError | None = None
    damage: bool = False
    newest: datetime | None = None
    connect: tuple[str, ...] = ()
    reading: WaitingReader | None = None
    looking_at: str = ""

    def carry_out(self, runtime: ScratchRuntime, bind: Bind) -> None:
        """Do it all; raises Cancelled alone, when a person interrupts. The scratch server is gone when it returns."""
        budget_s = self.drill.budgets.time_s
        try:
            self._refuse_over_budget()
            with deadline(self.ports.cancel, budget_s) as cancel:
                try:
                    self._in_scratch(runtime, bind, cancel)
                except DrdError as error:
                    if cancel.expired:
                        raise ScratchError(
                            f"the budget of {wording.span(budget_s)} was used up in {self._where()}",
                            hint="raise budgets.time of the drill, or give the scratch server more cpus",
                        ) from error
                    raise
        except Cancelled:
            raise
        except DrdError as error:
            for left in getattr(error, "__notes__", ()):  # such as a server that could not be removed
                error.add_hint(left)
            self.error = error

    def _where(self) -> str:
        """Say what was being done."""
        return f"the phase {self.phases.now}" + (f", at {self.looking_at}" if self.looking_at else "")

    def _refuse_over_budget(self) -> None:
        backup, budgets = self.choice.backup, self.drill.budgets
        stored = sum(artifact.stored_bytes for artifact in backup.artifacts)
        if budgets.fetched_bytes is not None and stored > budgets.fetched_bytes:
            raise ScratchError(
                f"the backup is {stored:,} bytes to fetch, and the budget is {budgets.fetched_bytes:,}",
                hint="raise budgets.bytes of the drill",
            )
        if backup.plain_bytes > budgets.disk_bytes:
            raise ScratchError(
                f"the backup is {backup.plain_bytes:,} bytes, and the scratch server may use {budgets.disk_bytes:,}",
                hint="raise budgets.disk of the drill",
            )

    def _in_scratch(self, runtime: ScratchRuntime, bind: Bind, cancel: CancelToken) -> None:
        backup = self.choice.backup
        with ExitStack() as stack:
            with self.phases.phase("provision"):
                server = stack.enter_context(runtime.start(self._spec(), cancel))
                bound = bind(server.endpoint, backup)
                version = bound.examiner.prepare(backup, cancel)
            self.environment |= {"runtime": runtime.name, "server version": version, **server.endpoint.environment}
            text = f"{backup.engine} {version} on {runtime.name}, empty, for a backup of {backup.engine_version}"
            self.add(Finding("server starts", "passed", text), self.phases.seconds["provision"])
            try:
                self._restore_and_check(replace(self.ports, cancel=cancel), server, bound)
            except Cancelled:  # by a person or by the budget: nothing is kept then
                raise
            except DrdError as error:
                self._keep(server)
                raise self._blamed(error, server) from error
            self._keep(server)

    def _keep(self, server: ScratchServer) -> None:
        if self.keep:
            server.keep()
            self.connect = server.endpoint.connect

    def _spec(self) -> ScratchSpec:
        backup, limits, budgets = self.choice.backup, self.drill.limits, self.drill.budgets
        return ScratchSpec(
            engine=backup.engine,
            version=backup.engine_version,
            size_bytes=backup.plain_bytes,
            memory_bytes=limits.memory_bytes,
            cpus=limits.cpus,
            pids=limits.pids,
            disk_bytes=budgets.disk_bytes,
            expires_s=KEPT_S if self.keep else budgets.time_s + EXPIRY_GRACE_S,
            image=limits.images.get(backup.engine),
            labels={"drill": self.drill.name, "run": self.run_id},
        )

    def _blamed(self, error: DrdError, server: ScratchServer) -> DrdError:
        """Decide whose fault an error is: of the store, a prune, a server that died or lacked room, or the backup.

        What reading the backup ran into is the cause, whatever the engine says that was left without data.
        """
        cause = error if self.reading is None else self.reading.failure
        gone = unless_removed(self.ports, self.choice.backup, cause or error)
        if isinstance(gone, NoSuchBackup):
            return gone
        if cause is not None:
            self.damage = isinstance(cause, IntegrityError)
            return cause
        if death := self._death(server):
            return ScratchError(
                f"the scratch server ended in {self._where()}: {death}",
                hint="raise limits.memory or budgets.disk of the drill, or look why it was stopped",
            )
        self.damage = isinstance(error, (IntegrityError, TargetError, ToolError)) and not _lacks_room(error)
        return error

    def _death(self, server: ScratchServer) -> str:
        end = time.monotonic() + DEATH_WAIT_S
        while not (death := server.death()) and time.monotonic() < end:
            time.sleep(0.1)
        return death

    def _restore_and_check(self, ports: Ports, server: ScratchServer, bound: Bound) -> None:
        backup = self.choice.backup
        with ExitStack() as stack:
            with self.phases.phase("fetch"):
                ctx = stack.enter_context(ports.work(backup.source, backup.id, ancestors=self.choice.ancestors))
                artifacts = stack.enter_context(ports.reader(backup, cancel=ctx.cancel))
                expected = read_fingerprint(artifacts)
            self.reading = waiting = WaitingReader(artifacts, ports.monotonic)
            reader = ObservedReader(waiting, Meter(ports.progress, backup.source, "restore", backup.plain_bytes))
            with self.phases.phase("restore"):
                done = run_bounded(lambda: bound.engine.restore(backup, reader, ctx), ctx.cancel, RESTORE_GRACE_S)
            self.phases.move("restore", "fetch", waiting.waited_s)
            self.add(_restored(done), self.phases.seconds["restore"])
            with self.phases.phase("check"):
                self._look("stored bytes", lambda: _read_rest(reader, ctx), server)
                self._look(
                    "content",
                    lambda: fingerprint_finding(
                        "content",
                        compare_fingerprints(
                            expected,
                            run_bounded(lambda: bound.engine.fingerprint(expected, ctx), ctx.cancel, LOOK_GRACE_S),
                        ),
                        _held(len(expected.items), expected.rows, backup.engine),
                    ),
                    server,
                )
                self._examine(bound.examiner, reader, ctx, server)
                self._ask(bound.examiner, ctx, server)

    def _examine(self, examiner: Examiner, reader: ObservedReader, ctx: WorkContext, server: ScratchServer) -> None:
        looks, self.looking_at = examiner.examine(self.choice.backup, reader, ctx), "schema and integrity"
        while True:
            started = self.ports.monotonic()
            try:
                finding = next(looks, None)
            except Cancelled:
                raise
            except DrdError as error:
                self.add(self._as_finding("integrity", error, server), self.ports.monotonic() - started)
                return
            if finding is None:
                return
            self.add(finding, self.ports.monotonic() - started)

    def _ask(self, examiner: Examiner, ctx: WorkContext, server: ScratchServer) -> None:
        def ask(question: Question) -> Answer:
            return run_bounded(lambda: examiner.ask(question, ctx), ctx.cancel, LOOK_GRACE_S)

        backup = self.choice.backup
        suite = SuiteChecks(
            self.drill.suite, self.drill.objectives, ask, server, started_at=self.started_at, cancel=ctx.cancel
        )

        def make(check: SuiteCheck) -> Finding:
            finding = suite.make(check)
            if check.command and finding.outcome != "passed" and self._death(server):
                raise ScratchError(f"{check.name}: {finding.detail}")  # which says nothing of the data
            return finding

        for check in self.drill.suite.checks(backup.source, backup.engine):
            self._look(check.name, lambda check=check: make(check), server)  # type: ignore[misc]
        self.newest = suite.newest

    def _look(self, name: str, look: Callable[[], Finding], server: ScratchServer) -> None:
        """Make one check; what it raises is its finding, unless the server is lost or the work must stop."""
        started, self.looking_at = self.ports.monotonic(), name
        try:
            finding = look()
        except Cancelled:
            raise
        except DrdError as error:
            finding = self._as_finding(name, error, server)
        self.add(finding, self.ports.monotonic() - started)

    def _as_finding(self, name: str, error: DrdError, server: ScratchServer) -> Finding:
        error = unless_removed(self.ports, self.choice.backup, error)
        if isinstance(error, (ScratchError, NoSuchBackup)):
            raise error
        if not isinstance(error, (IntegrityError, QuestionError)) and self._death(server):
            raise error
        damaged = isinstance(error, (IntegrityError, TargetError)) and not _lacks_room(error)
        text = short(f"{error.message}{f' ({error.hint})' if error.hint else ''}", 600)
        return Finding(name, "failed" if damaged else "unverified", text)

    def add(self, finding: Finding, duration_s: float = 0.0) -> None:
        """Note a finding with how long it took, and tell of it."""
        timed = replace(finding, name=short(finding.name), duration_s=duration_s)  # a suite's words go to terminals
        self.findings.append(timed)
        self.found(timed)


def _lacks_room(error: DrdError) -> bool:
    """Whether an error of a server speaks of its memory, its disk or its connections rather than of the data."""
    return not isinstance(error, IntegrityError) and _RESOURCES.search(error.message) is not None


def _restored(done: RestoreResult) -> Finding:
    if not done.notices:
        return Finding("restored", "passed", "without an error outside those known to be harmless")
    return Finding("restored", "passed", short("; ".join(notice.message for notice in done.notices), 600))


def _held(items: int, rows: int, engine: str) -> str:
    noun = {"postgres": ("table", "rows"), "redis": ("database", "keys"), "clickhouse": ("table", "rows")}[engine]
    return f"{items} {noun[0]}{'' if items == 1 else 's'}, {rows:,} {noun[1]}"


def _read_rest(reader: ObservedReader, ctx: WorkContext) -> Finding:
    """Read what the restore did not need: a backup is proven as a whole."""
    left = reader.unread()
    for name in left:
        with reader.open(name) as stream:
            for _chunk in stream.chunks():
                ctx.cancel.raise_if_cancelled()
    text = f"all {len(reader.names())} artifacts read whole, every digest right ({len(left)} for this check alone)"
    return Finding("stored bytes", "passed", text)
