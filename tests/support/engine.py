"""A small engine over a dictionary, to test operations without a database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from drd.errors import SourceRefused, TargetNotEmpty
from drd.model import (
    Backup,
    CheckItem,
    DumpResult,
    EngineKind,
    EngineRunbook,
    Fingerprint,
    Probe,
    Problem,
    RestoreResult,
    TargetState,
)
from drd.protocols import ArtifactReader, ArtifactSink, WorkContext


class DictEngine:
    """Keeps "tables" as bytes; fails on demand."""

    kind: EngineKind = "postgres"

    def __init__(self, tables: dict[str, bytes] | None = None, *, at: datetime | None = None) -> None:
        self.tables = dict(tables or {})
        self.at = at
        self.fail_probe = False
        self.fail_after: int | None = None
        self.corrupt_on_restore = False
        self.restores = 0

    def probe(self) -> Probe:
        if self.fail_probe:
            raise SourceRefused("password authentication failed", hint="check the password")
        return Probe("15.0", sum(map(len, self.tables.values())))

    def _fingerprint(self) -> Fingerprint:
        items = {n: {"rows": d.count(b"\n"), "sha256": hashlib.sha256(d).hexdigest()} for n, d in self.tables.items()}
        return Fingerprint("postgres", dict(items), ("rows", "sha256"))

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        names = sorted(self.tables)
        for index, name in enumerate(names):
            if self.fail_after is not None and index >= self.fail_after:
                raise SourceRefused("the server went away")
            ctx.cancel.raise_if_cancelled()
            writer = sink.open(f"db-0/{index}.dat", cut="rows")
            writer.write(self.tables[name])
            writer.close()
        writer = sink.open("names.json")
        writer.write(json.dumps(names).encode())
        writer.close()
        fingerprint = self._fingerprint()
        return DumpResult(self.at or datetime.now(UTC), fingerprint, "15.0", rows=fingerprint.rows)

    def inspect(self, backup: Backup, artifacts: ArtifactReader) -> TargetState:
        return TargetState("dict", not self.tables, f"dict already holds {len(self.tables)} tables")

    def restore(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> RestoreResult:
        if self.tables:
            raise TargetNotEmpty("dict holds tables")
        with artifacts.open("names.json") as stream:
            names = json.loads(stream.read())
        tables = {}
        for index, name in enumerate(names):
            with artifacts.open(f"db-0/{index}.dat") as stream:
                tables[name] = stream.read()
        if self.corrupt_on_restore and names:
            tables[names[0]] += b"x"
        self.tables = tables
        self.restores += 1
        return RestoreResult()

    def fingerprint(self, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        return self._fingerprint()

    def check(self) -> Sequence[CheckItem]:
        return [CheckItem("connect", "failed" if self.fail_probe else "ok", "dict")]


class BreakingEngine(DictEngine):
    """Writes a table, waits until ``arrived`` says that something of it is stored, and goes away."""

    def __init__(self, arrived: Callable[[], bool]) -> None:
        super().__init__({"t": b"1\n" * 100_000})
        self._arrived = arrived

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        writer = sink.open("db-0/0.dat")
        writer.write(self.tables["t"])
        writer.close()
        for _ in range(200):
            if self._arrived():
                raise SourceRefused("the server went away")
            ctx.cancel.sleep(0.1)
        raise AssertionError("no part arrived in the store")


class DictFormat:
    """Checks that the names fit the files."""

    kind: EngineKind = "postgres"

    def verify(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> list[Problem]:
        with artifacts.open("names.json") as stream:
            names = json.loads(stream.read())
        have = sum(name.startswith("db-0/") for name in artifacts.names())
        return [] if have == len(names) else [Problem("names.json", "does not fit the files")]

    def runbook(self, backup: Backup) -> EngineRunbook:
        shell = 'check_target() { :; }\nrestore_target() { cat "$DATA/names.json"; }\n'
        return EngineRunbook((), (("ANYTHING", "nothing"),), {"MODE": backup.id}, shell)
