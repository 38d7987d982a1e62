"""Print a bash script that restores a backup with stock tools only, for the day drd itself is not at hand.

The shell is the same for every backup (``runbook.sh`` here, and the engine's half); what differs are variables, quoted,
and the list of parts at the end. So nothing that a manifest says is ever read as shell.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drd.model import FINGERPRINT_ARTIFACT, Artifact, Backup, EngineRunbook, Part
from drd.protocols import Format
from drd.repository import layout
from drd.repository.references import needed_by
from drd.wording import when

_SHELL = Path(__file__).with_name("runbook.sh")
_WHOLE_FOLDER = 4
"""From so many parts in one folder on, the folder is fetched at once: each start of ``aws`` takes half a second."""
_MIB = 1 << 20
_WHAT_IT_DOES = (
    "What it does: (1) checks all that it needs, and changes nothing when something is not right; (2) fetches every",
    "part into DRD_WORK, compares its SHA-256, decrypts and decompresses it; (3) restores with the database's own",
    "tools into a place that must be empty. It stops at the first failure and says why; run again, it goes on there.",
)


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where the repository lies, as the ``aws`` command needs it; ``path_style`` puts the bucket into the path."""

    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str
    path_style: bool = False
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """The directory in which the repository lies."""

    path: str


def runbook(
    backup: Backup,
    location: S3Location | FolderLocation,
    backup_format: Format,
    *,
    signature_checked: bool = False,
    problem: str = "",
) -> str:
    """Return the script: check everything, fetch, verify, decrypt and decompress, restore with the engine's tools.

    ``signature_checked`` says that the caller knows the manifest's signature to be good; ``problem`` is a line that
    warns of what is wrong with the backup's chain.
    """
    engine = backup_format.runbook(backup)
    fetched = _fetched(backup)
    values = _values(backup, location, fetched, engine) | engine.values
    sections = (
        "\n".join(_title(backup, location, engine, problem, signature_checked=signature_checked)),
        f"set -Eeuo pipefail\numask 077\nexport LC_ALL=C\n\n{_rule('this backup')}",
        "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()),
        f"{_rule('how')}\n\n{_SHELL.read_text(encoding='utf-8')}",
        f"{_rule(backup.engine)}\n\n{engine.shell}",
        _rule("what to fetch: folders; files with their size, and below each its parts in order, SHA-256 and key"),
        "parts() {\n    cat <<'PARTS'\n" + "".join(f"{line}\n" for line in _parts(backup.id, fetched)) + "PARTS\n}\n",
        "main </dev/null  # nothing runs before this line, so half a copy of this script does nothing\n",
    )
    return "\n".join(sections)


def needed_bytes(backup: Backup) -> int:
    """Return how much space the script needs.

    All parts are fetched at first, and of an ancestor's artifact those that lie between them; those of a file are
    removed when it is decoded. So at most the larger of both forms lies there, and one file twice.
    """
    fetched = _fetched(backup)
    plain = sum(artifact.plain_bytes for artifact in fetched)
    stored = sum(artifact.stored_bytes for artifact in fetched) + _passed_by(backup.id, fetched)
    return max(plain, stored) + max((artifact.stored_bytes for artifact in fetched), default=0)


def _passed_by(backup_id: str, artifacts: list[Artifact]) -> int:
    """Estimate the bytes that lie between the parts of ancestors that are fetched by the folder, and come along."""
    numbers: dict[str, set[int]] = {}
    for part in (part for artifact in artifacts for part in artifact.parts):
        if layout.owner_of(part.key) != backup_id:
            folder, _, name = part.key.rpartition("/")
            numbers.setdefault(folder, set()).add(int(name.partition(".")[0]))
    largest = max((part.stored_bytes for artifact in artifacts for part in artifact.parts), default=0)
    return largest * sum(max(found) + 2 - len(found) for found in numbers.values() if len(found) >= _WHOLE_FOLDER)


def settings(backup: Backup, location: S3Location | FolderLocation, engine: EngineRunbook) -> Iterator[tuple[str, str]]:
    """Yield each variable that a person sets before running the script, with what it is for."""
    yield "DRD_WORK", f"an empty folder with {_mib(needed_bytes(backup))} MiB free, on a disk you trust"
    if backup.encryption == "age" and _fetched(backup):
        yield "DRD_IDENTITY", "a file with the age identity (AGE-SECRET-KEY-1...) of any of:"
        yield from (("", recipient) for recipient in backup.recipients)
    if isinstance(location, S3Location):
        yield "AWS_ACCESS_KEY_ID", "a key of the store that may list and read (or AWS_PROFILE)"
        yield "AWS_SECRET_ACCESS_KEY", "and its secret"
    yield from engine.settings
    if isinstance(location, S3Location):
        yield "DRD_STORE_ENDPOINT, _BUCKET, _PREFIX", "(only if the store has moved)"
    else:
        yield "DRD_STORE_PATH", f"(only if the store is not at {location.path} any more)"
    yield "DRD_DECODED", "(only if drd restore --into DIR has decoded it already: DIR/SOURCE; nothing is fetched then)"


