"""What verbs write into the log, where one was asked for: an event for each thing that was done to a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drd.cli.documents import moment

if TYPE_CHECKING:  # --help needs none of it
    from drd.cli.session import Session
    from drd.errors import DrdError
    from drd.ops.backup import BackupReport
    from drd.ops.drill import DrillReport
    from drd.ops.prune import PruneReport
    from drd.ops.restore import RestoreReport
    from drd.ops.verify import VerifyReport


def backups(session: Session, report: BackupReport) -> None:
    """Tell how each source was backed up."""
    log = session.log
    for item in report.sources:
        made = item.backup
        if item.outcome != "cancelled":
            session.done.runs["backup", item.source] = made is not None
        if made is None:
            log.error("backup.failed", source=item.source, engine=item.engine, **_why(item.error))
            continue
        session.done.made[item.source] = made
        log.info(
            "backup.finished",
            source=item.source,
            engine=item.engine,
            backup=made.id,
            kind=made.kind,
            plain_bytes=made.plain_bytes,
            stored_bytes=made.stored_bytes,
            rows=made.rows,
            recovery_point=moment(made.recovery_point),
            duration_s=round(item.duration_s, 3),
            notices=[notice.code for notice in item.notices],
        )


def pruned(session: Session, report: PruneReport) -> None:
    """Tell what was kept and removed of each source; a plan that was not carried out is no event."""
    log = session.log
    for item in report.sources if report.applied else ():
        session.done.runs["prune", item.source] = item.error is None
        if item.error is not None:
            log.error("prune.failed", source=item.source, **_why(item.error))
            continue
        left = len(item.decision.remove) - len(item.removed)
        session.done.pruned[item.source] = (len(item.decision.keep), len(item.removed), left)
        log.info(
            "prune.finished",
            source=item.source,
            kept=len(item.decision.keep),
            removed=list(item.removed),
            removed_bytes=item.removed_bytes,
            locked=len(item.locked),
        )


def verified(session: Session, report: VerifyReport) -> None:
    """Tell what was read back, and what of it was no good."""
    log = session.log
    damaged = [item for item in report.backups if item.problems]
    unwell = [item for item in report.backups if item.outcome != "ok"]
    for source in dict.fromkeys(item.source for item in report.backups):
        session.done.runs["verify", source] = all(item.source != source for item in unwell)
    for item in damaged:
        first = item.problems[0]
        log.error(
            "verify.damaged",
            source=item.source,
            backup=item.id,
            problems=len(item.problems),
            subject=first.subject,
            message=first.message,
        )
    log.info(
        "verify.finished",
        outcome=report.outcome,
        backups=len(report.backups),
        damaged=len(damaged),
        **({"objects": report.sample.objects, "bytes": report.sample.bytes} if report.sample else {}),
    )


def restored(session: Session, report: RestoreReport) -> None:
    """Tell how each source was restored."""
    log = session.log
    for item in report.restores:
        facts = {"source": item.source, "backup": item.backup.id, "target": item.target}
        if item.error is not None:
            log.error("restore.failed", **facts, **_why(item.error))
        elif item.outcome == "ok":
            log.info(
                "restore.finished",
                **facts,
                recovery_point=moment(item.backup.recovery_point),
                duration_s=round(item.duration_s, 3),
                checked=item.checked,
            )


def drilled(session: Session, reports: list[DrillReport]) -> None:
    """Tell the verdict of each run of each drill."""
    log = session.log
    for report in reports:
        if report.error is not None:
            log.error("drill.failed", drill=report.drill, **_why(report.error))
        for run in report.runs:
            say = log.info if run.verdict == "passed" else log.error
            say(
                "drill.finished",
                drill=run.drill,
                run=run.id,
                source=run.source,
                backup=run.backup,
                verdict=run.verdict,
                rto_s=round(run.rto_s, 3),
                rpo_s=None if run.rpo_s is None else round(run.rpo_s, 3),
                over_objective=list(run.over_objective),
                not_passed=sum(check.outcome in {"failed", "unverified"} for check in run.checks),
                **({} if run.error is None else {"message": run.error.message, "hint": run.error.hint}),
            )


def _why(error: DrdError | None) -> dict[str, Any]:
    if error is None:
        return {}
    return {"code": error.code, "message": error.message, "hint": error.hint}
