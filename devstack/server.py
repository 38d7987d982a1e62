"""What all servers have in common: start until ready by protocol, stop, kill, pause, restart."""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from devstack.errors import DevstackError
from devstack.ledger import remove_tree
from devstack.ports import free_port
from devstack.process import ProcessId, descendants, end, identify, send
from devstack.workspace import Workspace

_TAIL_BYTES = 4000
_START_ATTEMPTS = 4


class Server(ABC):
    """One server on loopback, in a folder of its own inside a workspace.

    ``start`` and ``stop`` may be called again and again: data, ports and credentials stay the same until
    the workspace is closed. Not thread-safe. Faults for tests: :meth:`kill`, :meth:`pause`, :meth:`resume`.
    """

    kind: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM
    stop_grace_s: ClassVar[float] = 10.0
    port_names: ClassVar[tuple[str, ...]] = ("port",)

    host = "127.0.0.1"

    def __init__(self, workspace: Workspace, *, name: str | None = None, ready_timeout_s: float = 60.0) -> None:
        self.workspace = workspace
        self.name = name or self.kind
        self.dir = workspace.directory(self.name)
        self.log_path = self.dir / "server.log"
        self.ready_timeout_s = ready_timeout_s
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Write what the server needs before each start (data folder, configuration); ports are known."""

    @abstractmethod
    def argv(self) -> Sequence[str]:
        """Return the command line; no secret in it."""

    @abstractmethod
    def probe(self) -> str | None:
        """Ask the server something in its own protocol; return None when it answers well, else why not, one line."""

    def environment(self) -> Mapping[str, str]:
        """Return what to add to the environment."""
        return {}

    @property
    def port(self) -> int:
        """The port that clients use; known from the first start on."""
        return self.ports["port"]

    @property
    def process_id(self) -> ProcessId | None:
        """The running server process, or None."""
        return identify(self._process.pid) if self._process and self._process.poll() is None else None

    @property
    def pid(self) -> int:
        """Pid of the running server; raises when it does not run."""
        if (process := self.process_id) is None:
            raise DevstackError(f"{self.name} does not run")
        return process.pid

    def start(self) -> Self:
        """Start and return when the server answers; does nothing when it runs. Raises with the log's tail otherwise."""
        if self.process_id is not None:
            return self
        first_time = not self.ports
        for attempt in range(_START_ATTEMPTS):
            if first_time:
                self.ports = {name: free_port() for name in self.port_names}
            self.prepare()
            seen = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._process = self.workspace.spawn(
                self.name,
                self.argv(),
                log_path=self.log_path,
                cwd=self.dir,
                env=self.environment(),
                stop_signal=self.stop_signal,
            )
            reason = self._wait_ready()
            if reason is None:
                return self
            self.kill()
            if (
                first_time
                and attempt < _START_ATTEMPTS - 1
                and "address already in use" in self._log_from(seen).lower()
            ):
                continue
            raise DevstackError(f"{self.name} {reason}\n--- end of {self.log_path}\n{self.log_tail()}")
        raise AssertionError  # the last attempt returns or raises

    def _wait_ready(self) -> str | None:
        assert self._process is not None  # noqa: S101 # called by start
        deadline = time.monotonic() + self.ready_timeout_s
        while True:
            if self._process.poll() is not None:
                return f"ended at its start with code {self._process.returncode}"
            if (reason := self.probe()) is None:
                return None
            if time.monotonic() > deadline:
                return f"was not ready after {self.ready_timeout_s:.0f} s: {reason}"
            time.sleep(0.03)

    def stop(self) -> None:
        """Stop in order (SIGKILL after a grace time); data stay. Idempotent."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Crash it: SIGKILL to the server and all its children; data stay as they are."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        if (process := self.process_id) is not None:
            end(process, number, self.stop_grace_s)
        self._process.wait()
        self._process = None

    def remove(self) -> None:
        """End it at once and remove its folder; it cannot be started again."""
        self.kill()
        remove_tree(self.dir)

    def pause(self) -> None:
        """Freeze it: connections are accepted by the kernel and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        if (process := self.process_id) is None:
            raise DevstackError(f"{self.name} does not run")
        for member in (process, *descendants(process)):
            send(member, number)

    def log_tail(self) -> str:
        """Return the end of the server's log."""
        return self._log_from(0)[-_TAIL_BYTES:].strip()

    def _log_from(self, offset: int) -> str:
        try:
            with self.log_path.open("rb") as stream:
                stream.seek(offset)
                return stream.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def private_file(path: Path, text: str) -> Path:
    """Write a file that only its owner can read; return the path."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")
    return path
