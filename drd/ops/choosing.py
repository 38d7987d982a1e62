"""Choose what a restore uses: by the heads of all manifests, then by the whole manifest of what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from drd.model import Backup
from drd.ops.ports import Ports
from drd.ops.presence import demand_repository
from drd.repository.catalog import Catalog, Entry, HeadEntry
from drd.repository.planning import Choice, choose, plan_restore


def choose_backups(ports: Ports, at: datetime, sources: Sequence[str]) -> tuple[Choice[Backup], ...]:
    """Choose each source's newest good backup not later than ``at``, in the order of ``sources``.

    A backup whose manifest, or an ancestor's, turns out to be damaged when it is read whole is passed over like one
    that was seen to be damaged at once. Raises :class:`~drd.errors.NoRecoveryPath` with the recoverable window where a
    source has none, :class:`~drd.errors.CatalogError` where there is no repository at all.
    """
    there = set(demand_repository(ports))
    entries: list[HeadEntry] = []
    chosen: dict[str, Choice[Backup]] = {}
    for source in sources:
        ports.cancel.raise_if_cancelled()
        found = ports.catalog.survey(source).entries if source in there else ()
        checked, choice = choose_whole(ports.catalog, found, at, source)
        entries += checked
        if choice is not None:
            chosen[source] = choice
    return tuple(chosen[choice.source] for choice in plan_restore(entries, at, sources))


def choose_whole(
    catalog: Catalog, entries: Sequence[HeadEntry], at: datetime, source: str
) -> tuple[list[HeadEntry], Choice[Backup] | None]:
    """Choose among the entries of one source, and read what was chosen, and its ancestors, whole.

    Returns the choice, and the entries with a problem in place of each that was found damaged on the way.
    """
    known = list(entries)
    while (choice := choose(known, at, source)) is not None:
        whole: list[Backup] = []
        wrong: dict[str, HeadEntry] = {}
        for head in (*choice.ancestors, choice.backup):
            entry = catalog.read(source, head.id)
            if entry is not None and entry.backup is not None:
                whole.append(entry.backup)
            else:
                wrong[head.id] = entry or Entry(source, head.id, None, "was removed just now")
        if not wrong:
            done = Choice(source, whole[-1], choice.gap_s, tuple(whole[:-1]), choice.passed_over)
            return known, done
        known = [wrong.get(entry.id, entry) for entry in known]
    return known, None
