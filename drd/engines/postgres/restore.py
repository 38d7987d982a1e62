"""Restore databases beside whatever is there: pg_restore makes the schema, drd streams the data; see DESIGN §9."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from drd.engines.children import Child
from drd.engines.postgres import catalog, place, selection, statistics
from drd.engines.postgres.archive import Archive
from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.engines.postgres.dump import DATABASES_ARTIFACT, GLOBALS_ARTIFACT, UNLOGGED_EMPTY
from drd.engines.postgres.load import Loader
from drd.engines.postgres.roles import missing_roles, restore_roles
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.toc import Toc
from drd.engines.postgres.tools import Tool, complaint, guarded, pg_restore_for
from drd.errors import IntegrityError, TargetError, ToolError
from drd.model import Backup, Fingerprint, Notice, Progress, RestoreResult
from drd.protocols import ArtifactReader, WorkContext
from drd.selection import Selection

# Errors of pg_restore that leave a restore whole; everything else makes it fail.
_HARMLESS = (
    re.compile(r'ERROR:  schema "public" already exists'),
    re.compile(r'ERROR:  unrecognized configuration parameter "transaction_timeout"'),  # pg_restore 17 on servers <= 16
    re.compile(r"ERROR:  must be owner of extension "),  # COMMENT ON EXTENSION by one who is not superuser
)
_LOOK_EVERY_S = 0.1
_IGNORED = re.compile(r"errors ignored on restore: (\d+)")


@dataclass(frozen=True)
class _Job:
    """One database of the backup and where it goes."""

    prefix: str
    properties: dict[str, Any]
    target: str
    selected: Selection


def plan(settings: PostgresSettings, endpoint: Endpoint, artifacts: ArtifactReader) -> list[_Job]:
    """Pair each database of the backup with its target's name: its own, or the URL's for a single one.

    Raises TargetError where the URL names a database and several others are to be restored.
    """
    listed = _chosen(settings, artifacts)
    _require_one_or_known(settings, endpoint.database, [str(item["name"]) for item in listed])
    into = endpoint.database if len(listed) == 1 and not settings.databases else None
    chosen = settings.selection
    jobs = [_Job(f"{item['artifact']}/", item, into or str(item["name"]), chosen) for item in listed]
    beside = settings.staging
    if beside is None:
        return jobs
    return [
        _Job(job.prefix, job.properties | {"comment": beside.comments[job.target]}, beside.names[job.target], chosen)
        for job in jobs
    ]


def _require_one_or_known(settings: PostgresSettings, named: str | None, names: list[str]) -> None:
    if named and not settings.databases and len(names) > 1 and named not in names:
        raise TargetError(
            f"the target names one database ({named}), but {len(names)} would be restored, such as {names[0]}",
            hint="add --database NAME for one of them, or leave the name out of the URL: all keep their own then",
        )


def narrowed(settings: PostgresSettings, expected: Fingerprint, artifacts: ArtifactReader) -> Fingerprint:
    """Return what of a backup's fingerprint the restored part must be equal to."""
    items: dict[str, dict[str, Any]] = {}
    for item in _chosen(settings, artifacts):
        name = str(item["name"])
        part = selection.part_of(Archive(artifacts, f"{item['artifact']}/").toc, settings.selection, name)
        items |= selection.expected_of(part.toc, name, expected)
    return Fingerprint(expected.engine, items, expected.compared, expected.version)


def _chosen(settings: PostgresSettings, artifacts: ArtifactReader) -> list[dict[str, Any]]:
    """Return the databases to restore something of; raises ConfigError when nothing matches what was asked for."""
    asked = settings.selection
    listed = selection.databases(asked, read_databases(artifacts))
    if not (asked.tables or asked.schemas):
        return listed
    tocs = {str(item["name"]): Archive(artifacts, f"{item['artifact']}/").toc for item in listed}
    found = selection.holding(asked, tocs)
    return [item for item in listed if item["name"] in found]


def read_databases(artifacts: ArtifactReader) -> list[dict[str, Any]]:
    """Read what the databases of a backup are called and how they were set up; raises IntegrityError if damaged."""
    with artifacts.open(DATABASES_ARTIFACT) as stream:
        data = stream.read()
    try:
        found = json.loads(data)
        listed = found["databases"]
        usable = found["version"] == 1 and all(
            isinstance(item["name"], str) and re.fullmatch(r"db-\d+", item["artifact"]) for item in listed
        )
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{DATABASES_ARTIFACT} is damaged: {error}") from error
    if not usable or not listed:
        raise IntegrityError(f"{DATABASES_ARTIFACT} is not of a form this drd knows", hint="use a newer drd")
    return list(listed)


