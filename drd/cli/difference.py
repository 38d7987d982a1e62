"""``drd show --diff A B``: what changed between two backups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drd.cli import documents, render
from drd.cli.session import Session

if TYPE_CHECKING:  # pulls in the repository
    from drd.model import Json
    from drd.ops.difference import BackupDifference, Change

_SIGNS = {"appeared": "+", "disappeared": "-", "changed": "~", "unknown": "?"}


def run(session: Session, before_id: str, after_id: str) -> int:
    """Print what changed from one backup to the other."""
    from drd.ops.difference import difference

    ports = session.services.ports
    found = difference(ports, ports.catalog.get(before_id), ports.catalog.get(after_id))
    if session.as_json:
        documents.emit(_document(found))
    else:
        _print(found)
    return 0


def _document(found: BackupDifference) -> dict[str, Json]:
    changes: list[Json] = [_change(change) for change in found.changes or ()]
    return {
        "before": documents.backup(found.before),
        "after": documents.backup(found.after),
        "changes": None if found.changes is None else changes,
        "unchanged": None if found.changes is None else found.unchanged,
        "warnings": documents.notices(found.notices),
    }


def _change(change: Change) -> Json:
    return {
        "name": change.name,
        "change": change.kind,
        "rows": {"before": change.rows[0], "after": change.rows[1]},
        "bytes": {"before": change.bytes[0], "after": change.bytes[1]},
        "content_differs": change.content,
    }


def _print(found: BackupDifference) -> None:
    before, after = found.before, found.after
    for word, backup in (("before", before), ("after", after)):
        print(f"{word:<7} {backup.source}  {backup.id}  {render.point(backup.recovery_point)}")
    rows = [
        ("data", render.size(before.plain_bytes), render.size(after.plain_bytes)),
        ("rows or keys", render.number(before.rows), render.number(after.rows)),
    ]
    print(render.table(("TOTAL", "BEFORE", "AFTER"), rows))
    for notice in found.notices:
        print(f"{render.mark('warning')} {notice.message}")
    if found.changes is None:
        return
    if found.changes:
        print(render.table(("", "NAME", "ROWS/KEYS", "DATA", ""), [_row(change) for change in found.changes]))
    unknown = sum(change.kind == "unknown" for change in found.changes)
    more = f"; {unknown} not compared" if unknown else ""
    print(f"{render.plural(len(found.changes) - unknown, 'difference')}; {found.unchanged} unchanged{more}")


def _row(change: Change) -> tuple[str, ...]:
    if change.kind == "changed":
        remark = "other content" if change.content and change.rows[0] == change.rows[1] else ""
    elif change.kind == "unknown":
        remark = "as many rows, perhaps other content: read in other ranges"
    else:
        remark = change.kind
    rows = _arrow(*(render.number(value) for value in change.rows))
    size = _arrow(*("–" if value is None else render.size(value) for value in change.bytes))
    return (_SIGNS[change.kind], render.legible(change.name), rows, size, remark)


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
