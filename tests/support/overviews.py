"""What a daemon knows, made up: sources with backups every so often, drills, jobs, and what went wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from drd.daemon.model import Board, Job, JobRun, JobView, Overview, SourceView
from drd.drills.report import DrillRun, RunError
from drd.drills.suite import Objectives
from drd.model import BackupHead, Finding
from drd.ops.coverage import Coverage
from drd.ops.status import SourceStatus

NOW = datetime(2026, 11, 22, 18, 29, 3, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIB = 1 << 20


def make_head(source: str = "orders", at: datetime = NOW - HOUR, **changes: Any) -> BackupHead:
    """Make a backup of that recovery point."""
    head = BackupHead(
        id=f"{at:%Y%m%dT%H%M%SZ}-k3f9qa",
        source=source,
        engine="postgres",
        engine_version="15.8",
        kind="full",
        parent=None,
        started_at=at,
        finished_at=at + timedelta(seconds=5),
        recovery_point=at,
        window_start=None,
        compression="zstd",
        encryption="age",
        recipients=(),
        plain_bytes=578 * MIB,
        stored_bytes=225 * MIB,
        rows=3_000_086,
        lease_generation=1,
        repository_id="8a0c9d52-8b5f-4a7e-9f0e-0d4f1f1d2c3b",
    )
    return dataclasses.replace(head, **changes)


def make_series(
    source: str,
    *,
    every: timedelta = HOUR,
    days: float = 31,
    until: datetime = NOW - timedelta(minutes=14, seconds=8),
    engine: str = "postgres",
    plain: int = 578 * MIB,
    full_every: int = 1,
    without: Sequence[tuple[datetime, datetime]] = (),
) -> tuple[BackupHead, ...]:
    """Make backups ``every`` so often, oldest first, growing a little; none in the spans of ``without``."""
    count = int(timedelta(days=days) / every)
    times = [until - every * index for index in range(count, -1, -1)]
    heads: list[BackupHead] = []
    for index, at in enumerate(times):
        if any(start <= at < end for start, end in without):
            continue
        full = not heads or index % full_every == 0
        size = int(plain * (0.82 + 0.18 * index / max(1, count)) * (1 + 0.01 * (index * 7 % 5)))
        heads.append(
            make_head(
                source,
                at,
                engine=engine,
                kind="full" if full else "incremental",
                parent=None if full else heads[-1].id,
                plain_bytes=size,
                stored_bytes=int(size * (0.39 if full else 0.03)),
            )
        )
    return tuple(heads)


def make_drill(head: BackupHead | None, at: datetime, **changes: Any) -> DrillRun:
    """Make a drill run that passed, of the backup."""
    run = DrillRun(
        id=f"{at:%Y%m%dT%H%M%SZ}-d7x2mn",
        drill="nightly",
        source=head.source if head else "orders",
        how="latest",
        backup=head.id if head else None,
        engine=head.engine if head else None,
        verdict="passed",
        started_at=at,
        finished_at=at + timedelta(seconds=40),
        recovery_point=head.recovery_point if head else None,
        newest_data=head.recovery_point if head else None,
        phases={"choose": 0.4, "provision": 3.1, "fetch": 6.5, "restore": 18.2, "check": 9.1},
        checks=(Finding("fingerprint", "passed", "23 of 23 tables are equal"),),
        objectives=Objectives(1800, 4 * 3600),
        plain_bytes=head.plain_bytes if head else 0,
        stored_bytes=head.stored_bytes if head else 0,
        rows=head.rows if head else None,
    )
    return dataclasses.replace(run, **changes)


def make_failed_drill(head: BackupHead | None, at: datetime, detail: str = "ticks: 3 of 101 parts differ") -> DrillRun:
    """Make a drill run that found a difference."""
    return make_drill(
        head, at, verdict="failed", checks=(Finding("fingerprint", "failed", detail, "101 parts", "98 equal"),)
    )


def make_unverified_drill(
    at: datetime, message: str = "no scratch server can be had: docker is not running"
) -> DrillRun:
    """Make a drill run that could not be carried out."""
    return make_drill(
        None,
        at,
        verdict="unverified",
        checks=(),
        error=RunError("scratch", message, "start docker, or use --runtime process", "provision"),
    )


def make_status(source: str, heads: Sequence[BackupHead], **changes: Any) -> SourceStatus:
    """Make the status that these backups give."""
    newest = heads[-1] if heads else None
    total = sum(head.stored_bytes for head in heads)
    status = SourceStatus(
        source=source,
        configured=True,
        backups=len(heads),
        damaged=0,
        newest=newest,
        oldest=heads[0] if heads else None,
        age_s=(NOW - newest.recovery_point).total_seconds() if newest else None,
        rpo_s=3900,
        unfinished=0,
        coverage=Coverage(source, total, 0, None, 0),
    )
    return dataclasses.replace(status, **changes)


def make_run(job: str, planned: datetime, **changes: Any) -> JobRun:
    """Make a run of a job (``kind/schedule/subject``) that went well."""
    kind, _, rest = job.partition("/")
    run = JobRun(
        job=job,
        kind=kind,  # type: ignore[arg-type]  # the name says it
        subject=rest.rpartition("/")[2],
        planned_at=planned,
        started_at=planned + timedelta(seconds=1),
        finished_at=planned + timedelta(seconds=6),
        outcome="ok",
    )
    return dataclasses.replace(run, **changes)


def make_job(name: str, gap: timedelta = HOUR, **changes: Any) -> JobView:
    """Make a job (``kind/schedule/subject``) that runs again in 46 minutes."""
    kind, schedule, *subject = name.split("/")
    job = Job(
        name=name,
        kind=kind,  # type: ignore[arg-type]  # the name says it
        schedule=schedule,
        subject="/".join(subject),
        longest_gap_s=gap.total_seconds(),
    )
    view = JobView(job=job, next_run_at=NOW + timedelta(minutes=46))
    return dataclasses.replace(view, **changes)


def make_view(
    source: str,
    heads: Sequence[BackupHead] = (),
    *,
    drills: Sequence[DrillRun] = (),
    jobs: Sequence[JobView] | None = None,
    gap: timedelta | None = HOUR,
    engine: str = "postgres",
    **status: Any,
) -> SourceView:
    """Make the view of a source; ``status`` changes fields of its status."""
    if jobs is None:
        jobs = () if gap is None else (make_job(f"backup/hourly/{source}", gap),)
    return SourceView(
        name=source,
        engine=heads[-1].engine if heads else engine,
        status=make_status(source, heads, **{"last_drill": drills[0] if drills else None, **status}),
        backups=tuple(heads),
        drills=tuple(drills),
        jobs=tuple(jobs),
        longest_gap_s=gap.total_seconds() if gap else None,
    )


def make_board(jobs: Sequence[JobView] = (), **changes: Any) -> Board:
    """Make a board of a scheduler that runs."""
    board = Board(at=NOW, started_at=NOW - 9 * DAY, state="running", paused=False, jobs=tuple(jobs))
    return dataclasses.replace(board, **changes)


def make_overview(*views: SourceView, board: Board | None = None, **changes: Any) -> Overview:
    """Make an overview of these sources; the board, where none is given, has their jobs."""
    drills = sorted((run for view in views for run in view.drills), key=lambda run: run.id, reverse=True)
    overview = Overview(
        at=NOW - timedelta(seconds=12),
        sources=views,
        drills=tuple(drills),
        board=board or make_board([job for view in views for job in view.jobs]),
    )
    return dataclasses.replace(overview, **changes)


def nightly_drills(heads: Sequence[BackupHead], days: int = 30) -> tuple[DrillRun, ...]:
    """Make a drill at four each night of the newest backup before it, latest first."""
    out: list[DrillRun] = []
    for day in range(days):
        at = NOW.replace(hour=4, minute=0, second=0) - DAY * day
        before = [head for head in heads if head.recovery_point < at]
        if before:
            out.append(make_drill(before[-1], at))
    return tuple(out)


def good() -> Overview:
    """Make a platform of three sources where all is well."""
    postgres = make_series("trading-postgres", full_every=24)
    redis = make_series("trading-redis", engine="redis", plain=34 * MIB)
    clickhouse = make_series(
        "market-data",
        every=DAY,
        engine="clickhouse",
        plain=4200 * MIB,
        full_every=7,
        until=NOW.replace(hour=1, minute=30, second=12),
    )
    runs = tuple(make_run("drill/nightly", NOW.replace(hour=4, minute=0, second=0) - DAY * d) for d in range(9))
    extra = (
        make_job("drill/nightly", DAY, next_run_at=NOW + timedelta(hours=9, minutes=31), runs=runs),
        make_job("prune/tidy", DAY, next_run_at=NOW + timedelta(hours=10, minutes=46)),
        make_job("verify/sample", DAY, next_run_at=NOW + timedelta(hours=11, minutes=16)),
    )
    views = (
        make_view(
            "trading-postgres", postgres, drills=nightly_drills(postgres), jobs=[_hourly("trading-postgres", postgres)]
        ),
        make_view("trading-redis", redis, drills=nightly_drills(redis), jobs=[_hourly("trading-redis", redis)]),
        make_view(
            "market-data",
            clickhouse,
            drills=nightly_drills(clickhouse),
            gap=DAY,
            rpo_s=26 * 3600,
            jobs=[_hourly("market-data", clickhouse, "nightly", DAY)],
        ),
    )
    return make_overview(*views, board=make_board([*(job for view in views for job in view.jobs), *extra]))


def _hourly(source: str, heads: Sequence[BackupHead], schedule: str = "hourly", gap: timedelta = HOUR) -> JobView:
    name = f"backup/{schedule}/{source}"
    runs = tuple(make_run(name, head.started_at, backup=head.id) for head in reversed(heads[-200:]))
    return make_job(name, gap, runs=runs)


def trouble() -> Overview:
    """Make the same platform on a bad day: a gap, a source past its RPO, a failed drill, one without a backup."""
    base = good()
    gap = (NOW - DAY * 6 - HOUR * 9, NOW - DAY * 6 + HOUR * 5)
    postgres = make_series("trading-postgres", full_every=24, without=[gap])
    name = "backup/hourly/trading-postgres"
    failed = [
        make_run(name, gap[0] + HOUR * n, outcome="failed", exit_code=13, message="the server does not answer")
        for n in range(14)
    ]
    went_well = [make_run(name, head.started_at, backup=head.id) for head in postgres[-190:]]
    runs = tuple(sorted([*failed, *went_well], key=lambda run: run.planned_at, reverse=True))[:200]
    clickhouse = base.sources[2].backups
    down = [
        make_run(
            "backup/nightly/market-data",
            NOW - HOUR * n,
            outcome="failed",
            exit_code=13,
            attempt=4 - n,
            message="ClickHouse cannot reach http://10.1.2.3:9444 (gateway): connection refused",
            hint="set sources.market-data.gateway.address to one that the server reaches; see drd check market-data",
        )
        for n in (1, 2, 3)
    ]
    retried = make_job(
        "backup/nightly/market-data",
        DAY,
        retry=True,
        failures=3,
        runs=tuple(down),
        next_run_at=NOW + timedelta(minutes=8),
    )
    bad_drill = make_failed_drill(clickhouse[-1], NOW.replace(hour=4, minute=0, second=0))
    running = make_job(
        name,
        runs=runs,
        running_since=NOW - timedelta(seconds=41),
        phase="dump",
        progress=0.71,
    )
    views = (
        make_view("trading-postgres", postgres, drills=nightly_drills(postgres), jobs=[running]),
        base.sources[1],
        make_view(
            "market-data",
            clickhouse,
            drills=(bad_drill, *nightly_drills(clickhouse)[1:]),
            jobs=[retried],
            gap=DAY,
            rpo_s=12 * 3600,
            damaged=1,
        ),
        make_view("sessions", (), gap=HOUR, engine="redis"),
        make_view(
            "old-orders",
            make_series("old-orders", every=DAY, until=NOW - DAY * 12),
            gap=None,
            configured=False,
            rpo_s=None,
        ),
    )
    board = make_board(
        [*(job for view in views for job in view.jobs), *(base.board.jobs[3:] if base.board else ())],
        reload_error="/etc/drd/drd.yaml: schedules.hourly.cron: '0 25 * * *' is no cron expression",
    )
    return make_overview(*views, board=board)


def many(count: int = 200, each: int = 50) -> Overview:
    """Make ``count`` sources with ``each`` backups, five of them in some trouble."""
    views = []
    for index in range(count):
        name = f"tenant-{index:03d}-{('orders', 'ledger', 'catalog', 'events')[index % 4]}"
        engine = ("postgres", "redis", "clickhouse")[index % 3]
        until = NOW - timedelta(minutes=7 + index % 50)
        if index in {17, 94}:
            until -= HOUR * 30
        heads = make_series(
            name, every=timedelta(hours=14.4), days=each * 0.6 - 0.6, until=until, engine=engine, full_every=10
        )
        drill = make_failed_drill(heads[-1], NOW - HOUR * 9) if index == 120 else make_drill(heads[-1], NOW - HOUR * 9)
        views.append(
            make_view(name, heads, drills=[drill], gap=timedelta(hours=14.4), rpo_s=16 * 3600, damaged=int(index == 55))
        )
    return make_overview(*views)
