"""The PostgreSQL engine as operations see it; the work is in the modules beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from drd.engines.postgres import catalog, checks, dump, live, place, restore
from drd.engines.postgres.connection import endpoint_of, mapped
from drd.engines.postgres.settings import PostgresSettings
from drd.model import Backup, CheckItem, DumpResult, EngineKind, Fingerprint, Probe, RestoreResult, TargetState
from drd.protocols import ArtifactReader, ArtifactSink, WorkContext


class PostgresEngine:
    """Dumps and restores databases of one PostgreSQL server, versions 12 to 18, with its own client tools.

    Implements :class:`drd.protocols.Engine`. Holds no connection between calls.
    """

    kind: EngineKind = "postgres"

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings

    def probe(self) -> Probe:
        """Connect and learn version, role and size; changes nothing."""
        endpoint = endpoint_of(self._settings, "source")
        with contextlib.closing(endpoint.connect()) as session, mapped(endpoint, "measure the databases"):
            names = catalog.database_names(session, self._settings.databases, endpoint)
            size, standby = catalog.one(
                session,
                """SELECT coalesce(sum(pg_catalog.pg_database_size(datname)), 0)::bigint, pg_catalog.pg_is_in_recovery()
                     FROM pg_catalog.pg_database WHERE datname = ANY (%s)""",
                names,
            )
            version = catalog.server_version(session)
        return Probe(version, int(size), f"{'standby' if standby else 'primary'}, {len(names)} database(s)")

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        """Write the artifacts of one consistent backup; see :mod:`drd.engines.postgres.dump`."""
        return dump.dump(self._settings, endpoint_of(self._settings, "source"), sink, ctx)

    def inspect(self, backup: Backup, artifacts: ArtifactReader) -> TargetState:
        """Say which databases ``backup`` would become here and whether they are absent or empty; changes nothing."""
        del backup
        endpoint = endpoint_of(self._settings, "target")
        jobs = restore.plan(self._settings, endpoint, artifacts)
        targets = [job.target for job in jobs]
        held: list[str] = []
        absent = 0
        with contextlib.closing(place.maintenance(endpoint, set(targets))) as session:
            here = endpoint.pinned(session)
            for name in targets:
                absent += not place.exists(session, name)
                if found := place.holdings(here, session, name):
                    held.append(f"the database {name} already holds {found}")
        state = "absent" if absent == len(targets) else "empty" if not held else "in use"
        return TargetState(f"{', '.join(targets)} on {endpoint.label} ({state})", not held, "; ".join(held))

    def restore(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> RestoreResult:
        """Restore beside what is there, then give the databases their names; see :mod:`.restore`."""
        return restore.restore(self._settings, endpoint_of(self._settings, "target"), backup, artifacts, ctx)

    def narrowed(self, expected: Fingerprint, artifacts: ArtifactReader, ctx: WorkContext) -> Fingerprint:
        """Return what of a backup's fingerprint the part to restore must be equal to."""
        del ctx
        return restore.narrowed(self._settings, expected, artifacts)

    def fingerprint(self, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Read every table as pg_dump would and digest it; see :mod:`drd.engines.postgres.live`."""
        return live.fingerprint(self._settings, endpoint_of(self._settings, "target"), expected, ctx)

    def check(self) -> Sequence[CheckItem]:
        """Look at everything a dump needs, a line an item; raises nothing."""
        return checks.check(self._settings)
