"""The ``--json`` documents: their keys are a contract, more may be added, none taken away.

Times are ISO 8601 in UTC, sizes bytes, durations seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what a document is made of was imported by whoever made it; --help needs none of it
    from drd.daemon.model import JobView
    from drd.drills.report import DrillRun
    from drd.errors import DrdError
    from drd.model import BackupHead, CheckItem, Json, Notice
    from drd.ops.backup import BackupReport
    from drd.ops.check import CheckReport
    from drd.ops.coverage import Coverage
    from drd.ops.prune import PruneReport
    from drd.ops.prune_drills import PrunedReports
    from drd.ops.restore import RestoreReport
    from drd.ops.status import StatusReport
    from drd.ops.verify import VerifyReport
    from drd.repository.catalog import HeadEntry
    from drd.repository.oddness import Growth


def emit(document: Json) -> None:
    """Print one document on standard output; escaped where its encoding does not hold every character."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=plain) + "\n")


def moment(value: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def error(raised: DrdError) -> dict[str, Json]:
    """Return the inner document of an error."""
    return {
        "code": raised.code,
        "op": raised.op,
        "subject": raised.subject,
        "message": raised.message,
        "hint": raised.hint,
        "exit_code": raised.exit_code,
    }


def notices(found: tuple[Notice, ...]) -> list[Json]:
    """Return notices as code and message."""
    return [{"code": notice.code, "message": notice.message} for notice in found]


def backup(value: BackupHead, *, warnings: list[Json] | None = None) -> dict[str, Json]:
    """Return one line of ``list`` and ``backup now``."""
    return {
        "id": value.id,
        "source": value.source,
        "engine": value.engine,
        "kind": value.kind,
        "parent": value.parent,
        "outcome": "ok",
        "recovery_point": moment(value.recovery_point),
        "plain_bytes": value.plain_bytes,
        "stored_bytes": value.stored_bytes,
        "rows": value.rows,
        "duration_s": round(value.duration_s, 3),
        "warnings": [{"code": code} for code in value.warnings] if warnings is None else warnings,
    }


def backup_report(report: BackupReport) -> dict[str, Json]:
    """Return the document of ``backup now``."""
    lines: list[Json] = []
    for source in report.sources:
        if source.backup is not None:
            line = backup(source.backup, warnings=notices(source.notices))
            lines.append(line | {"kind_reason": source.kind_reason})
        else:
            lines.append(
                {
                    "id": None,
                    "source": source.source,
                    "engine": source.engine,
                    "kind": None,
                    "parent": None,
                    "outcome": source.outcome,
                    "recovery_point": None,
                    "plain_bytes": None,
                    "stored_bytes": None,
                    "rows": None,
                    "duration_s": round(source.duration_s, 3),
                    "warnings": notices(source.notices),
                    "error": error(source.error) if source.error else None,
                }
            )
    return {"outcome": report.outcome, "duration_s": round(report.duration_s, 3), "backups": lines}


def catalog(entries: list[HeadEntry], broken: dict[str, str], grown: dict[str, dict[str, Growth]]) -> dict[str, Json]:
    """Return the document of ``list``.

    What is no good is a line with outcome ``damaged`` or ``untrusted``; so is a backup of ``broken``, whose chain is
    not whole.
    """
    lines: list[Json] = []
    for entry in entries:
        if entry.backup is None:
            lines.append({"id": entry.id, "source": entry.source, "outcome": unusable(entry), "problem": entry.problem})
            continue
        line = backup(entry.backup) | growth(grown[entry.source][entry.id])
        if entry.id in broken:
            line |= {"outcome": "damaged", "problem": broken[entry.id]}
        lines.append(line)
    return {"backups": lines}


def growth(value: Growth) -> dict[str, Json]:
    """Return a backup beside the one before it: the change of its plain bytes, and what fell oddly."""
    falls: list[Json] = [
        {"code": fall.code, "since": fall.since, "before": fall.before, "now": fall.now} for fall in value.falls
    ]
    return {"growth": None if value.data is None else round(value.data, 6), "odd": falls}


def unusable(entry: HeadEntry) -> str:
    """Say what kind of trouble an entry without a backup is."""
    return "untrusted" if entry.distrusted else "damaged"


def restore_report(report: RestoreReport, steps: Mapping[str, Sequence[str]] | None = None) -> dict[str, Json]:
    """Return the document of ``restore``; ``steps`` says, for a dry run, how each source would be replaced."""
    return {
        "at": moment(report.at),
        "outcome": report.outcome,
        "duration_s": round(report.duration_s, 3),
        "restores": [
            {
                "source": item.source,
                "backup": item.backup.id,
                "recovery_point": moment(item.backup.recovery_point),
                "gap_s": round(item.gap_s, 3),
                "target": item.target,
                "outcome": item.outcome,
                "duration_s": round(item.duration_s, 3),
                "check_s": round(item.check_s, 3),
                "checked": item.checked,
                "warnings": notices(item.notices),
                "passed_over": [{"id": id_, "reason": reason} for id_, reason in item.passed_over],
                "replaced": {"restore": item.replaced.restore, "old": list(item.replaced.old)}
                if item.replaced
                else None,
                **({"steps": list(steps[item.source])} if steps and item.source in steps else {}),
                "error": error(item.error) if item.error else None,
            }
            for item in report.restores
        ],
    }


def verify_report(report: VerifyReport) -> dict[str, Json]:
    """Return the document of ``verify``."""
    return {
        "outcome": report.outcome,
        "deep": report.deep,
        "unfinished": list(report.unfinished),
        "leftovers": [
            {"id": i.id, "source": i.source, "objects": i.objects, "bytes": i.bytes, "may_run": i.may_run}
            for i in report.leftovers
        ],
        "sample": {"objects": report.sample.objects, "bytes": report.sample.bytes} if report.sample else None,
        "coverage": [coverage(item) for item in report.coverage],
        "warnings": notices(report.notices),
        "backups": [
            {
                "id": item.id,
                "source": item.source,
                "outcome": item.outcome,
                "problems": [{"subject": p.subject, "message": p.message, "effect": p.effect} for p in item.problems],
                **({"sealed": item.sealed.message} if item.sealed else {}),
            }
            for item in report.backups
        ],
    }


def coverage(value: Coverage) -> dict[str, Json]:
    """Return how much of a source was read back when."""
    return {
        "source": value.source,
        "total_bytes": value.total_bytes,
        "read_bytes": value.read_bytes,
        "oldest_read_at": moment(value.oldest_read_at),
        "damaged_objects": value.damaged,
        "unknown": value.unknown or None,
    }


def prune_report(report: PruneReport) -> dict[str, Json]:
    """Return the document of ``prune``."""
    return {
        "outcome": report.outcome,
        "applied": report.applied,
        "keep": [
            {"id": item.id, "source": source.source, "reasons": list(item.reasons)}
            for source in report.sources
            for item in source.decision.keep
        ],
        "remove": [
            {
                "id": item.id,
                "source": source.source,
                "reason": item.reason,
                "removed": item.id in source.removed,
                "locked_until": next((moment(lock.until) for lock in source.locked if lock.id == item.id), None),
            }
            for source in report.sources
            for item in source.decision.remove
        ],
        "orphans": [
            {"id": item.id, "source": source.source, "objects": item.objects, "bytes": item.bytes, "swept": item.swept}
            for source in report.sources
            for item in source.orphans
        ],
        "left_alone": list(report.left_alone),
        "errors": [{"source": source.source, **error(source.error)} for source in report.sources if source.error],
    }


def pruned_reports(reports: PrunedReports) -> dict[str, Json]:
    """Return what ``prune`` says of drill reports."""
    until = {item.id: item.until for item in reports.locked}
    remove: list[Json] = [
        {
            "run": item.id,
            "drill": item.drill,
            "reason": item.reason,
            "removed": item.id in reports.removed,
            "locked_until": moment(until.get(item.id)),
        }
        for item in reports.decision.remove
    ]
    keep: list[Json] = [
        {"run": item.id, "drill": item.drill, "reasons": list(item.reasons)} for item in reports.decision.keep
    ]
    return {"drill_reports": {"keep": keep, "remove": remove, "error": error(reports.error) if reports.error else None}}


def check_report(report: CheckReport) -> dict[str, Json]:
    """Return the document of ``check``."""
    return {"outcome": report.outcome, "items": [check_item(item) for item in report.items]}


def check_item(item: CheckItem) -> Json:
    """Return one line of ``check``."""
    return {"name": item.name, "outcome": item.outcome, "detail": item.detail, "hint": item.hint}


def last_drill(run: DrillRun | None) -> Json:
    """Return what ``status`` says of the last drill of a source; null where there was none."""
    if run is None:
        return None
    return {
        "run": run.id,
        "drill": run.drill,
        "verdict": run.verdict,
        "backup": run.backup,
        "finished_at": moment(run.finished_at),
        "rto_s": round(run.rto_s, 3),
        "rpo_s": None if run.rpo_s is None else round(run.rpo_s, 3),
    }


def job(view: JobView) -> Json:
    """Return what the daemon knows of a job."""
    last = view.last
    return {
        "job": view.job.name,
        "kind": view.job.kind,
        "subject": view.job.subject,
        "next_run": moment(view.next_run_at),
        "retry": view.retry,
        "running_since": moment(view.running_since),
        "phase": view.phase or None,
        "progress": view.progress,
        "failures": view.failures,
        "last": None
        if last is None
        else {
            "outcome": last.outcome,
            "started_at": moment(last.started_at),
            "duration_s": round(last.duration_s, 3),
            "message": last.message or None,
            "hint": last.hint or None,
        },
    }


def status_report(report: StatusReport, planned: Mapping[str, datetime | None] | None = None) -> dict[str, Json]:
    """Return the document of ``status``; ``planned`` are the next backups of sources, where a daemon knows them."""
    return {
        "at": moment(report.at),
        "recoverable_to": moment(report.recoverable_to),
        "notices": notices(report.notices),
        "sources": [
            {
                "source": item.source,
                "configured": item.configured,
                "backups": item.backups,
                "damaged": item.damaged,
                "untrusted": item.untrusted,
                "unfinished": item.unfinished,
                "from_future": item.from_future,
                "read_back": coverage(item.coverage),
                "newest": backup(item.newest) if item.newest else None,
                "age_s": None if item.age_s is None else round(item.age_s, 3),
                "rpo_s": item.rpo_s,
                "within_rpo": item.within_rpo,
                "window": {
                    "start": moment(item.oldest.recovery_point if item.oldest else None),
                    "end": moment(item.newest.recovery_point if item.newest else None),
                },
                "last_drill": last_drill(item.last_drill),
                "next_run": moment((planned or {}).get(item.source)),
            }
            for item in report.sources
        ],
    }
