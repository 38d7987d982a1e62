"""Look whether backups could be taken and restored from here: one line an item, nothing is changed for good."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from drd.errors import DrdError, SourceError, StoreForbidden
from drd.model import CheckItem
from drd.ops.ports import Ports, Source
from drd.ops.side_by_side import side_by_side
from drd.repository.restores import Restores
from drd.wording import when

MAX_LOOK_S = 120.0
"""How long a server may take to answer all questions of a check."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All items, the store's first, then each source's."""

    items: tuple[CheckItem, ...]

    @property
    def outcome(self) -> Literal["ok", "warning", "failed"]:
        """Return the worst outcome of all items."""
        outcomes = {item.outcome for item in self.items}
        if "failed" in outcomes:
            return "failed"
        return "warning" if "warning" in outcomes else "ok"


def check(ports: Ports, sources: Sequence[Source]) -> CheckReport:
    """Check the store, the keys, the spool and every source; raises nothing that an item can say."""
    items = [*ports.store.check(), _repository(ports), *_keys(ports), _signing(ports), *_restores(ports), _spool(ports)]
    for source, found in zip(sources, side_by_side(sources, lambda s: _source(ports, s)), strict=True):
        items.extend(CheckItem(f"{source.name}: {item.name}", item.outcome, item.detail, item.hint) for item in found)
    return CheckReport(tuple(items))


def _source(ports: Ports, source: Source) -> Sequence[CheckItem]:
    """Let the engine look at its server, which may stand still."""
    limited = replace(source, deadline_s=min(source.deadline_s, MAX_LOOK_S))
    try:
        return ports.look(limited, source.engine.check)
    except SourceError as error:
        return [CheckItem("server", "failed", error.message, error.hint)]


def _repository(ports: Ports) -> CheckItem:
    wanted = ports.repository.known_id
    try:
        info = ports.repository.peek()
        sources = ports.catalog.sources() if info is None else []
    except StoreForbidden as error:
        detail = f"{error.message}; backups made here do not name the repository"
        return CheckItem("repository", "warning", detail, f"{error.hint}; or set signing.repository to its id")
    except DrdError as error:
        return CheckItem("repository", "failed", error.message, error.hint)
    if sources:
        detail = f"drd.json is gone, though there are backups of {', '.join(sources)}; the next one makes it anew"
        hint = "whoever took it away may have taken more: drd verify; a versioned bucket still holds it"
        return CheckItem("repository", "warning", detail, hint)
    if info is None:
        return CheckItem("repository", "ok", "none yet; the first backup makes it")
    if wanted not in (None, info.id):
        detail = f"id {info.id}; by signing.repository only backups of {wanted} count"
        hint = "check store.bucket and store.prefix (or store.path), or correct signing.repository"
        return CheckItem("repository", "failed", detail, hint)
    return CheckItem("repository", "ok", f"id {info.id}, format {info.format_version}")


def _keys(ports: Ports) -> list[CheckItem]:
    """Say whether what is written now could be read with the identities at hand."""
    codec = ports.codec
    if not codec.encrypted:
        hint = "make a key pair with: drd keygen; then set encryption.recipients"
        return [CheckItem("encryption", "warning", "off: whoever reads the bucket reads the data", hint)]
    sealing = ports.catalog.signing.sealing
    if sealing is not None and sealing.accept_clear_before is not None:
        detail = f"age; backups in the clear from before {when(sealing.accept_clear_before)} count too"
        hint = "take encryption.accept_clear_before out when none of them is needed"
        items = [CheckItem("encryption", "warning", detail, hint)]
    else:
        items = [CheckItem("encryption", "ok", f"age, {len(codec.recipients)} recipient(s)")]
    try:
        has_identity = bool(codec.identities)
    except DrdError as error:
        items.append(CheckItem("identity", "warning", error.message, error.hint))
        return items
    if not has_identity:
        detail = "no identity here: this host can back up, list and verify sizes, not restore"
        items.append(CheckItem("identity", "ok", detail))
    elif codec.matches_recipients(codec.recipients):
        items.append(CheckItem("identity", "ok", "opens what is encrypted to the configured recipients"))
    else:
        hint = "add the recipient of encryption.identity to encryption.recipients, or configure the right identity"
        items.append(CheckItem("identity", "failed", "does not open what is encrypted to the recipients", hint))
    return items


def _signing(ports: Ports) -> CheckItem:
    """Say whether what is written now is signed, and would be believed when it is read."""
    name, signing = "signing", ports.catalog.signing
    hint = "make a pair with: drd keygen --signing; then set signing.private_key and signing.public_keys"
    if not signing.signs and signing.trust is None:
        return CheckItem(name, "ok", "off: whoever may write to the store could plant a backup of their own", hint)
    if not signing.signs:
        return CheckItem(name, "ok", "signatures are checked; no private key here: this host restores, not backs up")
    try:
        signing.require_key()
    except DrdError as error:
        return CheckItem(name, "failed", error.message, error.hint)
    if signing.trust is None:
        text = "backups are signed and nothing is checked here"
        return CheckItem(name, "warning", text, f"set signing.public_keys, to which belongs {signing.public_key}")
    limit = signing.trust.accept_unsigned_before
    if limit is not None:
        detail = f"on, and unsigned backups from before {when(limit)} count too"
        return CheckItem(name, "warning", detail, "take signing.accept_unsigned_before out when none of them is needed")
    return CheckItem(name, "ok", f"on, {len(signing.trust.public_keys)} public key(s)")


def _restores(ports: Ports) -> list[CheckItem]:
    """Name restores in place that a killed drd left half-way, unless one is at it right now."""
    try:
        records, _ = Restores(ports.store).all()
    except StoreForbidden:
        return []  # a role that only backs up; who restores is told
    except DrdError as error:
        return [CheckItem("restores", "failed", error.message, error.hint)]
    return [
        CheckItem(
            "restores",
            "warning",
            f"the restore {record.id} over {record.source} is under way, or was interrupted",
            f"if no drd works on it: drd restore undo {record.id}",
        )
        for record in records
        if record.interrupted
    ]


def _spool(ports: Ports) -> CheckItem:
    root = ports.tuning.spool_root
    try:
        if root is not None:
            root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="drd-check-", dir=root) as folder:
            free = shutil.disk_usage(folder).free
    except OSError as error:
        where = root or tempfile.gettempdir()
        return CheckItem(
            "spool", "failed", f"{where}: {error.strerror}", "set spool.dir to a directory drd may write to"
        )
    where, need = root or tempfile.gettempdir(), ports.tuning.spool_limit_bytes
    detail = f"{where}: {free >> 20} MiB free, up to {need >> 20} MiB a source needed"
    if free < need:
        return CheckItem("spool", "failed", detail, "free space there, or set spool.dir or a smaller spool.limit")
    return CheckItem("spool", "ok", detail)
