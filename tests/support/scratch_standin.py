"""A scratch runtime without servers, for tests of drills: its endpoints are dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.model import Answer, Backup, CheckItem, Finding, Question, ScratchEndpoint, ScratchSpec, Secret
from drd.ops.drill import Bound
from drd.protocols import ArtifactReader, WorkContext
from tests.support.engine import DictEngine


class StandinServer:
    """A server that answers nothing by itself; ``dead`` is why it ended."""

    def __init__(self, spec: ScratchSpec) -> None:
        self.endpoint = ScratchEndpoint(
            spec.engine, "standin", "dict://scratch", Secret("x"), spec.version, connect=("look here",)
        )
        self.dead = ""
        self.kept = False

    def death(self) -> str:
        return self.dead

    def log(self, limit_bytes: int = 8192) -> str:
        return "" * limit_bytes

    def run(self, argv: Sequence[str], cancel: CancelToken) -> tuple[int, str]:
        del cancel
        return (0, "") if argv[0] == "true" else (int(argv[1]), "said so")

    def keep(self) -> None:
        self.kept = True


class StandinRuntime:
    """Makes stand-ins, and remembers what was asked for and what is still running."""

    name = "standin"

    def __init__(self) -> None:
        self.refuse = ""
        self.specs: list[ScratchSpec] = []
        self.running = 0
        self.server: StandinServer | None = None

    @contextmanager
    def start(self, spec: ScratchSpec, cancel: CancelToken) -> Iterator[StandinServer]:
        cancel.raise_if_cancelled()
        if self.refuse:
            raise ScratchError(self.refuse)
        self.specs.append(spec)
        self.server = StandinServer(spec)
        self.running += 1
        try:
            yield self.server
        finally:
            self.running -= 1

    def reap(self, *, kept: bool = False) -> Sequence[str]:
        del kept
        return ()

    def check(self) -> Sequence[CheckItem]:
        return ()


class StandinExaminer:
    """Counts rows of a dictionary; ``raising`` is raised by every question."""

    def __init__(self, engine: DictEngine) -> None:
        self.engine = engine
        self.raising: Exception | None = None

    def prepare(self, backup: Backup, cancel: CancelToken) -> str:
        cancel.raise_if_cancelled()
        return backup.engine_version

    def examine(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Iterator[Finding]:
        del backup, artifacts, ctx
        yield Finding("shape", "passed", f"{len(self.engine.tables)} tables")

    def ask(self, question: Question, ctx: WorkContext) -> Answer:
        del ctx
        if self.raising:
            raise self.raising
        return Answer(((self.engine.tables[question.words[0]].count(b"\n"),),))


class StandinBinder:
    """Binds an empty dictionary to each endpoint; ``engine`` and ``examiner`` are the last ones."""

    def __init__(self) -> None:
        self.engine = DictEngine()
        self.examiner = StandinExaminer(self.engine)
        self.corrupt = False
        self.raising: Exception | None = None
        self.endpoints: list[ScratchEndpoint] = []

    def __call__(self, endpoint: ScratchEndpoint, backup: Backup) -> Bound:
        del backup
        self.endpoints.append(endpoint)
        self.engine = DictEngine()
        self.engine.corrupt_on_restore = self.corrupt
        self.examiner = StandinExaminer(self.engine)
        self.examiner.raising = self.raising
        return Bound(self.engine, self.examiner)
