"""Say of a fresh backup that it holds oddly less than the one before it: the first sign of data that was lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from drd.errors import StoreError
from drd.model import Backup, BackupHead, Notice
from drd.ops.ports import Ports, Source
from drd.repository.oddness import Fall, falls


def mark_oddness(ports: Ports, source: Source, backup: Backup) -> tuple[Backup, tuple[Notice, ...]]:
    """Compare a backup that is not yet published with its predecessors.

    Returns it with the codes of what fell among its warnings, and a notice for each. A role that may not read
    manifests gets a notice instead. Raises store errors that may pass.
    """
    if source.odd_fall is None:
        return backup, ()
    try:
        found = falls(backup, _earlier(ports, source.name, backup), source.odd_fall)
    except StoreError as error:
        if error.retryable:
            raise
        text = f"this role may not read manifests, so it is not known whether {source.name} lost data"
        return backup, (Notice("not-compared", f"{text}: {error.message}"),)
    codes = {*backup.warnings, *(fall.code for fall in found)}
    return replace(backup, warnings=tuple(sorted(codes))), tuple(
        Notice(fall.code, f"{fall_words(fall)}; what is gone: drd show --diff {fall.since} {backup.id}")
        for fall in found
    )


def fall_words(fall: Fall) -> str:
    """Say what fell, from what to what, since when."""
    unit = "rows or keys" if fall.code == "fewer-rows" else "bytes of data"
    return f"{100 * fall.share:.0f} % fewer {unit} than in {fall.since}: {fall.before:,} before, {fall.now:,} now"


def _earlier(ports: Ports, source: str, backup: Backup) -> Iterator[BackupHead]:
    for backup_id in reversed(ports.catalog.ids(source)):
        if backup_id == backup.id:
            continue
        entry = ports.catalog.read(source, backup_id)
        if entry is not None and entry.backup is not None and entry.backup.recovery_point <= backup.recovery_point:
            yield entry.backup
