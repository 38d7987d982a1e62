"""Run the real ``drd`` command as a person would, and hold every run to what all runs owe.

Each run is its own process with a configuration file; after it, everything it printed is searched for every secret of
the site. :class:`Site` is a folder with a ``drd.yaml``, an age key pair and a store; :class:`Run` is what came out.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0
_YOUNG_S = 1.0
_ROUNDS_OF_THE_OLD = 100
_BLOCK = re.compile(r"^✗ (?P<headline>.+?)\n(?P<rest>(?:  .+\n)*?)  exit (?P<code>\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Failure:
    """One error as people see it: ``✗ op subject: message``, then a hint, then the exit code."""

    headline: str
    hint: str
    exit_code: int


@dataclass(frozen=True)
class Run:
    """What one run of drd gave: exit code, standard output and error."""

    args: tuple[str, ...]
    rc: int
    out: str
    err: str
    duration_s: float

    @property
    def text(self) -> str:
        """Both streams, output first."""
        return self.out + self.err

    @property
    def json(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def failures(self) -> list[Failure]:
        """Every error block of the documented shape, on either stream."""
        return [
            Failure(match["headline"], match["rest"].strip(), int(match["code"]))
            for stream in (self.out, self.err)
            for match in _BLOCK.finditer(stream)
        ]

    def fails(self, code: int, *words: str, hint: str = "", rc: int | None = None) -> Failure:
        """Demand exactly one error of the documented shape, with this code, these words and a hint; return it.

        ``rc`` is the exit code of the process where it differs (3: other sources were backed up).
        """
        assert self.rc == (code if rc is None else rc), self.described
        assert "Traceback" not in self.text, self.described
        found = self.failures
        assert len(found) == 1, self.described
        assert found[0].exit_code == code, self.described
        for word in words:
            assert word in found[0].headline, f"{word!r} is not in the error line\n{self.described}"
        assert found[0].hint, f"no hint\n{self.described}"
        assert hint in found[0].hint, f"{hint!r} is not in the hint\n{self.described}"
        return found[0]

    def succeeds(self) -> Run:
        """Demand exit code 0, no error block and no traceback; return self."""
        assert self.rc == 0, self.described
        assert not self.failures, self.described
        assert "Traceback" not in self.text, self.described
        return self

    @property
    def described(self) -> str:
        """Everything, for the message of a failing test."""
        return f"drd {' '.join(self.args)}\nexit {self.rc}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass
class Running:
    """A drd that runs; tests of faults signal ``process`` and then :meth:`finish`."""

    args: tuple[str, ...]
    process: subprocess.Popen[bytes]
    out_path: Path
    err_path: Path
    site: Site
    started: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        """Pid of the drd process itself."""
        return self.process.pid

    def finish(self, timeout_s: float = TIMEOUT_S) -> Run:
        """Wait for its end, search what it printed for secrets, and return the run."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            said = self.out_path.read_text() + self.err_path.read_text()
            raise AssertionError(f"drd {' '.join(self.args)} did not end within {timeout_s} s:\n{said}") from None
        took = time.monotonic() - self.started
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in (self.out_path, self.err_path))
        run = Run(self.args, self.process.returncode, out, err, took)
        self.site.demand_no_secret(run.text, f"the output of drd {' '.join(self.args)}")
        return run


class Site:
    """A folder from which drd is run: ``config`` is written to ``drd.yaml`` before each run and may be changed.

    ``env`` is the environment besides the system's own; ``secrets`` is what no run may print; ``identity_file`` holds
    the age identity that ``config`` refers to. Call it like the command: ``site("backup", "now", "--json")``.
    """

    def __init__(self, folder: Path, config: dict[str, Any], *, env: dict[str, str], secrets: Iterable[str]) -> None:
        self.folder = folder
        self.config = config
        self.env = dict(env)
        self.secrets = {secret for secret in secrets if secret}
        self.identity_file = folder / "identity.txt"
        self._runs = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def config_file(self) -> Path:
        """Path of ``drd.yaml``."""
        return self.folder / "drd.yaml"

    @property
    def store_dir(self) -> Path:
        """Folder of the local store."""
        return Path(self.config["store"]["path"])

    @property
    def sources(self) -> dict[str, Any]:
        """The configured sources, to be changed."""
        found: dict[str, Any] = self.config["sources"]
        return found

    def at(self, folder: Path, **changes: Any) -> Site:
        """Return a second site with a copy of this one's configuration, its top-level keys changed."""
        other = Site(folder, copy.deepcopy(self.config) | changes, env=self.env, secrets=self.secrets)
        other.identity_file = self.identity_file
        return other

    def __call__(self, *args: str, timeout_s: float = TIMEOUT_S, write_config: bool = True) -> Run:
        """Run drd to its end."""
        return self.start(*args, write_config=write_config).finish(timeout_s)

    def start(
        self, *args: str, write_config: bool = True, argv: Iterable[str] = (), program: Sequence[str] = ("-m", "drd")
    ) -> Running:
        """Start drd; ``argv`` are more words before it, such as a wrapper, ``program`` what Python runs instead."""
        self._runs += 1
        if write_config:
            text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
            self.config_file.write_text(text, encoding="utf-8")
        paths = [self.folder / f"run-{self._runs:03d}.{kind}" for kind in ("out", "err")]
        with paths[0].open("wb") as out, paths[1].open("wb") as err:
            process = subprocess.Popen(
                [*argv, sys.executable, *program, *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env={**_clean_environment(), "DRD_CONFIG": str(self.config_file), **self.env},
            )
        return Running(args, process, paths[0], paths[1], self)

    def demand_no_secret(self, text: str, where: str) -> None:
        """Fail when any secret of the site occurs in ``text``."""
        for secret in self.secrets:
            assert secret not in text, f"a secret ({secret[:4]}…) stands in {where}"

    @contextmanager
    def watching_argv(self) -> Iterator[set[str]]:
        """Sample the command lines of all processes of this machine; fail when one holds a secret.

        Those that began a moment ago and may become another program are looked at all the time, as some live for
        milliseconds; the others now and then.
        Gives the programs that were seen below this process, to prove that the children in question were there.
        """
        seen: set[str] = set()
        lines: set[str] = set()
        stop = threading.Event()

        def sample() -> None:
            born: dict[int, float] = dict.fromkeys(_pids(), 0.0)  # when it was seen first; those of before are old
            rounds = 0
            while not stop.wait(0.003):
                now = time.monotonic()
                born = {pid: born.get(pid, now) for pid in _pids()}
                for pid, since in born.items():
                    if rounds % _ROUNDS_OF_THE_OLD and now - since > _YOUNG_S:
                        continue
                    line = _command_line(pid)
                    if line and line not in lines:
                        lines.add(line)
                        if _is_below(pid, os.getpid()):
                            seen.add(Path(line.split("\0", 1)[0]).name)
                rounds += 1

        thread = threading.Thread(target=sample, name="argv-watcher")
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()
        for line in lines:
            self.demand_no_secret(line, "the command line of a process")


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without what would steer drd, libpq or the S3 library."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DRD_", "PG", "AWS_", "REDISCLI_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true"}


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 # thousands of times


def _command_line(pid: int) -> str:
    """Return the words of a process, each ended by NUL; nothing where it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:  # noqa: PTH123 # as above
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
