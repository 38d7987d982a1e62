"""A private folder with servers in it that goes away with its maker."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack import ledger
from devstack.errors import DevstackError
from devstack.process import identify

# The shell waits for the starter's word before it becomes the server: the process is in the ledger before it runs.
_GATE = 'read -r go || exit 1; exec "$@" </dev/null'


class Workspace:
    """A folder, the processes started for it, and a guardian that ends both when the maker dies, even by SIGKILL.

    :meth:`close` does the same in an orderly way and is idempotent; :meth:`keep` lets the servers live on. Thread-safe.
    """

    def __init__(self, path: Path, guardian: subprocess.Popen[bytes]) -> None:
        self.path = path
        self._guardian = guardian
        self._maker = os.getpid()
        self._lock = threading.Lock()
        self._count = 0

    @classmethod
    def create(cls) -> Workspace:
        """Make an empty workspace below :func:`devstack.ledger.base_dir` and start its guardian."""
        path = Path(tempfile.mkdtemp(prefix=ledger.PREFIX, dir=ledger.base_dir()))
        ledger.write_owner(path, None)
        path.chmod(0o711)  # PostgreSQL's unprivileged user passes through; each server's own folder is private
        guardian = subprocess.Popen(
            [sys.executable, "-m", "devstack.guardian", str(path)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is not for it
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
        return cls(path, guardian)

    def directory(self, name: str) -> Path:
        """Make a fresh private folder for one server and return it."""
        with self._lock:
            self._count += 1
            path = self.path / f"{self._count:02d}-{name}"
        path.mkdir(mode=0o700)
        return path

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> subprocess.Popen[bytes]:
        """Start a server in a session of its own, its output appended to ``log_path``, known to the ledger first."""
        executable = shutil.which(argv[0])
        if executable is None:
            raise DevstackError(f"cannot start {name}: there is no program {argv[0]}")
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, f"drd-devstack-{name}", executable, *argv[1:]],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        identity = identify(process.pid)
        assert process.stdin is not None  # noqa: S101 # asked for above
        if identity is None:
            raise DevstackError(f"cannot start {name}: its process died at once, see {log_path}")
        with self._lock:
            ledger.append(self.path, ledger.Entry(name, identity, stop_signal))
        with contextlib.suppress(BrokenPipeError):  # it died; the readiness check will tell
            process.stdin.write(b"go\n")
            process.stdin.close()
        return process

    def keep(self, state_dir: Path) -> None:
        """Let the servers live on after this process, on behalf of ``state_dir``."""
        ledger.write_owner(self.path, state_dir)
        assert self._guardian.stdin is not None  # noqa: S101 # asked for at its start
        self._guardian.stdin.write(b"keep\n")
        self._guardian.stdin.close()
        self._guardian.wait()

    def close(self) -> None:
        """End all servers, remove the folder, let the guardian go. A fork of the maker has no say."""
        if os.getpid() != self._maker or self._guardian.returncode is not None:
            return
        ledger.reap(self.path)
        assert self._guardian.stdin is not None  # noqa: S101 # asked for at its start
        self._guardian.stdin.close()
        self._guardian.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