def _title(
    backup: Backup,
    location: S3Location | FolderLocation,
    engine: EngineRunbook,
    problem: str,
    *,
    signature_checked: bool,
) -> Iterator[str]:
    yield "#!/usr/bin/env bash"
    yield f"# Restore {backup.id} without drd: {backup.engine} {backup.engine_version}, source {backup.source},"
    yield f"# state as of {when(backup.recovery_point)}, {backup.plain_bytes // _MIB} MiB once decoded."
    yield from (f"# {line}" for line in _signature(backup, checked=signature_checked))
    if ancestors := sorted(needed_by(backup)):
        yield "# It is incremental: parts of it lie in the folders of earlier backups, which the store must still hold:"
        yield from (f"#   {ancestor}" for ancestor in ancestors)
    if problem:
        yield f"# WARNING: {problem}: this works only if every part is there still."
    yield "#"
    yield from (f"# {line}" for line in _WHAT_IT_DOES)
    yield "#"
    yield "# Export these (those with a meaning in parentheses may be left out), then run it:  bash restore.sh"
    yield from (f"#   {name:24} {meaning}" for name, meaning in settings(backup, location, engine))
    yield f"# Needs: bash, coreutils, awk, sed, grep, {', '.join(_programs(backup, location, engine))}"


def _signature(backup: Backup, *, checked: bool) -> Iterator[str]:
    """Say what stands behind the digests in this script; the script itself cannot ask the manifest again."""
    if backup.signature is None:
        yield "Not signed: this is the backup that the store held under that name when this script was printed."
        return
    yield f"Signed by {backup.signature.key}."
    if checked:
        yield "The signature was checked when this script was printed; it covers every SHA-256 below, which the script"
        yield "compares: so what it restores is what was signed, as long as nobody changed this script."
    else:
        yield "The signature was NOT checked when this script was printed: no signing.public_keys were configured."


def _programs(backup: Backup, location: S3Location | FolderLocation, engine: EngineRunbook) -> list[str]:
    age = ["age"] if backup.encryption == "age" else []
    aws = ["aws"] if isinstance(location, S3Location) else []
    return ["zstd", *age, *aws, *engine.programs]


def _values(
    backup: Backup, location: S3Location | FolderLocation, fetched: list[Artifact], engine: EngineRunbook
) -> dict[str, str]:
    smallest = min((part for artifact in fetched for part in artifact.parts), key=_stored_bytes, default=None)
    return {
        "BACKUP": backup.id,
        "SOURCE": backup.source,
        "RECOVERY_POINT": when(backup.recovery_point),
        "ROWS": "" if backup.rows is None else str(backup.rows),
        "PROGRAMS": " ".join(_programs(backup, location, engine)),
        "NEEDED_MIB": str(_mib(needed_bytes(backup))),
        "ENCRYPTED": "yes" if backup.encryption == "age" else "no",
        "RECIPIENTS": " or ".join(backup.recipients),
        "PROBE_KEY": smallest.key if smallest else "",
        "PROBE_DIGEST": smallest.stored_sha256 if smallest else "",
        "UNUSABLE": "This backup cannot be restored as it is; an older copy of that object, or another backup, may.",
        **_store(location),
    }


def _store(location: S3Location | FolderLocation) -> dict[str, str]:
    if isinstance(location, FolderLocation):
        return {
            "STORE": "local",
            "STORE_PATH": location.path,
            "STORE_HINT": "Is that folder complete and readable?",
        }
    return {
        "STORE": "s3",
        "STORE_ENDPOINT": location.endpoint_url or "",
        "STORE_BUCKET": location.bucket,
        "STORE_PREFIX": location.prefix,
        "STORE_REGION": location.region,
        "STORE_PATH_STYLE": "yes" if location.path_style else "no",
        "STORE_CA_FILE": location.ca_file or "",
        "STORE_HINT": "Are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, and is the store up?",
    }


def _fetched(backup: Backup) -> list[Artifact]:
    """Return what the script fetches; nothing where the server wrote the data itself and reads it itself."""
    found = [artifact for artifact in backup.artifacts if not artifact.raw]
    return [] if all(artifact.name == FINGERPRINT_ARTIFACT for artifact in found) else found


def _parts(backup_id: str, artifacts: list[Artifact]) -> Iterator[str]:
    """Yield a line a folder, a file, a part; no field but the last can hold a space."""
    folders = Counter(_folder(backup_id, part) for artifact in artifacts for part in artifact.parts)
    yield from (f"folder {folder}" for folder, count in folders.items() if count >= _WHOLE_FOLDER)
    for artifact in artifacts:
        yield f"file {artifact.plain_bytes} {artifact.name}"
        yield from (f"part {part.stored_sha256} {part.key}" for part in artifact.parts)


def _folder(backup_id: str, part: Part) -> str:
    """Return the folder to fetch at once for a part: of this backup all, of an ancestor that artifact alone."""
    if layout.owner_of(part.key) == backup_id:
        return layout.backup_prefix(part.key.split("/")[1], backup_id)
    return f"{part.key.rpartition('/')[0]}/"


def _rule(title: str) -> str:
    return f"# ---- {title} ".ljust(120, "-")


def _stored_bytes(part: Part) -> int:
    return part.stored_bytes


def _mib(size_bytes: int) -> int:
    return size_bytes // _MIB + 1
