"""Run one job in a process of its own: tell it what to do, listen to it, and end it when its time is over.

The process gets one JSON line on its standard input, which then stays open: its end tells the job that the daemon is
gone, however it went. On its standard output it says what happens, a JSON object a line, the last one a ``report``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from drd.errors import JobError
from drd.model import Json

MAX_LINE_BYTES = 32 << 20
_JOIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How the process of a job ended. ``report`` is its last word, None where it died before; ``late`` at its deadline.

    ``status`` is as :class:`subprocess.Popen` has it: an exit code, or a signal's number, negative.
    """

    status: int
    report: Mapping[str, Json] | None
    late: bool


class JobProcess:
    """One process of one job; made when the job starts. ``ask`` and ``kill`` may be called from any thread."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: Path | None,
        said: Callable[[dict[str, Json]], None],
    ) -> None:
        self._argv = list(argv)
        self._environ = dict(environ)
        self._folder = folder
        self._said = said
        self._process: subprocess.Popen[bytes] | None = None
        self._report: dict[str, Json] | None = None
        self._asked = False
        self._lock = threading.Lock()

    def run(self, request: Mapping[str, Json], *, deadline_s: float, grace_s: float) -> Ended:
        """Start it, wait for its end, and return how that was; after it, nothing of its process group is left.

        At the deadline it is asked to end, and killed when it did not within ``grace_s``. Raises JobError.
        """
        process = self._start()
        listener = threading.Thread(target=self._listen, args=(process.stdout,), name="drd-job-listener", daemon=True)
        listener.start()
        late = False
        try:
            folder: dict[str, Json] = {} if self._folder is None else {"folder": str(self._folder)}
            self._tell(process, {**request, **folder})
            try:
                process.wait(deadline_s)
            except subprocess.TimeoutExpired:
                late = True
                self.ask()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace_s)
        finally:
            self.kill()
            process.wait()
            listener.join(_JOIN_S)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        return Ended(process.returncode, self._report, late)

    def ask(self) -> None:
        """Ask it to end cleanly; harmless when it has ended, or is not there yet (then it is not started)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and what it started, at once."""
        self._signal(signal.SIGKILL)

    def _start(self) -> subprocess.Popen[bytes]:
        environ = self._environ
        with self._lock:
            if self._asked:
                raise JobError("not started, as the daemon is ending")
            try:
                if self._folder is not None:  # made anew each time: it may be lost whenever somebody likes
                    self._folder.mkdir(parents=True, exist_ok=True)
                    environ = {**environ, "TMPDIR": str(self._folder)}
                self._process = subprocess.Popen(
                    self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, start_new_session=True
                )
            except OSError as error:
                what = error.filename or self._argv[0]
                raise JobError(
                    f"the job's process cannot be started: {what}: {error.strerror}",
                    hint="look for free memory and process numbers, and whether daemon.state_dir can be written to",
                ) from error
            return self._process

    def _signal(self, number: int) -> None:
        with self._lock:
            self._asked = True
            process = self._process
            if process is None:
                return
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(process.pid, number)
                elif process.returncode is None:
                    process.send_signal(number)

    @staticmethod
    def _tell(process: subprocess.Popen[bytes], request: Mapping[str, Json]) -> None:
        if process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it died at once: its exit code says more
            process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
            process.stdin.flush()

    def _listen(self, stream: IO[bytes]) -> None:
        """Hand on what the job says, until it closes its output; what is no JSON object is passed over."""
        with contextlib.suppress(ValueError, OSError):  # closed from under us after the join gave up
            while line := stream.readline(MAX_LINE_BYTES):
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if not isinstance(event, dict):
                    continue
                if event.get("event") == "report":
                    self._report = event
                else:
                    self._said(event)
