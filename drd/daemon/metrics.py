"""Metrics for Prometheus: the overview and the daemon's counts, collected when somebody scrapes. Asks no store.

Labels are bounded: a source or drill has metrics if it is configured or in the store, at most :data:`MOST_SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from drd import __version__
from drd.counts import DIRECTIONS, OPERATIONS, OUTCOMES, Durations, StoreTotals
from drd.daemon.families import FAMILIES, Family
from drd.daemon.model import Board, JobRun, JobView, Overview, RunOutcome, SourceView
from drd.daemon.numbers import Numbers, Tally
from drd.drills.phases import PHASES
from drd.drills.report import VERDICTS, DrillRun
from drd.model import BackupHead

MOST_SOURCES = 1000
DAEMON_LEASE = "daemon"
_ODD = {"fewer-rows", "less-data"}

Sample: TypeAlias = tuple[str, tuple[str, ...], "float | Durations | None"]
"""A family's name, the values of its labels, and a number; None where there is none."""


class DrdCollector(Collector):
    """Collects drd's own metrics; ``daemon`` says whether those that only a daemon has are among them.

    Until the overview has been read once, nothing is said of any source but when a backup was last tried, and what
    the backups ``made`` by this process are: no series is not the same as zero.
    """

    def __init__(
        self,
        overview: Callable[[], Overview],
        numbers: Numbers,
        *,
        daemon: bool = True,
        made: Mapping[str, BackupHead] | None = None,
    ) -> None:
        self._overview = overview
        self._numbers = numbers
        self._daemon = daemon
        self._made = made or {}

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family that has something to say, in the order of :data:`FAMILIES`."""
        overview, tally, store = self._overview(), self._numbers.tally(), self._numbers.store.totals()
        found: dict[str, list[Sample]] = {}
        for sample in (*_samples(overview, tally, store), *(() if overview.known else self._unread(overview))):
            if sample[2] is not None:
                found.setdefault(sample[0], []).append(sample)
        for family in FAMILIES:
            if family.name in found and (self._daemon or not family.daemon):
                yield _metric(family, found[family.name])

    def _unread(self, overview: Overview) -> Iterator[Sample]:
        """Say what is known of sources though the store could not be read."""
        jobs = overview.board.jobs if overview.board else ()
        for name in {view.job.subject: None for view in jobs if view.job.kind == "backup"}:
            runs = [run for view in jobs if (view.job.kind, view.job.subject) == ("backup", name) for run in view.runs]
            yield from _attempts(name, self._made.get(name), runs)
        for name, head in self._made.items():
            yield from _newest(name, head)


def registry_of(collector: DrdCollector, *, process: bool) -> CollectorRegistry:
    """Make a registry; with ``process``, memory, file descriptors and processor time of this process are in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    if process:
        from prometheus_client import GCCollector, PlatformCollector, ProcessCollector  # noqa: PLC0415 - they register

        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
    return registry


def _metric(family: Family, samples: Sequence[Sample]) -> Metric:
    metric: GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily
    match family.kind:
        case "gauge":
            metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        case "counter":
            metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
        case "histogram":
            metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for _, labels, value in samples:
        if isinstance(metric, HistogramMetricFamily):
            if isinstance(value, Durations):
                metric.add_metric(labels, value.cumulative, value.seconds)
        elif isinstance(value, (int, float)):
            metric.add_metric(labels, float(value))
    return metric


def _samples(overview: Overview, tally: Tally, store: StoreTotals) -> Iterator[Sample]:
    yield "drd_build_info", (__version__,), 1
    board = overview.board
    if overview.known:
        yield "drd_overview_timestamp_seconds", (), _at(overview.at)
        yield "drd_sources_omitted", (), max(0, len(overview.sources) - MOST_SOURCES)
    for view in overview.sources[:MOST_SOURCES]:
        yield from _source(view)
        yield from _attempts(view.name, view.status.newest, _runs(view, "backup"))
        yield from _jobs_of(view, tally)
    yield from _drills(overview, {view.name for view in overview.sources[:MOST_SOURCES]})
    if board is not None:
        yield from _board(board)
    yield from _tally(tally, {view.job.kind for view in board.jobs} if board else set())
    yield from _store(store)


