"""What a restored ClickHouse can say of itself: definitions as in the backup, every table read, answers to SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal

from drd.cancel import CancelToken
from drd.engines.clickhouse.client import TARGET, Server, ServerRefusal, told
from drd.engines.clickhouse.longquery import LongQuery
from drd.engines.clickhouse.manifest import parse_manifest
from drd.engines.clickhouse.packindex import PackIndex, read_index
from drd.engines.clickhouse.packing import MANIFEST_KEY
from drd.engines.clickhouse.quoting import described_table, shown, table
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.engines.clickhouse.spaces import BackupSpace
from drd.errors import DrdError, IntegrityError, QuestionError, ScratchError, TargetError
from drd.model import Answer, Backup, Cell, Finding, Question
from drd.protocols import ArtifactReader, WorkContext

SCHEMA, TABLES = "schema", "CHECK TABLE"
_MAX_NAMED = 5
_MOST_BYTES = 16 << 20
_CHECKABLE = frozenset({"Log", "TinyLog", "StripeLog"})
_UUID = re.compile(r" (TO INNER )?UUID '[0-9a-f-]{36}'")
# Source of the numbers: src/Common/ErrorCodes.cpp of ClickHouse.
_MISSING = frozenset({16, 47, 60, 81})  # no such column, unknown identifier, unknown table, unknown database
_DAMAGED = frozenset({40, 226, 228, 246, 252, 271, 432, 1001})
_CANNOT_CHECK = 48  # NOT_IMPLEMENTED


class ClickHouseExaminer:
    """Implements :class:`drd.protocols.Examiner` for a scratch server; connects when asked."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._server = Server(settings, TARGET)

    def prepare(self, backup: Backup, cancel: CancelToken) -> str:
        """Demand a server whose release is not older than the backup's."""
        cancel.raise_if_cancelled()
        try:
            with told(TARGET, "looked at the scratch server"):
                version = self._server.version()
        except TargetError as error:
            raise ScratchError(error.message, hint=error.hint) from error
        if _release(version) < _release(backup.engine_version):
            raise ScratchError(
                f"the scratch server is ClickHouse {version}, the backup of {backup.engine_version}:"
                " an older server need not read it",
                hint="give the drill a server of the same release or a newer one",
            )
        return version

    def examine(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Iterator[Finding]:
        """Compare every definition with the backup's, then let the server read every table back."""
        del backup
        index = read_index(artifacts)
        with told(TARGET, "examined the restored data"):
            yield self._schema(index, artifacts)
            yield self._tables(index.databases(), ctx)

    def ask(self, question: Question, ctx: WorkContext) -> Answer:
        """Run one SQL statement that only reads; tables are named with their database."""
        if question.kind != "sql":
            raise QuestionError(f"a ClickHouse source is asked in sql, not {question.kind}")
        ctx.cancel.raise_if_cancelled()
        options = {
            "readonly": 2,
            "max_result_rows": question.limit_rows + 1,
            "max_result_bytes": _MOST_BYTES,
            "result_overflow_mode": "break",
            "max_block_size": 1024,  # it stops at the end of a block
        }
        try:
            found = self._server.rows(question.words[0], settings=options)
        except ServerRefusal as refusal:
            raise _refusal(refusal) from None
        rows = tuple(tuple(_cell(value) for value in row.values()) for row in found[: question.limit_rows])
        return Answer(rows, len(found) > question.limit_rows)

    def _schema(self, index: PackIndex, artifacts: ArtifactReader) -> Finding:
        """Hold CREATE statements against those in the backup, both written by this server and without UUIDs."""
        expected = self._definitions(index, artifacts)
        rows = self._server.rows(
            "SELECT database, name, engine, formatQuerySingleLine(create_table_query) AS text FROM system.tables "
            "WHERE database IN {names:Array(String)} AND NOT is_temporary AND NOT startsWith(name, '.')",
            {"names": index.databases()},
        )
        found = {(row["database"], row["name"]): (_UUID.sub("", row["text"]), row["engine"]) for row in rows}
        differing: list[str] = []
        cut_off = 0
        for name in sorted({*expected, *found}):
            if name not in found:
                differing.append(f"{shown(*name)} is missing")
            elif name not in expected:
                differing.append(f"{shown(*name)} is new")
            elif expected[name] not in {"", found[name][0]}:
                if found[name][1] in {"Null", "Dictionary"} and "ENGINE = Null" not in expected[name]:
                    cut_off += 1  # RESTORE put Null in the place of what would reach out of the scratch
                else:
                    differing.append(f"{shown(*name)} is defined otherwise")
        if differing:
            more = f"; and {len(differing) - _MAX_NAMED} more" if len(differing) > _MAX_NAMED else ""
            named = "; ".join(differing[:_MAX_NAMED]) + more
            return Finding(SCHEMA, "failed", named, f"{len(expected)} definitions", f"{len(differing)} differ")
        outside = f"; {cut_off} that would reach out of the scratch server are cut off" if cut_off else ""
        return Finding(
            SCHEMA, "passed", f"all {len(expected):,} tables and views are defined as in the backup{outside}"
        )

    def _definitions(self, index: PackIndex, artifacts: ArtifactReader) -> dict[tuple[str, str], str]:
        """Read the CREATE statement of every table of the backup, as this server would write it."""
        space = BackupSpace(index, artifacts)

        def content(key: str) -> bytes:
            if key not in index.objects:
                raise IntegrityError(f"the backup lacks {key}, which its own manifest names")
            return b"".join(bytes(piece) for piece in space.read(key, 0, index.objects[key].size))

        manifest = parse_manifest(iter([content(MANIFEST_KEY)]))
        out: dict[tuple[str, str], str] = {}
        for item in manifest.files:
            name = described_table(item.name)
            if name is None:
                continue
            if item.in_base:  # an ancestor holds it
                out[name] = ""
                continue
            text = content(item.key).decode("utf-8", "surrogateescape")
            row = self._server.rows("SELECT formatQuerySingleLine({sql:String}) AS text", {"sql": text})[0]
            out[name] = _UUID.sub("", row["text"])
        return out

    def _tables(self, databases: list[str], ctx: WorkContext) -> Finding:
        """Check the tables that the restore did not: it checked every MergeTree, with merges stopped."""
        rows = self._server.rows(
            "SELECT database, name, engine FROM system.tables WHERE database IN {names:Array(String)} "
            "AND NOT is_temporary ORDER BY 1, 2",
            {"names": databases},
        )
        checked = sum(row["engine"].endswith("MergeTree") for row in rows)
        bad: list[str] = []
        with closing(LongQuery(self._server, ctx.cancel, self._settings.stall_timeout_s)) as query:
            for row in rows:
                if row["engine"] not in _CHECKABLE:
                    continue
                name = (row["database"], row["name"])
                checked += 1
                try:
                    lines = query.lines(f"CHECK TABLE {table(*name)}", {"check_query_single_value_result": 0})
                except ServerRefusal as refusal:
                    if refusal.number == _CANNOT_CHECK:
                        checked -= 1
                        continue
                    raise
                if not all(line["is_passed"] for line in lines):
                    bad.append(shown(*name))
        if bad:
            return Finding(
                TABLES, "failed", f"damaged: {', '.join(bad[:_MAX_NAMED])}", "all whole", f"{len(bad)} damaged"
            )
        text = f"every part of {checked} tables read back, with merges and TTLs stopped"
        return Finding(TABLES, "passed", text)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _refusal(refusal: ServerRefusal) -> DrdError:
    """Tell a question that is wrong from data that are missing or damaged."""
    if refusal.number in _MISSING:
        return IntegrityError(f"what the check asks about is not there: {refusal.text}")
    if refusal.number in _DAMAGED:
        return IntegrityError(f"the server cannot read its data: {refusal.text}")
    return QuestionError(f"the server does not take the question: {refusal.text}", hint="correct the suite")


def _cell(value: object) -> Cell:
    if value is None or isinstance(value, (bool, int, float, Decimal, str, datetime)):
        return value
    if isinstance(value, date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
