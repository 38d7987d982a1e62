"""The ClickHouse engine: one server, as source or as target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from drd.engines.clickhouse import checks, fingerprints, selection
from drd.engines.clickhouse import dump as dumping
from drd.engines.clickhouse import restore as restoring
from drd.engines.clickhouse.client import SOURCE, TARGET, Server, told
from drd.engines.clickhouse.packindex import read_index
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.model import Backup, CheckItem, DumpResult, Fingerprint, Probe, RestoreResult, TargetState
from drd.protocols import ArtifactReader, ArtifactSink, Clock, WorkContext


class ClickHouseEngine:
    """Implements :class:`drd.protocols.Engine` for one ClickHouse server; connects when first used.

    ``clock`` lets :meth:`check` compare the clocks; without it that line is left out.
    """

    kind: Literal["clickhouse"] = "clickhouse"

    def __init__(self, settings: ClickHouseSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._source = Server(settings, SOURCE)
        self._target = Server(settings, TARGET)
        self._looking = Server(settings, SOURCE, answer_timeout_s=settings.look_timeout_s)
        self._looking_at_target = Server(settings, TARGET, answer_timeout_s=settings.look_timeout_s)
        self._restored: fingerprints.PartsSnapshot | None = None

    def probe(self) -> Probe:
        """Learn version and size on disk of the databases that would be backed up."""
        with told(SOURCE, "looked at the server"):
            names = dumping.choose_databases(self._looking, self._settings)
            row = self._looking.rows(
                "SELECT sum(bytes_on_disk) AS size, uniqExact(database, table) AS tables FROM system.parts "
                "WHERE active AND database IN {names:Array(String)}",
                {"names": names},
            )[0]
            return Probe(
                self._looking.version(), int(row["size"]), f"{', '.join(names)}: {row['tables']} tables with data"
            )

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        """Take one backup in the configured mode."""
        return dumping.dump(self._source, self._settings, sink, ctx)

    def inspect(self, backup: Backup, artifacts: ArtifactReader) -> TargetState:  # noqa: ARG002 - the protocol's
        """Say which databases a restore would make and whether they are absent or hold no tables."""
        return restoring.inspect(self._looking_at_target, self._settings, artifacts)

    def restore(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> RestoreResult:
        """Restore, check every table, and note the parts for :meth:`fingerprint`."""
        result, self._restored = restoring.restore(self._target, self._settings, backup, artifacts, ctx)
        return result

    def narrowed(self, expected: Fingerprint, artifacts: ArtifactReader, ctx: WorkContext) -> Fingerprint:
        """Return what of a backup's fingerprint the part to restore must be equal to."""
        del ctx
        tables = selection.tables_of(read_index(artifacts).objects)
        return selection.expected_of(self._settings.selection, expected, tables)

    def fingerprint(self, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Read rows and part hashes of the databases that ``expected`` names.

        The first time after :meth:`restore` the parts are those that were read then, all checked by CHECK TABLE:
        merges and TTLs may have rewritten them since.
        """
        with told(TARGET, "read the restored data back"):
            names = restoring.renames(self._settings, fingerprints.databases_named(expected))
            ctx.cancel.raise_if_cancelled()
            restored, self._restored = self._restored, None
            return fingerprints.of_server(self._target, expected, names, restored)

    def check(self) -> Sequence[CheckItem]:
        """Look at reachability, version, rights, databases, tables, and the way out of the server."""
        return checks.check(self._looking, self._settings, self._clock)
