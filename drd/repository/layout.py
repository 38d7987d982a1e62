"""The only speller of keys: every name in the bucket is made and read here.

::

    drd.json
    backups/<source>/<backup-id>/manifest.json
    backups/<source>/<backup-id>/<artifact>/<000000>.zst[.age]
    backups/<source>/<backup-id>/clickhouse/…
    pins/<source>/<backup-id>.json
    restores/<restore-id>.json
    verified/<source>.json
    heads/<source>/index.jsonl.zst
    heads/<source>/removed/<backup-id>
    drills/<drill>/<run-id>.json and .json.sig
    jobs/<kind>/<schedule>/<source>.json and jobs/drill/<drill>.json
    leases/<name>/<generation>.json
    leases/<name>/<generation>.released.json     only from a role that may not read
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, date, datetime
from functools import lru_cache

from drd.errors import ConfigError, IntegrityError

REPOSITORY_KEY = "drd.json"
MAX_KEY_BYTES = 900  # S3 allows 1024 bytes, prefix included
SOURCE_NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9]{6}")
_SOURCE = re.compile(SOURCE_NAME_PATTERN)
_ARTIFACT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_RESERVED_ARTIFACT = re.compile(r"manifest\.json(/.*)?|(.*/)?[0-9]{6,}\.zst(\.age)?(/.*)?")
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\]|(?:\A|/)\.{0,2}(?:/|\Z)")  # one pass: a catalog holds a million keys
_RELEASED = ".released.json"
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # no l, o, 0, 1: read aloud at night


def new_backup_id(now: datetime) -> str:
    """Make an id that sorts by time, such as ``20261122T181455Z-k3f9qa``."""
    tail = "".join(secrets.choice(_ALPHABET) for _ in range(6))
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{tail}"


@lru_cache(maxsize=1 << 15)
def is_backup_id(text: str) -> bool:
    """Whether ``text`` has the form of a backup id, with a time that exists."""
    if _ID.fullmatch(text) is None:
        return False
    try:
        backup_time(text)
    except ValueError:
        return False
    return True


def backup_time(backup_id: str) -> datetime:
    """Return the start time that an id carries; raises ValueError when it is not one."""
    year, month, day = int(backup_id[:4]), int(backup_id[4:6]), int(backup_id[6:8])
    return datetime(year, month, day, int(backup_id[9:11]), int(backup_id[11:13]), int(backup_id[13:15]), tzinfo=UTC)


def is_source_name(text: str) -> bool:
    """Whether ``text`` may name a source (and so a folder of the bucket)."""
    return _SOURCE.fullmatch(text) is not None


def is_artifact_name(text: str) -> bool:
    """Whether ``text`` may name an artifact: safe segments, no ``..``, no empty one."""
    return _ARTIFACT.fullmatch(text) is not None


def is_reserved_artifact_name(text: str) -> bool:
    """Whether an artifact of that name would collide with a manifest or with another artifact's parts."""
    return _RESERVED_ARTIFACT.fullmatch(text) is not None


def is_encrypted_key(key: str) -> bool:
    """Whether the key of a part says that it is an age file."""
    return key.endswith(".age")


def validate_key(key: str) -> str:
    """Return ``key`` if every store can hold it, and it cannot leave its folder; raise otherwise.

    No empty, ``.`` or ``..`` segment (SeaweedFS collapses ``x//y``), no leading slash, no control character or
    backslash, at most 900 bytes of UTF-8.
    """
    if _UNUSABLE.search(key) or len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        msg = f"not a usable object key: {key[:120]!r}"
        raise IntegrityError(msg, hint="the manifest or the caller is wrong; nothing was read or written")
    return key


def sources_prefix() -> str:
    """Prefix below which each source has a folder."""
    return "backups/"


def source_prefix(source: str) -> str:
    """Prefix below which each backup of a source has a folder."""
    if not is_source_name(source):
        msg = f"not a usable source name: {source!r}"
        raise ConfigError(msg, hint="use a-z, 0-9, dot, dash and underscore, at most 63 characters")
    return f"backups/{source}/"


def backup_prefix(source: str, backup_id: str) -> str:
    """Prefix of everything one backup wrote."""
    if not is_backup_id(backup_id):
        msg = f"not a backup id: {backup_id!r}"
        raise ConfigError(msg, hint="ids look like 20261122T181455Z-k3f9qa; see: drd list")
    return f"{source_prefix(source)}{backup_id}/"


def manifest_key(source: str, backup_id: str) -> str:
    """Key of the object whose existence is the backup's existence."""
    return f"{backup_prefix(source, backup_id)}manifest.json"


def part_key(source: str, backup_id: str, artifact: str, index: int, *, encrypted: bool) -> str:
    """Key of one part of an artifact."""
    if not is_artifact_name(artifact):
        msg = f"not a usable artifact name: {artifact!r}"
        raise IntegrityError(msg)
    return f"{backup_prefix(source, backup_id)}{artifact}/{index:06d}.zst{'.age' if encrypted else ''}"


def direct_prefix(source: str, backup_id: str) -> str:
    """Prefix of what a ClickHouse server writes itself in direct mode."""
    return f"{backup_prefix(source, backup_id)}clickhouse/"


