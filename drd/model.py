"""Frozen values that every layer speaks: no I/O, no clock, no configuration.

Times are aware and in UTC. Sizes are bytes, durations seconds. ``Json`` values hold only what JSON can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from drd.legible import OneLine

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

EngineKind = Literal["postgres", "redis", "clickhouse"]
BackupKind = Literal["full", "incremental"]
CheckOutcome = Literal["ok", "warning", "failed"]
FindingOutcome = Literal["passed", "warning", "failed", "unverified", "skipped"]
Cell: TypeAlias = bool | int | float | Decimal | str | datetime | None

MANIFEST_SCHEMA_VERSION = 3
"""The newest that is read."""
UNSIGNED_SCHEMA_VERSION, SIGNED_SCHEMA_VERSION, FACTS_SCHEMA_VERSION = 1, 2, 3
"""2 is 1 with a signature; 3 has facts of artifacts, signed or not. A drd that knows less refuses them by name."""
REPOSITORY_FORMAT_VERSION = 1
FINGERPRINT_ARTIFACT = "fingerprint.json"


class Secret:
    """A string that never shows itself; call :meth:`reveal` at the one place that needs it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Part:
    """One object of the store: a bounded slice of an artifact.

    ``key`` is relative to the repository's prefix and may lie under an ancestor's backup id. For a raw part
    (see :class:`Artifact`) both digests are empty: what wrote it keeps its own.
    """

    key: str
    plain_bytes: int
    stored_bytes: int
    plain_sha256: str
    stored_sha256: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A named stream inside a backup, as its parts in order.

    ``raw`` parts were written by the database server itself (ClickHouse direct mode): neither compressed nor
    encrypted by drd, possibly large, read by range. All others are one zstd frame (in one age file) each.
    ``facts`` are the engine's own, without names: they are read where backups are made, so they are not encrypted.
    """

    name: str
    parts: tuple[Part, ...]
    raw: bool = False
    facts: dict[str, Json] = field(default_factory=dict)

    @property
    def plain_bytes(self) -> int:
        """Size of the stream as the engine wrote it."""
        return sum(part.plain_bytes for part in self.parts)

    @property
    def stored_bytes(self) -> int:
        """Size of the objects it refers to, an ancestor's included."""
        return sum(part.stored_bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class Signature:
    """Who vouches for a manifest: the public key (``ed25519:`` and base64) and the signature, in base64."""

    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupHead:
    """What a manifest says of a backup as a whole: enough to list, choose and keep it, not to restore it.

    It names no table, row or secret, so it can be read without the identity. ``facts`` are the engine's own
    (shape known to the engine alone, still without names). ``warnings`` are codes, not texts. ``rows`` counts
    rows or keys where the engine knows them.
    """

    id: str
    source: str
    engine: EngineKind
    engine_version: str
    kind: BackupKind
    parent: str | None
    started_at: datetime
    finished_at: datetime
    recovery_point: datetime
    window_start: datetime | None
    compression: str
    encryption: Literal["none", "age"]
    recipients: tuple[str, ...]
    plain_bytes: int
    stored_bytes: int
    rows: int | None
    lease_generation: int
    repository_id: str
    tools: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Json] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    schema_version: int = UNSIGNED_SCHEMA_VERSION
    signature: Signature | None = None

    @property
    def duration_s(self) -> float:
        """Wall time of the backup."""
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup(BackupHead):
    """All that a manifest says: everything needed to find, check and restore one backup."""

    artifacts: tuple[Artifact, ...]

    def artifact(self, name: str) -> Artifact | None:
        """Return the artifact of that name, or None."""
        return next((a for a in self.artifacts if a.name == name), None)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a database held, taken at backup time and again after a restore, to be compared.

    ``items`` maps an object's name (a table, a Redis database) to facts such as ``{"rows": 3, "sha256": "…"}``.
    ``compared`` names the facts that must be equal; others are information (columns to read, sizes).
    """

    engine: EngineKind
    items: dict[str, dict[str, Json]]
    compared: tuple[str, ...]
    version: int = 1

    @property
    def rows(self) -> int:
        """Rows or keys over all items."""
        return sum(r for i in self.items.values() if isinstance(r := i.get("rows"), int))


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact of one object that is not what was expected; ``found`` is None when the object is absent."""

    name: str
    fact: str
    expected: Json
    found: Json


def compare_fingerprints(expected: Fingerprint, found: Fingerprint) -> list[Difference]:
    """List every difference, by name then fact; an empty list means equal. Objects only in ``found`` count too."""
    out: list[Difference] = []
    for name in sorted({*expected.items, *found.items}):
        want, have = expected.items.get(name), found.items.get(name)
        if want is None or have is None:
            out.append(Difference(name, "exists", want is not None, have is not None))
            continue
        out.extend(
            Difference(name, fact, want.get(fact), have.get(fact))
            for fact in expected.compared
            if want.get(fact) != have.get(fact)
        )
    return out


