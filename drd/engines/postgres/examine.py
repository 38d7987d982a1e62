"""What a restored PostgreSQL can say of itself: its schema against the backup's, every index, every heap, answers.

The schema is dumped again by the same program that wrote the backup's table of contents and compared entry by entry:
tables, columns, indexes, constraints, functions, owners, grants, each with its definition's text.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from drd.cancel import CancelToken
from drd.engines.postgres import catalog
from drd.engines.postgres.connection import Endpoint, endpoint_of, first_line
from drd.engines.postgres.restore import read_databases
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.toc import Toc, TocEntry, parse_toc
from drd.engines.postgres.tools import Tool, complaint, find_tool, guarded, major_of, pg_restore_for
from drd.errors import DrdError, IntegrityError, QuestionError, ScratchError, TargetError, ToolError
from drd.model import Answer, Backup, Cell, Finding, Question
from drd.protocols import ArtifactReader, WorkContext

SCHEMA, INDEXES, HEAPS = "schema", "indexes", "pg_amcheck"
_MAX_NAMED = 5
_AMCHECK_SINCE = 14
# Not of the schema: contents, what a restore sets by itself, and what pg_dump says of the archive.
_NOT_SCHEMA = re.compile(
    r"ENCODING|STDSTRINGS|SEARCHPATH|DATABASE|DATABASE PROPERTIES|.*\bDATA|SEQUENCE SET|BLOBS?( METADATA| COMMENTS)?"
)
_CAST = re.compile(
    r"""::(?:"[^"]+"|[a-z_]+(?: varying| precision| with(?:out)? time zone)?)(?:\(\d+(?:,\d+)?\))?(?:\[\])*"""
)
_FORM = re.compile(r"[\s()]+")
_MISSING = frozenset({"42P01", "42703", "3F000", "3D000"})  # relation, column, schema, database
_DAMAGED = re.compile(r"XX00[12]|58P01|58030")  # data or index corrupted, file missing, input/output error