def restore(
    settings: PostgresSettings, endpoint: Endpoint, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext
) -> RestoreResult:
    """Restore the backup; see :meth:`drd.protocols.Engine.restore`."""
    jobs = plan(settings, endpoint, artifacts)
    notices: list[Notice] = []
    with contextlib.closing(place.maintenance(endpoint, {job.target for job in jobs})) as session:
        here = endpoint.pinned(session)
        major = catalog.require_supported(session, here)
        tool = pg_restore_for(backup, major, settings.tools_dir, ctx.cancel)
        for job in jobs:
            place.refuse_if_taken(here, session, job.target)
        with mapped(here, "look at the target"):
            _require_extensions(session, jobs)
            may = place.rights(session)
        notices += place.sweep(here, session)
        if UNLOGGED_EMPTY in backup.warnings:
            empty = [str(job.properties["name"]) for job in jobs if job.properties["unlogged_tables"]]
            text = f"{', '.join(empty)}: unlogged tables come back empty, as the backup was taken from a standby"
            notices += [Notice(UNLOGGED_EMPTY, text)] if empty else []
        if GLOBALS_ARTIFACT in artifacts.names():
            with artifacts.open(GLOBALS_ARTIFACT) as stream:
                notices += restore_roles(here, session, stream.read().decode("utf-8", "surrogateescape"), may)
        with contextlib.ExitStack() as built:
            finished = [
                built.enter_context(_built(here, session, tool, job, backup, artifacts, ctx, may, notices))
                for job in jobs
            ]
            for job, name in zip(jobs, finished, strict=True):
                if name != job.target:
                    place.publish(here, session, name, job.target, backup.id)
                    notices += place.apply_comment(here, session, job.target, job.properties)
                elif job.properties["comment"]:
                    notices += place.apply_comment(here, session, job.target, job.properties)
    return RestoreResult(tuple(notices))


@contextlib.contextmanager
def _built(
    here: Endpoint,
    session: Session,
    tool: Tool,
    job: _Job,
    backup: Backup,
    artifacts: ArtifactReader,
    ctx: WorkContext,
    may: place.Rights,
    notices: list[Notice],
) -> Iterator[str]:
    """Restore one database and yield the name it has so far; on a failure, also a later one, it is removed."""
    with mapped(here, f"make room for {job.target}"):
        name = place.choose(session, job.target, backup.id, may)
        if name != job.target:
            place.create(session, name, job.properties)
    with place.undone_on_failure(here, session, name, temporary=name != job.target):
        if not job.properties["public_schema"]:
            _execute(here, name, sql.SQL("DROP SCHEMA IF EXISTS public"), "remove the schema public")
        _load(here, session, tool, job, name, artifacts, ctx, may, notices)
        notices += statistics.analyze(here, name, job.target, ctx)
        notices += place.apply_properties(here, session, name, job.properties, may)
        yield name


def _load(
    here: Endpoint,
    session: Session,
    tool: Tool,
    job: _Job,
    name: str,
    artifacts: ArtifactReader,
    ctx: WorkContext,
    may: place.Rights,
    notices: list[Notice],
) -> None:
    archive = Archive(artifacts, job.prefix)
    whole = archive.toc
    part = selection.part_of(whole, job.selected, str(job.properties["name"]))
    archive.narrow(part.toc)
    notices += [*part.notices, *_disabled(archive.toc, str(job.properties["name"]))]
    folder = ctx.spool_dir / f"restore-{job.prefix.rstrip('/')}"
    folder.mkdir(mode=0o700)
    (folder / "toc.dat").write_bytes(archive.toc_bytes)
    # Of the section "data" pg_restore does all but the contents: sequence values, the (still empty) large objects.
    rest = [entry for entry in archive.toc.entries if not entry.filename]
    listed = folder / "rest.list"
    listed.write_text("".join(f"{entry.dump_id};\n" for entry in rest))
    total = sum(artifacts.size(n) for n in artifacts.names() if n.startswith(job.prefix))
    options = _ownership(here, session, str(job.properties["name"]), archive.toc, may, notices)

    def pg_restore(*more: str) -> None:
        argv = [
            str(tool.path),
            "--format=directory",
            "--no-password",
            "--no-tablespaces",
            *options,
            *more,
            f"--dbname={here.conninfo(name)}",
            str(folder),
        ]
        _run(argv, here, job.target, ctx)

    loader = Loader(here, name, archive, ctx)
    pg_restore("--section=pre-data", "--section=data", f"--use-list={listed}")
    loader.run(lambda: ctx.progress(Progress(ctx.source, "restore", loader.loaded_bytes, total, job.target)))
    ctx.progress(Progress(ctx.source, "indexes and constraints", total, total, job.target))
    only = [] if part.toc is whole else [f"--use-list={listed}"]
    pg_restore("--section=post-data", f"--jobs={max(1, ctx.jobs)}", *only)