@dataclass(frozen=True, slots=True)
class Notice(OneLine):
    """What a person should know that is no failure; ``code`` is stable. One ``standing`` is told when it is new."""

    code: str
    message: str
    standing: bool = False


@dataclass(frozen=True, slots=True)
class CheckItem(OneLine):
    """One line of a check: what was looked at, how it is, and a remedy that can be pasted when it is not well."""

    name: str
    outcome: CheckOutcome
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine learned of its server without changing it. ``size_bytes`` is an estimate or None."""

    version: str
    size_bytes: int | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DumpResult:
    """What a dump learned besides the bytes it wrote to the sink.

    ``direct_objects`` is true when the server itself wrote objects below ``WorkContext.direct_prefix``; the
    operation then lists them into the manifest as raw artifacts. ``base_objects`` are those of the parent that
    this one cannot be restored without: the name that each gets here, and the parent's own.
    """

    recovery_point: datetime
    fingerprint: Fingerprint
    engine_version: str
    kind: BackupKind = "full"
    rows: int | None = None
    facts: dict[str, Json] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    direct_objects: bool = False
    base_objects: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TargetState(OneLine):
    """Where a restore would go. ``empty`` is the permission to write; ``detail`` says what is there otherwise."""

    description: str
    empty: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore learned; the bytes it wrote are checked by fingerprint afterwards."""

    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovered:
    """How an interrupted restore in place ended: ``replaced`` when its data had come into its place after all.

    None where the server cannot tell.
    """

    replaced: bool | None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem(OneLine):
    """Something wrong with what is stored: the key or artifact, what is wrong, and what that means."""

    subject: str
    message: str
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of running work, for a progress bar. ``total_bytes`` is an estimate or None."""

    subject: str
    phase: str
    done_bytes: int = 0
    total_bytes: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EngineRunbook:
    """How to restore decoded artifacts with stock tools: an engine's half of the script that ``drd runbook`` prints.

    ``shell`` is bash and the same for every backup: it defines ``check_target``, which changes nothing and calls
    ``problem TEXT`` for each thing that is not right, and ``restore_target``, which restores from the artifacts in
    ``$DATA`` and ends by ``die TEXT`` when it cannot. What differs from backup to backup stands in ``values``, shell
    variables that the script sets (quoted). ``programs`` are what must be on the PATH. ``settings`` pairs each
    variable that a person sets with what it is for.
    """

    programs: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    values: dict[str, str]
    shell: str


@dataclass(frozen=True, slots=True)
class ScratchSpec:
    """What a scratch server must be: a throw-away server of one engine that a drill restores into.

    ``version`` is the server's that made the backup: a runtime starts one of the same major version that can read it
    (ClickHouse: of that month's release or a later one), or says which it has.
    ``size_bytes`` is the plain size of the backup, by which a runtime sees before the start whether the disk is enough.
    The limits bound the server; after ``expires_s`` a reaper may remove it whoever started it. ``image`` (or a folder
    of programs, by the runtime's meaning of it) overrides the runtime's choice. ``labels`` name drill and run.
    """

    engine: EngineKind
    version: str
    size_bytes: int
    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int
    expires_s: float
    image: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScratchEndpoint:
    """How a running scratch server is reached; made by scratch runtimes alone, and never from the configuration.

    ``password`` was made at random for it. ``version`` is what the server answered. ``environment`` is for the report
    (image, digest, limits). ``connect`` are lines for a person who wants to look inside, without the password. What the
    server connects back to (gateway, holder) listens on ``listen_host``; empty where the server cannot reach drd.
    """

    engine: EngineKind
    name: str
    url: str
    password: Secret
    version: str
    environment: dict[str, str] = field(default_factory=dict)
    connect: tuple[str, ...] = ()
    listen_host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Finding(OneLine):
    """What one look at a restored database found.

    ``unverified``: it could not be looked at, so nothing is known. ``skipped``: not made, for the reason in ``detail``,
    and no verdict rests on it. ``expected`` and ``found`` are short and hold no row data unless a suite allows it.
    """

    name: str
    outcome: FindingOutcome
    detail: str
    expected: str = ""
    found: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """What a suite asks a restored database, without changing it.

    ``kind`` is ``sql`` (one statement), ``redis`` (one reading command and its arguments) or ``keys`` (how many keys
    match a pattern). ``database`` is a name, or a Redis database's number; None is the only one that was restored.
    """

    kind: Literal["sql", "redis", "keys"]
    words: tuple[str, ...]
    database: str | None = None
    limit_rows: int = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """The first rows a question got; ``more`` says that there were more. A Redis reply is one row a element."""

    rows: tuple[tuple[Cell, ...], ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of a store, or, with a delimiter, a common prefix (``key`` ends with it, size 0).

    ``locked_until`` is when the store will let its content go, where ``stat`` was asked and an object lock holds it.
    """

    key: str
    size_bytes: int
    modified_at: datetime | None = None
    locked_until: datetime | None = None