class PostgresExaminer:
    """Implements :class:`drd.protocols.Examiner` for a scratch server; connects when asked."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._endpoint = endpoint_of(settings, "target")
        self._databases: list[str] = []

    def prepare(self, backup: Backup, cancel: CancelToken) -> str:
        """Demand a server of the backup's major version, and the client tools."""
        try:
            with contextlib.closing(self._endpoint.connect()) as session:
                major, version = catalog.require_supported(session, self._endpoint), catalog.server_version(session)
            pg_restore_for(backup, major, self._settings.tools_dir, cancel)
        except (TargetError, ToolError) as error:
            raise ScratchError(error.message, hint=error.hint) from error
        wanted = re.match(r"\d+", backup.engine_version)
        if wanted is None or int(wanted[0]) != major:
            raise ScratchError(
                f"the scratch server is PostgreSQL {version}, the backup is of {backup.engine_version}:"
                " a drill there would not prove that it can be restored",
                hint="give the drill a server of the same major version (scratch image, or installed packages)",
            )
        return version

    def examine(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Iterator[Finding]:
        """Compare the schema, look at every index, and let pg_amcheck read every table and index."""
        del backup
        listed = read_databases(artifacts)
        self._databases = [str(item["name"]) for item in listed]
        yield self._schema(listed, artifacts, ctx)
        yield self._indexes()
        yield self._amcheck(ctx)

    def ask(self, question: Question, ctx: WorkContext) -> Answer:
        """Run one SQL statement, read only, with the search path of a usual session."""
        if question.kind != "sql":
            raise QuestionError(f"a PostgreSQL source is asked in sql, not {question.kind}")
        with (
            contextlib.closing(self._endpoint.connect(self._database(question))) as session,
            ctx.cancel.on_cancel(session.cancel),
        ):
            try:
                session.execute('SET search_path TO "$user", public')
                session.execute("BEGIN READ ONLY")
                # Row by row, as the answer may be a whole table; and by the protocol that takes one statement alone.
                answer: Any = session.cursor().stream(question.words[0].encode())
                with contextlib.closing(answer):
                    rows = list(itertools.islice(answer, question.limit_rows + 1))
            except psycopg.Error as error:
                ctx.cancel.raise_if_cancelled()
                if isinstance(error, psycopg.ProgrammingError) and not error.sqlstate:
                    raise QuestionError("the statement gives no rows", hint="ask with SELECT") from error
                raise _refusal(error) from error
        shown = tuple(tuple(_cell(value) for value in row) for row in rows[: question.limit_rows])
        return Answer(shown, len(rows) > question.limit_rows)

    def _database(self, question: Question) -> str:
        if question.database is not None:
            if question.database not in self._databases:
                raise IntegrityError(f"the backup holds no database {question.database}")
            return question.database
        if len(self._databases) != 1:
            raise QuestionError(
                f"the backup holds the databases {', '.join(self._databases)}", hint="say which with database: NAME"
            )
        return self._databases[0]

    def _schema(self, listed: list[dict[str, object]], artifacts: ArtifactReader, ctx: WorkContext) -> Finding:
        """Dump the schema of every database and compare it with the backup's."""
        differing: list[str] = []
        count = 0
        exact = True
        for number, item in enumerate(listed):
            with artifacts.open(f"{item['artifact']}/toc.dat") as stream:
                expected = parse_toc(stream.read())
            written_by = major_of(expected.dump_version)
            found, tool = self._dump_schema(str(item["name"]), str(item["encoding"]), written_by, number, ctx)
            same_program = tool.major == written_by
            exact = exact and same_program
            count += sum(_is_schema(entry) for entry in expected.entries)
            differing += _differences(expected, found, texts=same_program)
        how = (
            "by name, kind, owner and definition"
            if exact
            else "by name, kind and owner (pg_dump is of another version)"
        )
        if not differing:
            return Finding(SCHEMA, "passed", f"all {count:,} objects as in the backup, {how}")
        more = f"; and {len(differing) - _MAX_NAMED} more" if len(differing) > _MAX_NAMED else ""
        return Finding(
            SCHEMA,
            "failed",
            f"{len(differing)} of {count:,} objects differ: {'; '.join(differing[:_MAX_NAMED])}{more}",
            f"{count:,} objects as in the backup",
            f"{len(differing)} differ",
        )

    def _dump_schema(
        self, database: str, encoding: str, written_by: int, number: int, ctx: WorkContext
    ) -> tuple[Toc, Tool]:
        """Dump the schema by a pg_dump of the version that wrote the backup's, if it is here, else of the server's."""
        with contextlib.closing(self._endpoint.connect(database)) as session:
            major = catalog.require_supported(session, self._endpoint)
        try:
            tool = find_tool("pg_dump", max(major, written_by), self._settings.tools_dir, ctx.cancel)
        except ToolError:  # all that are here are older: then names are compared, and the finding says so
            tool = find_tool("pg_dump", major, self._settings.tools_dir, ctx.cancel)
        folder = ctx.spool_dir / f"schema-{number}"
        argv = [
            str(tool.path),
            "--schema-only",
            "--format=directory",
            "--no-sync",
            "--no-password",
            f"--encoding={encoding}",
            f"--file={folder}",
            f"--dbname={self._endpoint.conninfo(database)}",
        ]
        _run(argv, self._endpoint, ctx)
        return parse_toc((folder / "toc.dat").read_bytes()), tool

    def _indexes(self) -> Finding:
        """List indexes that the server would not use."""
        bad: list[str] = []
        count = 0
        for database in self._databases:
            with contextlib.closing(self._endpoint.connect(database)) as session:
                rows = session.execute(
                    """SELECT i.indexrelid::pg_catalog.regclass::text, i.indisvalid AND i.indisready AND i.indislive
                         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_(toast|temp)'
                          AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""
                ).fetchall()
            count += len(rows)
            bad += [str(name) for name, valid in rows if not valid]
        if bad:
            return Finding(
                INDEXES, "failed", f"not valid: {', '.join(bad[:_MAX_NAMED])}", "all valid", f"{len(bad)} not"
            )
        return Finding(INDEXES, "passed", f"all {count:,} indexes are valid")

    def _amcheck(self, ctx: WorkContext) -> Finding:
        """Let pg_amcheck read every heap and every B-tree, and look for every row in its indexes."""
        with contextlib.closing(self._endpoint.connect()) as session:
            major = catalog.require_supported(session, self._endpoint)
            there = session.execute(
                "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'"
            ).fetchone()
        if major < _AMCHECK_SINCE or there is None:
            return Finding(HEAPS, "skipped", "the scratch server has no amcheck that pg_amcheck could use")
        try:
            tool = find_tool("pg_amcheck", major, self._settings.tools_dir, ctx.cancel)
        except ToolError as error:
            return Finding(HEAPS, "skipped", f"pg_amcheck is not installed here: {error.message}")
        parameters = self._endpoint.parameters
        for database in self._databases:
            argv = [
                str(tool.path),
                "--install-missing",
                "--heapallindexed",
                "--no-password",
                f"--jobs={max(1, ctx.jobs)}",
                f"--host={parameters.get('host', '')}",
                f"--port={parameters.get('port', '5432')}",
                f"--username={parameters.get('user', '')}",
                "--database=" + '"' + database.replace('"', '""') + '"',  # a pattern: quoted, it is only itself
            ]
            try:
                _run(argv, self._endpoint, ctx)
            except IntegrityError as error:
                return Finding(HEAPS, "failed", f"{database}: {error.message}", "no complaint", "complaints")
        return Finding(HEAPS, "passed", "every row of every table read, and found in its indexes (--heapallindexed)")


def _run(argv: list[str], endpoint: Endpoint, ctx: WorkContext) -> None:
    """Run a client tool to its end; raises IntegrityError with its complaint when it fails on a server that is well."""
    with guarded(argv, cancel=ctx.cancel, env=endpoint.environment()) as child:
        code = child.process.wait()
        ctx.cancel.raise_if_cancelled()
        if code:
            endpoint.connect().close()  # or that it is gone is what is wrong
            raise IntegrityError(f"{Path(argv[0]).name} ended with {code}: {complaint(child.stderr_tail())}")


def _is_schema(entry: TocEntry) -> bool:
    return _NOT_SCHEMA.fullmatch(entry.desc) is None


def _canonical(definition: str) -> str:
    """Return a definition without casts, parentheses and spaces.

    Of a CHECK like ``status IN ('new', 'done')`` the server shows casts that it moves each time it reads them again.
    """
    return _FORM.sub("", _CAST.sub("", definition))


def _differences(expected: Toc, found: Toc, *, texts: bool) -> list[str]:
    """Name the objects that are in one table of contents and not, or otherwise, in the other."""

    def entries(toc: Toc) -> Counter[tuple[str, str, str, str, str]]:
        return Counter(
            (e.desc, e.schema, e.tag, e.owner, _canonical(e.definition) if texts else "")
            for e in toc.entries
            if _is_schema(e)
        )

    want, have = entries(expected), entries(found)
    missing = {(e[0], e[1], e[2]) for e in want - have}
    added = {(e[0], e[1], e[2]) for e in have - want}
    out: list[str] = []
    for entry in sorted(missing | added):
        what = "differs" if entry in missing and entry in added else "is missing" if entry in missing else "is new"
        out.append(f"{entry[0]} {'.'.join(part for part in entry[1:] if part)} {what}")
    return out


def _refusal(error: psycopg.Error) -> DrdError:
    """Tell a question that is wrong from data that are missing or damaged, and both from a server that is gone."""
    state, text = error.sqlstate or "", first_line(str(error))
    if state in _MISSING:
        return IntegrityError(f"what the check asks about is not there: {text}")
    if _DAMAGED.fullmatch(state):
        return IntegrityError(f"the server cannot read its data: {text}")
    if not state or state.startswith(("08", "57P")):
        return TargetError(f"lost the connection to the scratch server: {text}")
    if state.startswith("P0"):
        text = f"a function of the database raised an error of its own ({state})"  # which may quote any row
    return QuestionError(f"the server does not take the question: {text}", hint="correct the suite")


def _cell(value: object) -> Cell:
    if value is None or isinstance(value, (bool, int, float, Decimal, str, datetime)):
        return value
    if isinstance(value, date):
        return value.isoformat()
    return bytes(value).hex() if isinstance(value, (bytes, memoryview)) else str(value)