def _source(view: SourceView) -> Iterator[Sample]:
    status, name = view.status, (view.name,)
    yield "drd_source_info", (view.name, view.engine), 1
    yield "drd_source_configured", name, status.configured
    yield "drd_backups", name, status.backups
    yield "drd_backups_damaged", name, status.damaged
    yield "drd_backups_untrusted", name, status.untrusted
    yield "drd_source_stored_bytes", name, sum(head.stored_bytes for head in view.backups)
    yield "drd_recovery_point_objective_seconds", name, status.rpo_s
    yield "drd_recovery_point_age_seconds", name, status.age_s
    yield "drd_verify_problems", name, None if status.coverage.unknown else status.coverage.damaged
    if status.oldest is not None:
        start = status.oldest.window_start or status.oldest.recovery_point
        yield "drd_recovery_window_start_timestamp_seconds", name, _at(start)
    if status.newest is not None:
        yield from _newest(view.name, status.newest)


def _newest(source: str, newest: BackupHead) -> Iterator[Sample]:
    name = (source,)
    yield "drd_backup_last_success_timestamp_seconds", name, _at(newest.finished_at)
    yield "drd_backup_duration_seconds", name, newest.duration_s
    yield "drd_backup_plain_bytes", name, newest.plain_bytes
    yield "drd_backup_stored_bytes", name, newest.stored_bytes
    yield "drd_backup_rows", name, newest.rows
    yield "drd_backup_odd", name, not _ODD.isdisjoint(newest.warnings)
    yield "drd_recovery_point_timestamp_seconds", name, _at(newest.recovery_point)


def _attempts(name: str, newest: BackupHead | None, runs: Iterable[JobRun]) -> Iterator[Sample]:
    """Say when a backup was last tried, and whether that made one; runs that were called off tell nothing of it."""
    ended = [run for run in runs if run.outcome not in {"skipped", "cancelled"}]
    last = max(ended, key=lambda run: run.started_at, default=None)
    if last is not None and (newest is None or last.started_at > newest.started_at):
        yield "drd_backup_last_attempt_timestamp_seconds", (name,), _at(last.started_at)
        yield "drd_backup_last_attempt_success", (name,), last.outcome == "ok" or bool(last.backup)
    elif newest is not None:  # the newest backup is of the last attempt, or of a later one by hand
        yield "drd_backup_last_attempt_timestamp_seconds", (name,), _at(newest.started_at)
        yield "drd_backup_last_attempt_success", (name,), 1


def _jobs_of(view: SourceView, tally: Tally) -> Iterator[Sample]:
    name = (view.name,)
    yield "drd_backup_expected_interval_seconds", name, view.longest_gap_s
    gaps = [job.job.longest_gap_s for job in view.jobs if job.job.kind == "verify"]
    yield "drd_verify_expected_interval_seconds", name, min(gaps, default=None)
    for kind in ("prune", "verify"):
        done = [_at(run.finished_at) for run in _runs(view, kind) if run.outcome == "ok"]
        yield f"drd_{kind}_last_success_timestamp_seconds", name, max(done, default=None)
    pruned = tally.pruned.get(view.name)
    if pruned is not None:
        yield "drd_prune_kept_backups", name, pruned.kept
        yield "drd_prune_removed_backups_total", name, pruned.removed
        yield "drd_prune_blocked_backups", name, pruned.blocked


def _runs(view: SourceView, kind: str) -> Iterator[JobRun]:
    return (run for job in view.jobs if job.job.kind == kind for run in job.runs)


