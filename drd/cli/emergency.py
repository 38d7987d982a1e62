"""The emergency sheet: what a person needs on paper about a configuration when all else is down. It holds no secret."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from drd import __version__
from drd.cli import documents, render

if TYPE_CHECKING:  # heavy: the command line must start in a quarter of a second
    from drd.cli.session import Session
    from drd.config import Config
    from drd.config_values import SecretRef
    from drd.model import Backup
    from drd.repository.catalog import CatalogEntry
    from drd.wiring import Services

EXIT_CODES = {
    0: "done",
    1: "a bug in drd: keep the traceback",
    2: "the command line or the configuration is wrong; nothing was done",
    3: "some sources succeeded, some did not",
    10: "no such backup, or none is as old as the time asked; the message says what can be reached",
    11: "another drd is at work on this source",
    12: "the store is unreachable, missing or refuses",
    13: "a database is unreachable or refuses, or a client tool is missing",
    14: "the target of the restore holds data; nothing was touched",
    20: "stored bytes are not what they should be: take another backup",
    21: "a drill failed: that backup is not what it should be; use an earlier one",
    22: "a drill could not be carried out; nothing is known of the backup",
    130: "interrupted; what was under way was undone",
}
BY_HAND = "______________________"


@dataclass(frozen=True)
class _Facts:
    """What the sheet is made of."""

    config: Config
    config_path: Path
    services: Services
    now: datetime
    newest: dict[str, CatalogEntry]

    def backups(self) -> list[Backup]:
        """Return the newest backup of each source that has one, in the order of the configuration."""
        return [entry.backup for entry in self.newest.values() if entry.backup]


def sheet(session: Session, config_path: Path) -> str:
    """Return the sheet as Markdown. Reads the catalog."""
    services = session.services
    order = list(session.config.sources)
    newest: dict[str, CatalogEntry] = {}
    for entry in services.ports.catalog.entries():  # ascending: the last good one wins
        if entry.backup or entry.source not in newest:
            newest[entry.source] = entry
    known = sorted(newest, key=lambda name: (order.index(name) if name in order else len(order), name))
    facts = _Facts(session.config, config_path, services, services.ports.now(), {name: newest[name] for name in known})
    sections = (_head, _first, _sources, _store, _secrets, _recipients, _with_drd, _without_drd, _by_hand, _codes)
    return "\n".join(line for section in sections for line in (*section(facts), ""))


def _head(facts: _Facts) -> Iterator[str]:
    yield "# When the data is gone: emergency sheet"
    yield ""
    yield f"Printed {render.when(facts.now)} by drd {__version__} from `{facts.config_path.absolute()}`. Print it again"
    yield "after every change of the configuration, and every month. It holds no secret; it says where they are."
    yield ""
    yield f"Whom to call: {BY_HAND} {BY_HAND}"


def _first(_facts: _Facts) -> Iterator[str]:
    yield "## First"
    yield ""
    yield "1. Stop what writes: the application, and every schedule of drd. Delete nothing; nothing below does either."
    yield "2. Note the time at which all was still right. In UTC: " + BY_HAND
    yield "3. Do not repair in place. Restore beside, or on another machine; look at it; only then switch over."
    yield "4. Keep what is left of the old servers until a backup of the new ones exists."


def _sources(facts: _Facts) -> Iterator[str]:
    yield "## What can be restored"
    yield ""
    yield "| source | what and where | newest backup | state as of | data | rows, keys |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys([*facts.config.sources, *facts.newest]):
        source, entry = facts.config.sources.get(name), facts.newest.get(name)
        # A URL of a valid configuration holds no password.
        where = f"{source.type}, `{source.url.replace('|', '%7C')}`" if source else "not in the configuration any more"
        backup = entry.backup if entry else None
        if backup is None:
            yield f"| {name} | {where} | **{'none' if entry is None else documents.unusable(entry)}** | – | – | – |"
            continue
        cells = (render.point(backup.recovery_point), render.size(backup.plain_bytes), render.number(backup.rows))
        yield f"| {name} | {where} | `{backup.id}` | {' | '.join(cells)} |"
    yield ""
    yield "This was so when the sheet was printed; there will be newer ones: `drd list`."


def _store(facts: _Facts) -> Iterator[str]:
    from drd.ops.runbook import FolderLocation

    location = facts.services.location
    found = facts.services.ports.repository.peek()
    yield "## Where the backups are"
    yield ""
    if isinstance(location, FolderLocation):
        yield f"- folder: `{location.path}`"
    else:
        yield f"- bucket: `{location.bucket}`, prefix: `{location.prefix or '(none)'}`"
        yield f"- service: `{location.endpoint_url or 'Amazon S3'}`, region: `{location.region}`"
    yield f"- repository id: `{found.id if found else 'none yet'}`"
    yield f"- a second copy of all that, if there is one: {BY_HAND}"


def _secrets(facts: _Facts) -> Iterator[str]:
    from drd.config import secret_references

    yield "## The secrets it takes, and where they are"
    yield ""
    yield "| key in the configuration | drd finds it in | a copy lies (safe, vault, person) |"
    yield "|---|---|---|"
    for reference in secret_references(facts.config):
        yield f"| `{reference.where}` | {_place(reference)} | {BY_HAND} |"
    yield ""
    yield "A copy of the configuration itself: " + BY_HAND


def _recipients(facts: _Facts) -> Iterator[str]:
    configured = facts.config.encryption.recipients if facts.config.encryption else ()
    used = {recipient for backup in facts.backups() for recipient in backup.recipients}
    yield "## Who can decrypt"
    yield ""
    if not configured and not used:
        yield "Backups are not encrypted by drd: whoever reads the store reads the data."
        return
    yield "The holder of any one of these age identities can restore. **Without one of them there is no way.**"
    yield ""
    yield "| recipient (public) | new backups | newest backups of | who holds its identity | where |"
    yield "|---|---|---|---|---|"
    for recipient in dict.fromkeys([*configured, *sorted(used)]):
        sources = ", ".join(backup.source for backup in facts.backups() if recipient in backup.recipients)
        new = "yes" if recipient in configured else "no"
        yield f"| `{recipient}` | {new} | {sources or '–'} | {BY_HAND} | {BY_HAND} |"


def _with_drd(facts: _Facts) -> Iterator[str]:
    yield "## With drd"
    yield ""
    yield "Install it anywhere that reaches the store, copy the configuration, set the secrets. Then:"
    yield ""
    yield "```"
    yield f"export DRD_CONFIG={shlex.quote(str(facts.config_path.absolute()))}"
    yield "drd status                                    # could we recover now, and to when?"
    yield "drd check                                     # store, keys, tools, servers: a line each"
    yield "drd list                                      # every backup"
    yield 'drd restore --at "2026-11-22 12:00" --dry-run # the plan: which backup, into what; nothing is done'
    yield 'drd restore --at "2026-11-22 12:00"           # all sources, into the configured servers (empty ones)'
    for name in facts.config.sources:
        yield f"drd restore --at now --source {name} --into URL   # one source, elsewhere"
    yield "drd restore --at now --into /a/folder         # only decode everything into files of stock formats"
    yield "drd verify --deep                             # are the stored bytes right?"
    yield "```"


def _without_drd(facts: _Facts) -> Iterator[str]:
    from drd.ops.runbook import settings

    yield "## Without drd"
    yield ""
    yield "Print the scripts while drd works and keep them with this sheet. Stock tools run them; they hold no secret."
    yield ""
    yield "```"
    for backup in facts.backups():
        yield f"drd runbook {backup.id} > restore-{backup.source}.sh"
    yield "```"
    for backup in facts.backups():
        engine = facts.services.ports.formats(backup.engine).runbook(backup)
        yield ""
        yield f"**{backup.source}**: export these, then `bash restore-{backup.source}.sh`"
        yield ""
        yield "```"
        for name, meaning in settings(backup, facts.services.location, engine):
            yield f"{name:24} {meaning}".rstrip()
        yield "```"


def _by_hand(facts: _Facts) -> Iterator[str]:
    from drd.ops.runbook import FolderLocation

    location = facts.services.location
    yield "## With neither drd nor a script"
    yield ""
    encrypted = " in one age file" if facts.config.encryption else ""
    yield "A backup is a folder; its `manifest.json` names every part in order, with sizes and SHA-256. A part is one"
    yield f"zstd frame{encrypted}. Joined, the parts of an artifact are a file of a stock format: `db-N/` is a"
    yield "pg_dump directory archive (unpack `small.tar` into it), `dump.rdb` a Redis snapshot, and"
    yield "`clickhouse/backup.tar` holds what ClickHouse's own BACKUP wrote."
    yield ""
    yield "```"
    age = "age -d -i IDENTITY | " if facts.config.encryption else ""
    if isinstance(location, FolderLocation):
        yield f"cd {shlex.quote(location.path)}/backups/SOURCE && ls"
        yield f"cat BACKUP/ARTIFACT/000000.zst* | {age}zstd -dc >> FILE      # part by part, in order"
    else:
        endpoint = f" --endpoint-url {shlex.quote(location.endpoint_url)}" if location.endpoint_url else ""
        prefix = f"{location.prefix}/" if location.prefix else ""
        aws, url = f"aws{endpoint} --region {location.region} s3", shlex.quote(f"s3://{location.bucket}/{prefix}")
        yield f"{aws} ls {url}backups/SOURCE/"
        yield f"{aws} cp {url}KEY - | {age}zstd -dc >> FILE      # part by part, in order"
    yield "```"


def _codes(_facts: _Facts) -> Iterator[str]:
    yield "## Exit codes of drd"
    yield ""
    yield "| code | meaning |"
    yield "|---|---|"
    for code, meaning in EXIT_CODES.items():
        yield f"| {code} | {meaning} |"


def _place(reference: SecretRef) -> str:
    shown = reference.shown()
    if isinstance(shown, str):
        return "the configuration itself"
    return " ".join(_described(shown.items()))


def _described(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    for kind, value in items:
        yield f"environment variable `{value}`" if kind == "env" else f"file `{value}`"