def _run(argv: list[str], here: Endpoint, target: str, ctx: WorkContext) -> None:
    """Run pg_restore to its end; raises at the first complaint that is not known to be harmless."""
    with guarded(argv, cancel=ctx.cancel, env=here.environment()) as child:
        while True:
            code = child.wait(_LOOK_EVERY_S)
            ctx.cancel.raise_if_cancelled()
            _refuse_errors(child, target, final=code is not None)
            if code is not None:
                break
        if code not in (0, 1) or (code == 1 and not _all_harmless(child.stderr_tail())):
            raise ToolError(
                f"pg_restore of {target} ended with {code}: {complaint(child.stderr_tail())}",
                hint="see the server's log",
            )


def _ownership(
    here: Endpoint, session: Session, name: str, toc: Toc, may: place.Rights, notices: list[Notice]
) -> list[str]:
    """Leave owners or grants out where the target cannot have them, and say so."""
    options: list[str] = []
    if not may.superuser:
        options.append("--no-owner")
        notices.append(Notice("owners-not-restored", f"{name}: all objects belong to the user of the restore"))
    owners = {entry.owner for entry in toc.entries if entry.owner}
    with mapped(here, "list the roles"):
        missing = missing_roles(session, owners)
    if missing and may.superuser:
        raise TargetError(
            f"the roles {', '.join(missing[:5])} own objects of the backup and do not exist on the target",
            hint="create them (createuser --no-login NAME), then restore again; the backup holds no roles",
        )
    if missing:
        options.append("--no-privileges")
        notices.append(Notice("grants-not-restored", f"{name}: grants are left out, roles are missing: {missing[0]}"))
    return options


def _disabled(toc: Toc, name: str) -> list[Notice]:
    """Say that what received from elsewhere does not by itself: pg_dump writes it so (``connect = false``)."""
    found = [entry.tag for entry in toc.entries if entry.desc == "SUBSCRIPTION"]
    if not found:
        return []
    text = f"{name}: restored without receiving: subscription {', '.join(found)}; ALTER SUBSCRIPTION … ENABLE starts it"
    return [Notice("subscriptions-disabled", text)]


def _refuse_errors(child: Child, target: str, *, final: bool) -> None:
    """Raise for the first error on pg_restore's standard error that is not known to be harmless."""
    text = child.stderr_tail()
    if not final:
        text = text[: text.rfind("\n") + 1]
    for line in text.splitlines():
        if "error: " in line and not any(pattern.search(line) for pattern in _HARMLESS):
            entry = re.findall(r"from TOC entry \d+; \d+ \d+ (.*)", text[: text.find(line)])
            at = f" at {entry[-1]}" if entry else ""
            why = complaint(line)
            more = "restore as a superuser" if why.startswith("permission denied") else "see the server's log"
            raise TargetError(f"pg_restore into {target} failed{at}: {why}", hint=f"nothing of it was kept; {more}")


def _all_harmless(text: str) -> bool:
    """Whether what pg_restore says it ignored are errors known to be harmless.

    Each of its workers reports what it meets when it connects, and the sum at the end leaves those out.
    """
    found = _IGNORED.search(text)
    harmless = sum(any(p.search(line) for p in _HARMLESS) for line in text.splitlines() if "error: " in line)
    return found is not None and int(found[1]) <= harmless


def _require_extensions(session: Session, jobs: list[_Job]) -> None:
    available = {
        str(row[0]) for row in session.execute("SELECT name FROM pg_catalog.pg_available_extensions").fetchall()
    }
    for job in jobs:
        missing = [item["name"] for item in job.properties["extensions"] if item["name"] not in available]
        if missing:
            raise TargetError(
                f"the target server lacks extensions that {job.properties['name']} uses: {', '.join(missing)}",
                hint="install their packages on the target's host, then restore again; nothing was changed",
            )


def _execute(here: Endpoint, name: str, statement: sql.SQL, doing: str) -> None:
    with contextlib.closing(here.connect(name)) as session, mapped(here, f"{doing} of {name}"):
        session.execute(statement)