def _drills(overview: Overview, sources: set[str]) -> Iterator[Sample]:
    last: dict[tuple[str, str], DrillRun] = {}
    passed: dict[tuple[str, str], DrillRun] = {}
    for run in overview.drills:  # the latest first
        if run.source in sources:
            last.setdefault((run.drill, run.source), run)
            if run.verdict == "passed":
                passed.setdefault((run.drill, run.source), run)
    for key, run in last.items():
        yield "drd_drill_last_run_timestamp_seconds", key, _at(run.finished_at)
        if key in passed:
            yield "drd_drill_last_passed_timestamp_seconds", key, _at(passed[key].finished_at)
        for verdict in VERDICTS:
            yield "drd_drill_verdict", (*key, verdict), run.verdict == verdict
        yield "drd_drill_rto_seconds", key, run.rto_s
        yield "drd_drill_rpo_seconds", key, run.rpo_s
        yield "drd_drill_rto_objective_seconds", key, run.objectives.rto_s
        yield "drd_drill_rpo_objective_seconds", key, run.objectives.rpo_s
        yield "drd_drill_over_objective", key, bool(run.over_objective)
        for phase in PHASES:
            yield "drd_drill_phase_seconds", (*key, phase), run.phases.get(phase, 0.0)


def _board(board: Board) -> Iterator[Sample]:
    yield "drd_leader", (), board.leader
    yield "drd_scheduler_paused", (), board.paused
    yield "drd_history_errors", (), bool(board.history_error)
    yield "drd_config_last_reload_successful", (), not board.reload_error
    yield "drd_config_last_reload_success_timestamp_seconds", (), _at(board.configured_at or board.started_at)
    held = {DAEMON_LEASE: board.leader}
    for view in board.jobs:
        name = (view.job.name,)
        yield "drd_job_next_run_timestamp_seconds", name, None if view.next_run_at is None else _at(view.next_run_at)
        yield "drd_job_running", name, view.running_since is not None
        yield "drd_job_consecutive_failures", name, view.failures
        if view.job.kind == "drill":
            yield "drd_drill_expected_interval_seconds", (view.job.subject,), view.job.longest_gap_s
        if lease := _lease_of(view):
            held[lease] = held.get(lease, False) or (view.running_since is not None and bool(view.phase))
    for lease, is_held in held.items():
        yield "drd_lease_held", (lease,), is_held


def _lease_of(view: JobView) -> str:
    """Return the lease under which a job works, empty for one that works without; it says a phase once it holds it."""
    if not view.job.subject or view.job.kind == "verify":
        return ""
    return f"{'drill' if view.job.kind == 'drill' else 'source'}-{view.job.subject}"


def _tally(tally: Tally, kinds: set[str]) -> Iterator[Sample]:
    # What has not happened yet counts zero: else the first time it does cannot be seen by rate().
    runs = dict.fromkeys(((kind, outcome) for kind in sorted(kinds) for outcome in get_args(RunOutcome)), 0)
    for (kind, outcome), count in (runs | tally.runs).items():
        yield "drd_job_runs_total", (kind, outcome), count
    for kind, held in tally.durations.items():
        yield "drd_job_duration_seconds", (kind,), held
    for outcome, count in tally.notified.items():
        yield "drd_notifications_total", (outcome,), count
    for outcome, count in tally.reloads.items():
        yield "drd_config_reloads_total", (outcome,), count
    yield "drd_lease_lost_total", (), tally.leases_lost
    yield "drd_heartbeat_timestamp_seconds", (), None if tally.answered_at is None else _at(tally.answered_at)


def _store(totals: StoreTotals) -> Iterator[Sample]:
    for operation in OPERATIONS:
        for outcome in OUTCOMES:
            yield "drd_store_operations_total", (operation, outcome), totals.operations.get((operation, outcome), 0)
        yield "drd_store_operation_duration_seconds", (operation,), totals.durations.get(operation, Durations())
        yield "drd_store_retries_total", (operation,), totals.retries.get(operation, 0)
    yield "drd_store_clock_skew_seconds", (), totals.clock_skew_s
    for direction in DIRECTIONS:
        yield "drd_store_bytes_total", (direction,), totals.bytes.get(direction, 0)


def _at(moment: datetime) -> float:
    return moment.timestamp()
