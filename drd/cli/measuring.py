"""Metrics of one verb: written to a file, pushed to a gateway. Failing at that is said, and changes no outcome."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from drd.errors import ConfigError, DrdError

if TYPE_CHECKING:  # --help needs none of it
    from drd.cli.session import Session
    from drd.daemon.model import Board
    from drd.model import BackupHead

Kind = Literal["backup", "prune", "verify", "drill"]


@dataclass
class Done:
    """What a verb did: for each kind of work and source, how it ended; filled while it reports."""

    runs: dict[tuple[Kind, str], bool] = field(default_factory=dict)
    made: dict[str, BackupHead] = field(default_factory=dict)
    pruned: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Of each source: backups kept, removed, and due but not removed."""


def add(parser: argparse.ArgumentParser, kind: Kind) -> None:
    """Give a verb the options, and have :func:`publish` called when it is done."""
    group = parser.add_argument_group("metrics, where no daemon runs")
    group.add_argument("--metrics-file", metavar="FILE", help="write metrics for node_exporter's textfile collector")
    group.add_argument("--push-gateway", metavar="URL", help="push metrics to this Prometheus Pushgateway")
    parser.set_defaults(measured=kind)


def publish(args: argparse.Namespace, session: Session, began: datetime, error: DrdError | None) -> None:
    """Write and push the metrics of a verb that has ended, with ``error`` if that ended all of it."""
    try:
        settings = session.config.metrics
        file = Path(args.metrics_file) if args.metrics_file else settings.textfile
        if file is None and settings.pushgateway is None and not args.push_gateway:
            return
        if file is not None and file.suffix != ".prom":
            raise ConfigError(
                f"{file} does not end in .prom, so node_exporter would pass it over", hint="name another file"
            )
        if error is not None and args.measured == "backup":
            for name in args.sources or session.config.sources:
                session.done.runs.setdefault(("backup", name), False)
        data, known = _collected(session, began)
    except DrdError as failure:
        if error is not None and failure.message == error.message:  # such as a configuration that is wrong: said once
            return
        _unsent(session, "metrics were not made", failure.message, failure.hint)
        return
    if file is not None:
        _write(session, file, data, known=known)
    if args.push_gateway or settings.pushgateway is not None:
        _push(session, args.push_gateway, data)


def _collected(session: Session, began: datetime) -> tuple[bytes, bool]:
    """Return the metrics, and whether the store could be read for them."""
    from prometheus_client.exposition import generate_latest

    from drd.counts import StoreCounts
    from drd.daemon.metrics import DrdCollector, registry_of
    from drd.daemon.numbers import Numbers
    from drd.daemon.overview import Overviews
    from drd.wiring_daemon import watched_of

    board, done = _board(session, began), session.done
    overviews = Overviews(
        session.services.ports, watched_of(session.config), tuple(session.config.drills), lambda: board
    )
    known = not overviews.refresh()
    numbers = Numbers(session.counts or StoreCounts())
    for source, (kept, removed, blocked) in done.pruned.items():
        numbers.pruned(source, kept=kept, removed=removed, blocked=blocked)
    collector = DrdCollector(overviews.now, numbers, daemon=False, made=done.made)
    return generate_latest(registry_of(collector, process=False)), known


def _board(session: Session, began: datetime) -> Board:
    """Put what the verb did in the form in which a scheduler tells of its jobs."""
    from drd.daemon.model import Board, Job, JobRun, JobView

    now = session.services.ports.now()
    jobs = []
    for (kind, subject), ok in session.done.runs.items():
        job = Job(name=f"{kind}/now/{subject}", kind=kind, schedule="now", subject=subject, longest_gap_s=0.0)
        made = session.done.made.get(subject) if kind == "backup" else None
        run = JobRun(
            job=job.name,
            kind=kind,
            subject=subject,
            planned_at=began,
            started_at=began,
            finished_at=now,
            outcome="ok" if ok else "failed",
            backup=made.id if made else "",
        )
        jobs.append(JobView(job=job, next_run_at=None, runs=(run,)))
    return Board(at=now, started_at=began, state="running", paused=False, jobs=tuple(jobs))


def _write(session: Session, path: Path, data: bytes, *, known: bool) -> None:
    from drd.daemon.textfile import with_former, write_textfile

    try:
        write_textfile(path, data if known else with_former(path, data))
    except DrdError as error:
        _unsent(session, str(path), error.message, error.hint)


def _push(session: Session, url: str | None, data: bytes) -> None:
    from drd.notify.peer import PeerFault
    from drd.wiring_notify import gateway_of

    try:
        gateway = gateway_of(session.config, url)
        gateway.push(data)
    except PeerFault as fault:
        _unsent(session, f"the Pushgateway {gateway.url}", fault.message, fault.hint)
    except DrdError as error:
        _unsent(session, "the Pushgateway", error.message, error.hint)


def _unsent(session: Session, where: str, message: str, hint: str) -> None:
    session.log.warning("metrics.unsent", place=where, message=message, hint=hint)
    if session.log_format is None:
        print(f"drd: warning: {where}: {message}" + (f" ({hint})" if hint else ""), file=sys.stderr, flush=True)
