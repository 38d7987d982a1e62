"""The folder of a scratch server that runs as a process, and the ledger in it by which anybody can remove it.

``drd-scratch-<id>/`` holds ``ledger.json`` (whose it is, until when; written before anything runs), what its guardian
writes (``running.json``: processes, ``ended.json``: how the server ended), ``kept`` once a person wanted it to stay,
``server.log``, ``password``, and ``server/``, which belongs to the user that the server runs as.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from drd.errors import ScratchError
from drd.model import Json
from drd.scratch.owners import Owner, ProcessId

PREFIX = "drd-scratch-"
_UNWRITTEN_GRACE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of one server."""

    engine: str
    owner: Owner
    expires_at: datetime
    stop_signal: int


def make_folder(root: Path, entry: Entry, *, shared: bool) -> Path:
    """Make the folder of a new server with its ledger; ``shared`` lets another user pass through to ``server/``.

    Raises :class:`~drd.errors.ScratchError` when ``root`` cannot be written.
    """
    path = root / f"{PREFIX}{secrets.token_hex(6)}"
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
        document = {
            "engine": entry.engine,
            "owner": entry.owner.to_json(),
            "expires_at": entry.expires_at.isoformat(),
            "stop_signal": entry.stop_signal,
        }
        write_private(path / "ledger.json", json.dumps(document))
        path.chmod(0o711 if shared else 0o700)
    except OSError as error:
        raise ScratchError(
            f"cannot make a folder for a scratch server in {root}: {error.strerror}",
            hint="name a folder on a disk with room that drd may write",
        ) from error
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read; a reader sees all of it or nothing."""
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def entry_of(folder: Path) -> Entry | None:
    """Read a ledger; None when there is none, or none that this drd understands."""
    value = read(folder / "ledger.json")
    owner = Owner.from_json(value.get("owner"))
    engine, until, number = (value.get(name) for name in ("engine", "expires_at", "stop_signal"))
    if owner is None or not isinstance(engine, str) or not isinstance(until, str) or not isinstance(number, int):
        return None
    try:
        expires_at = datetime.fromisoformat(until)
    except ValueError:
        return None
    return Entry(engine, owner, expires_at, number) if expires_at.tzinfo else None


def processes_of(folder: Path) -> dict[str, ProcessId]:
    """Return the guardian and the server as the guardian wrote them down; empty before it did."""
    found = {}
    for name, value in read(folder / "running.json").items():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(number, int) for number in value):
            found[name] = ProcessId(*[number for number in value if isinstance(number, int)])
    return found


def reason_to_remove(folder: Path, now: datetime, *, kept_too: bool = False) -> str:
    """Say why a folder may go: its drd is gone, or it has expired; empty while somebody may want it, and in doubt.

    With ``kept_too`` nobody wants what was kept.
    """
    entry = entry_of(folder)
    if entry is None:
        made = datetime.fromtimestamp(folder.stat().st_mtime, tz=now.tzinfo)
        return "it has no ledger" if now - made > _UNWRITTEN_GRACE else ""
    if now >= entry.expires_at:
        return "it had expired"
    if (folder / "kept").exists() and not kept_too:
        return ""
    return "its drd is gone" if entry.owner.fate() == "gone" else ""


def remove_tree(folder: Path) -> None:
    """Remove a folder; what a dying server still adds is removed in another round. Raises ScratchError."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise ScratchError(
            f"cannot remove the scratch folder {folder}: {error.strerror} ({error.filename})",
            hint=f"remove it: rm -rf {folder}",
        ) from error


def read(path: Path) -> dict[str, Json]:
    """Read a small document of a guardian's or drd's own; empty when it is not there, or not whole."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def ended(folder: Path) -> dict[str, Json]:
    """Return how the guardian says the server ended (``code``, ``why``, ``oom``); empty while it runs."""
    return read(folder / "ended.json")
