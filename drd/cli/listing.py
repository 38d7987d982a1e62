"""``drd list``: the backups in the store, oldest first."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render
from drd.cli.session import Session
from drd.errors import ConfigError

if TYPE_CHECKING:  # pulls in the repository
    from collections.abc import Sequence

    from drd.repository.catalog import HeadEntry
    from drd.repository.oddness import Growth

_BARS = "▁▂▃▄▅▆▇█"


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "list", help="list backups", parents=[common], description="List the backups in the store."
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="only this source's")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Print the catalog."""
    from drd.ops.presence import demand_repository
    from drd.repository.oddness import growth
    from drd.repository.planning import broken_chain

    services = session.services
    catalog = services.ports.catalog
    known = demand_repository(services.ports)
    if args.source and args.source not in known:
        if args.source not in services.config.sources:
            names = ", ".join(sorted({*known, *services.config.sources})) or "none"
            raise ConfigError(f"no source is called {args.source}", op="list", hint=f"sources: {names}")
        surveys = {}
    else:
        surveys = {name: catalog.survey(name) for name in ([args.source] if args.source else known)}
    entries = sorted((e for s in surveys.values() for e in s.entries), key=lambda entry: (entry.id, entry.source))
    by_id = {entry.id: entry.backup for entry in entries if entry.backup}
    broken = {found: reason for found, backup in by_id.items() if (reason := broken_chain(backup, by_id))}
    grown = {
        name: growth([entry.backup for entry in survey.entries if entry.backup], services.odd_fall(name))
        for name, survey in surveys.items()
    }
    if session.as_json:
        documents.emit(documents.catalog(entries, broken, grown))
    elif not entries:
        print("No backups yet. Take one with: drd backup now")
    else:
        _print(entries, broken, {source: survey.unfinished for source, survey in surveys.items()}, grown)
    return 0


def _print(
    entries: list[HeadEntry],
    broken: dict[str, str],
    unfinished: dict[str, tuple[str, ...]],
    grown: dict[str, dict[str, Growth]],
) -> None:
    from drd.ops.oddness import fall_words

    rows = []
    for entry in entries:
        if entry.backup is None:
            rows.append((entry.source, entry.id, documents.unusable(entry), "–", "–", "–", "–", entry.problem or ""))
            continue
        backup = entry.backup
        rows.append(
            (
                backup.source,
                backup.id,
                f"{backup.kind} ← {backup.parent[-6:]}" if backup.parent else backup.kind,
                render.size(backup.plain_bytes),
                _percent(grown[entry.source][entry.id].data),
                render.size(backup.stored_bytes),
                render.number(backup.rows),
                render.point(backup.recovery_point),
            )
        )
    headings = ("SOURCE", "BACKUP", "KIND", "DATA", "GROWTH", "STORED", "ROWS/KEYS", "STATE AS OF")
    table = render.table(headings, rows)
    print(table if render.fits(table) else _narrow(headings, rows))
    print()
    sizes_of: dict[str, list[int]] = {entry.source: [] for entry in sorted(entries, key=lambda e: e.source)}
    for entry in entries:
        if entry.backup:
            sizes_of[entry.source].append(entry.backup.plain_bytes)
    width = max(map(len, sizes_of))
    for source, sizes in sizes_of.items():
        print(f"  {source:<{width}}  {sparkline(sizes[-30:])}  {render.plural(len(sizes), 'backup')}")
    for entry in entries:
        if entry.backup and (reason := broken.get(entry.id)):
            print(f"{render.mark('failed')} {entry.source}: {entry.id} cannot be restored: {reason}")
    for source, of in grown.items():
        for backup_id, found in sorted(of.items()):
            for fall in found.falls:
                print(f"{render.mark('warning')} {source}: {backup_id} has {fall_words(fall)}")
                print(f"    drd show --diff {fall.since} {backup_id}")
    for source, ids in unfinished.items():
        for backup_id in ids:
            print(f"{render.mark('warning')} {source}: {backup_id} is unfinished or running; it is not a backup")


def _narrow(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Lay the backups out by source, without the time that an id tells as well."""
    lines = render.table(headings[1:-1], [row[1:-1] for row in rows]).splitlines()
    out = [lines[0]]
    for source in dict.fromkeys(row[0] for row in rows):
        out.append(source)
        out += [line for line, row in zip(lines[1:], rows, strict=True) if row[0] == source]
    return "\n".join(out)


def _percent(change: float | None) -> str:
    """Show a change as a percentage with its sign."""
    if change is None:
        return "–"
    return f"{100 * change:+.0f} %" if abs(change) >= 0.005 else "="


def sparkline(values: list[int]) -> str:
    """Draw sizes as bars, scaled to the largest."""
    top = max(values, default=0)
    return "".join(_BARS[min(7, value * 8 // (top + 1))] if top else _BARS[0] for value in values)
