"""Put a backup in the place of live ClickHouse databases: built under other names, then renamed, and back.

Each database needs two renames, one right after the other (the server knows no statement for both); between them a
client finds no database of that name. So a process of its own sends them (:mod:`.handover`), and goes on to the end
though drd be killed there; drd does where that one is killed. Only if both are, within those milliseconds, the name
stays absent until the next run, which ends the swap forwards, as the data is compared already.

What follows (:mod:`.finish`) is made to be repeated: the definitions that name their database are made anew
(:mod:`.definitions`), and the materialized views of the copy that is kept are detached, lest rows that arrive in the
new one feed them. That process does this, too, where drd is killed. What has been done is told from names and comments
alone:

* a mark ``old`` on a database that has its own name: not swapped yet; ``staged`` on one that has: not finished yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from drd.engines.clickhouse import definitions, fingerprints, orphans, restore, rights, unfinished
from drd.engines.clickhouse.client import TARGET, Server, ServerRefusal, told
from drd.engines.clickhouse.engine import ClickHouseEngine
from drd.engines.clickhouse.finish import comment, fed_views, finish, marked, note
from drd.engines.clickhouse.handover import by_hands
from drd.engines.clickhouse.packindex import read_index
from drd.engines.clickhouse.quoting import identifier
from drd.engines.clickhouse.renames import Change, await_end, change_names, rename, token_of
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.engines.marks import Mark, Role, Staging, kept_name, of_role, staged_for, staged_name
from drd.errors import DrdError, TargetError, ToolError
from drd.model import Backup, Fingerprint, Notice, Recovered
from drd.protocols import ArtifactReader, Engine, WorkContext


class ClickHouseReplacer:
    """Implements :class:`drd.protocols.Replacer`; the engine of :meth:`stage` knows the parts to compare."""

    keeps: Literal["beside", "backup"] = "beside"

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._server = Server(settings, TARGET)
        self._staged: ClickHouseEngine | None = None

    def survey(self, backup: Backup, artifacts: ArtifactReader) -> Sequence[str]:
        """Say the steps; raises TargetError where a rename cannot replace a database, or there is no room."""
        with told(TARGET, "looked at the target"):
            names = self._live(artifacts)
            _require_renames(self._server, names)
            rights.require_swap(self._server, names)
            _require_room(self._server, backup)
            present = sorted(restore.held(self._server, names))
            lost = fingerprints.without_rows(fingerprints.engines(self._server, names), fingerprints.EMPTIED)
        built = ", ".join(staged_name("……", name) for name in names)
        return (
            f"build {', '.join(names)} beside, as {built}; clients go on",
            "let the server read every part back, and compare rows and hashes with the fingerprint",
            "swap by two renames each, one right after the other; views and dictionaries follow within moments",
            f"keep {', '.join(present)} as NAME_before_TIME"
            + (f"; only there are the rows of {lost}, of which BACKUP saves none" if lost else ""),
        )

    def stage(self, restore_id: str, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Sequence[Notice]:
        """Restore into databases of other names, which carry the restore's mark."""
        with told(TARGET, "looked at the target"):
            names = self._live(artifacts)
            _require_renames(self._server, names)
        settings = replace(self._settings, staging=Staging.of(restore_id, names))
        self._staged = ClickHouseEngine(settings)
        notices = self._staged.restore(backup, artifacts, ctx).notices
        # what points elsewhere while it has another name points right when it has its own
        return [notice for notice in notices if notice.code != "points-elsewhere"]

    def fingerprint(self, restore_id: str, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Read the staged databases."""
        del restore_id
        if self._staged is None:
            raise AssertionError("stage() comes first")
        return self._staged.fingerprint(expected, ctx)

    def swap(
        self,
        restore_id: str,
        backup: Backup,
        artifacts: ArtifactReader,
        ctx: WorkContext,
        save_old: Callable[[Engine], None],
    ) -> Sequence[str]:
        """Rename the live databases away and the staged ones to their names; go back if what follows fails."""
        del backup, save_old
        server = self._server
        with told(TARGET, "swapped the databases"):
            names = self._live(artifacts)
            staged = staged_for(marked(server, restore_id), names)
            note(
                server,
                staged,
                definitions.renewals(server, read_index(artifacts), artifacts, staged, staged_name(restore_id, "")),
            )
            ctx.cancel.raise_if_cancelled()
            kept = self._leave(restore_id, names, "old")
            try:
                changes = [Change(live, kept.get(live), built) for live, built in staged.items()]
                by_hands(server, restore_id, changes, ctx.cancel.raise_if_cancelled)
            except (ServerRefusal, DrdError):
                self._go_back(restore_id)
                raise
        return list(kept.values())

    def recover(self, restore_id: str) -> Recovered:
        """Finish a swap or an undo that was begun, undo one that was not, and drop what was staged."""
        server, notices = self._server, []
        with told(TARGET, "ended an interrupted restore"):
            await_end(server, token_of(restore_id))  # of one that was killed the other process may still be at it
            found = marked(server, restore_id)
            for name, mark in found.items():
                if mark.role == "undone" and name == mark.live:  # the way back had not been taken
                    comment(server, name, mark.comment)
            if any(
                (mark.role == "old") == (name != mark.live) and mark.role != "undone" for name, mark in found.items()
            ):
                self._go_on(restore_id)
            replaced = any(
                (mark.role == "old") == (name != mark.live) and mark.role != "undone"
                for name, mark in marked(server, restore_id).items()
            )
            finish(server, restore_id)
            left = [name for name, mark in marked(server, restore_id).items() if mark.role == "staged"]
            _drop(server, left)
            notices += [
                Notice("leftover-removed", f"dropped {name}, left by the restore {restore_id}") for name in left
            ]
            prefix = staged_name(restore_id, "")
            rows = server.rows(
                "SELECT name FROM system.databases WHERE startsWith(name, {prefix:String})", {"prefix": prefix}
            )
            notices += orphans.end_orphans(server) + unfinished.take_back(server, [row["name"] for row in rows])
        return Recovered(replaced, tuple(notices))

    def undo(self, restore_id: str) -> Sequence[str]:
        """Rename the old databases back, and those in their place away."""
        server = self._server
        with told(TARGET, "undid a restore"):
            found = marked(server, restore_id)
            old = {mark.live: name for name, mark in found.items() if mark.role == "old" and name != mark.live}
            if old:
                away = self._leave(restore_id, list(old), "undone")
                changes = [Change(live, away.get(live), name) for live, name in old.items()]
                by_hands(server, restore_id, changes)
            finish(server, restore_id)
            undone = of_role(marked(server, restore_id), "undone")
            if not old and not undone:
                raise TargetError(
                    f"{self._server.address.netloc} has no old copy of the restore {restore_id} any more",
                    hint="it was dropped; an earlier state is in the backups: drd list",
                )
        return sorted(undone.values())

    def drop_old(self, restore_id: str) -> Sequence[str]:
        """Drop the copies that are kept."""
        with told(TARGET, "dropped the kept copies"):
            found = marked(self._server, restore_id)
            kept = [name for name, mark in found.items() if mark.role != "staged" and name != mark.live]
            _drop(self._server, kept)
        return kept

    def _live(self, artifacts: ArtifactReader) -> list[str]:
        """Name the databases to be replaced, which must be called as in the backup: definitions speak of them."""
        names = restore.live_names(self._settings, read_index(artifacts).databases())
        for there, here in names.items():
            if there != here:
                raise TargetError(
                    f"the backup is of {there}, the URL names {here}: definitions in it would speak of {there}",
                    hint="leave the database out of the source's url",
                )
        return list(names.values())

    def _leave(self, restore_id: str, names: Sequence[str], role: Role) -> dict[str, str]:
        """Mark the live databases that exist as about to be kept; return what each will be called."""
        server, out = self._server, {}
        rows = server.rows(
            "SELECT name, comment FROM system.databases WHERE name IN {names:Array(String)}", {"names": list(names)}
        )
        mine = marked(server, restore_id)
        for row in rows:
            name = row["name"]
            own = mine[name].comment if name in mine else row["comment"]
            mark = Mark(restore_id, role, name, own, tuple(fed_views(server, name)))
            comment(server, name, mark.text())
            out[name] = kept_name(restore_id, name, role)
        return out

    def _go_back(self, restore_id: str) -> None:
        """Give the live databases their names again after a swap that failed; what was staged is dropped later."""
        server, token = self._server, token_of(restore_id)
        await_end(server, token)
        found = marked(server, restore_id)
        old = {mark.live: name for name, mark in found.items() if mark.role == "old" and name != mark.live}
        swapped = [name for name, mark in found.items() if mark.role == "staged" and name == mark.live]
        aside = {live: staged_name(restore_id, live) for live in swapped}
        _put_right(server, restore_id, [Change(live, aside.get(live), name) for live, name in old.items()])
        for live in swapped:
            if live not in old:  # nobody had the name before
                rename(server, live, aside[live], token)
        finish(server, restore_id)

    def _go_on(self, restore_id: str) -> None:
        """Do the renames that a killed swap, or undo, had not come to: no live name is left without its database."""
        server, found = self._server, marked(self._server, restore_id)
        staged, old = of_role(found, "staged"), of_role(found, "old")
        changes = [
            Change(live, kept_name(restore_id, live, "old") if old.get(live) == live else None, built)
            for live, built in staged.items()
            if built != live
        ]
        changes += [
            Change(live, None, kept) for live, kept in old.items() if live not in staged and not _exists(server, live)
        ]
        _put_right(server, restore_id, changes)


def _put_right(server: Server, restore_id: str, changes: Sequence[Change]) -> None:
    """Change names where some may be absent already: those take one rename, which is sent at once."""
    token = token_of(restore_id)
    change_names(server, [change for change in changes if change.away is None], token)
    both = [change for change in changes if change.away is not None]
    try:
        by_hands(server, restore_id, both)
    except ToolError:  # this is no time to give up
        change_names(server, both, token)


def _drop(server: Server, names: Sequence[str]) -> None:
    for name in names:
        server.execute(f"DROP DATABASE IF EXISTS {identifier(name)} SYNC", settings=unfinished.FORCE)


def _exists(server: Server, name: str) -> bool:
    return bool(server.rows("SELECT 1 FROM system.databases WHERE name = {name:String}", {"name": name}))


def _require_renames(server: Server, names: Sequence[str]) -> None:
    """Raise TargetError for a database whose rename would not replace it everywhere, or not at all."""
    rows = server.rows(
        "SELECT name, engine FROM system.databases WHERE name IN {names:Array(String)} AND engine != 'Atomic'",
        {"names": list(names)},
    )
    for row in rows:
        raise TargetError(
            f"the database {row['name']} is of the engine {row['engine']}; only an Atomic one can be replaced in place",
            hint="restore into another server with --into",
        )
    rows = server.rows(
        "SELECT database, name, engine FROM system.tables WHERE database IN {names:Array(String)} "
        "AND startsWith(engine, 'Replicated') ORDER BY 1, 2 LIMIT 1",
        {"names": list(names)},
    )
    for row in rows:
        raise TargetError(
            f"{row['database']}.{row['name']} is replicated: a rename here would not replace it on its other servers",
            hint="restore into new databases with --into on each",
        )


def _require_room(server: Server, backup: Backup) -> None:
    (row,) = server.rows("SELECT sum(free_space) AS free FROM system.disks")
    if int(row["free"]) < backup.plain_bytes:
        raise TargetError(
            f"the server's disks have {int(row['free']) >> 20:,} MiB free, and a second copy needs about "
            f"{backup.plain_bytes >> 20:,} MiB",
            hint="free space there, or restore into another server with --into; nothing was changed",
        )