def owner_of(key: str) -> str:
    """Return the backup id in whose folder an object below ``backups/`` lies."""
    return key.split("/")[2]


def is_own_key(key: str) -> bool:
    """Whether drd puts objects of that name, or below that folder, at the top of a repository."""
    own = (
        "backups/",
        "pins/",
        "wal/",
        "drills/",
        "restores/",
        "leases/",
        "verified/",
        "heads/",
        "jobs/",
        "drd",
        ".drd",
    )
    return key.startswith(own)


def is_history(key: str) -> bool:
    """Whether the object is part of a backup: never rewritten, and what an object lock should hold."""
    return key.startswith(("backups/", "wal/"))


def pin_prefix(source: str) -> str:
    """Prefix of the marks that keep backups of a source from retention."""
    return f"pins/{source_prefix(source).removeprefix(sources_prefix())}"


def pin_key(source: str, backup_id: str) -> str:
    """Key of the mark that keeps one backup."""
    return f"pins/{backup_prefix(source, backup_id).removeprefix(sources_prefix())[:-1]}.json"


def restores_prefix() -> str:
    """Prefix of the records of restores that took the place of live data."""
    return "restores/"


def restore_key(restore_id: str) -> str:
    """Key of the record of one restore in place; its id has the form of a backup's."""
    if not is_backup_id(restore_id):
        raise ConfigError(f"not the id of a restore: {restore_id!r}", hint="see: drd restore list")
    return f"{restores_prefix()}{restore_id}.json"


def verified_key(source: str) -> str:
    """Key of the record of what was last read when by ``drd verify``."""
    return f"verified/{source_prefix(source).removeprefix(sources_prefix())[:-1]}.json"


def heads_key(source: str) -> str:
    """Key of the index of a source's heads, a cache of what its manifests say."""
    return f"heads/{source_prefix(source).removeprefix(sources_prefix())}index.jsonl.zst"


def removed_prefix(source: str) -> str:
    """Prefix of the marks that say of which backups the index is not to be believed."""
    return f"heads/{source_prefix(source).removeprefix(sources_prefix())}removed/"


def removed_key(source: str, backup_id: str) -> str:
    """Key of the mark that a backup is being removed, or was."""
    owner, name = backup_prefix(source, backup_id).removeprefix(sources_prefix())[:-1].split("/")
    return f"heads/{owner}/removed/{name}"


def drills_prefix() -> str:
    """Prefix below which each drill has a folder of its runs."""
    return "drills/"


def drill_prefix(drill: str, day: date | None = None) -> str:
    """Prefix of the runs of a drill, or of those that began on a day (UTC): their ids begin with it."""
    if not is_source_name(drill):
        msg = f"not a usable name of a drill: {drill!r}"
        raise ConfigError(msg, hint="use a-z, 0-9, dot, dash and underscore, at most 63 characters")
    return f"drills/{drill}/{'' if day is None else f'{day:%Y%m%d}T'}"


def drill_key(drill: str, run_id: str) -> str:
    """Key of the report of one drill run; its detached signature has ``.sig`` after it. Ids are like backups'."""
    if not is_source_name(drill) or not is_backup_id(run_id):
        msg = f"not a usable name of a drill run: {drill!r}, {run_id!r}"
        raise ConfigError(msg, hint="use a-z, 0-9, dot, dash and underscore, at most 63 characters")
    return f"drills/{drill}/{run_id}.json"


def drill_of_key(key: str) -> tuple[str, str] | None:
    """Return drill and run id of the key of a report, None when it is none."""
    pieces = key.split("/")
    if len(pieces) != 3 or pieces[0] != "drills" or not pieces[2].endswith(".json"):
        return None
    name, run_id = pieces[1], pieces[2].removesuffix(".json")
    return (name, run_id) if is_source_name(name) and is_backup_id(run_id) else None


def job_key(job: str) -> str:
    """Key of the history of one job of the daemon, by its name such as ``backup/hourly/trading-postgres``."""
    pieces = job.split("/")
    if not 2 <= len(pieces) <= 3 or not all(map(is_source_name, pieces)):
        msg = f"not a usable name of a job: {job!r}"
        raise ConfigError(msg, hint="use a-z, 0-9, dot, dash and underscore, at most 63 characters")
    return f"jobs/{job}.json"


def lease_prefix(name: str) -> str:
    """Prefix of the generations of one lease."""
    return f"leases/{name}/"


def lease_key(name: str, generation: int) -> str:
    """Key of one generation of a lease; generations sort by number."""
    return f"{lease_prefix(name)}{generation:010d}.json"


def lease_mark_key(name: str, generation: int) -> str:
    """Key of the mark that a generation was released, for those who may list and not read."""
    return f"{lease_prefix(name)}{generation:010d}{_RELEASED}"


def released_generation(key: str) -> int | None:
    """Return the generation that a mark says was released, None for any other key."""
    return lease_generation(f"{key.removesuffix(_RELEASED)}.json") if key.endswith(_RELEASED) else None


def lease_generation(key: str) -> int | None:
    """Return the generation of a lease's key, None when it is none."""
    number, dot, ending = key.rpartition("/")[2].partition(".")
    return int(number) if dot and ending == "json" and number.isascii() and number.isdigit() else None
