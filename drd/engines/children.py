"""Child processes that cannot outlive drd: client tools of the databases and short-lived servers.

Each child gets its own process group, dies with drd (parent-death signal, so also after ``kill -9``), is
killed on cancellation, and gets secrets by environment or file, never in its arguments.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from drd.cancel import CancelToken
from drd.errors import ToolError

_STDERR_TAIL_BYTES = 64 * 1024
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")


class Child:
    """A running child process; made by :func:`running`.

    ``process`` is the Popen object. Its standard error goes to a private file of which the last 64 KiB can be read.
    """

    def __init__(self, process: subprocess.Popen[bytes], stderr_path: Path) -> None:
        self.process = process
        self._stderr_path = stderr_path

    def stderr_tail(self) -> str:
        """Return the end of what the child wrote to standard error so far, at most 64 KiB."""
        with self._stderr_path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _STDERR_TAIL_BYTES))
            return stream.read().decode("utf-8", "replace")

    def signal_group(self, number: int) -> None:
        """Send a signal to the child and all it forked; a group that is gone is fine."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self, grace_s: float = 5.0) -> None:
        """Stop the whole group: SIGTERM, up to ``grace_s`` of patience, then SIGKILL; returns when it is gone."""
        self.signal_group(signal.SIGCONT)
        self.signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        self.signal_group(signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(
    argv: Sequence[str],
    *,
    cancel: CancelToken,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    cwd: Path | None = None,
    run_as: str | None = None,
) -> Iterator[Child]:
    """Start ``argv`` and yield it; on leaving the block the whole process group is gone, whatever happened.

    The environment holds a few harmless variables of drd's own plus ``env``: nothing else leaks in. Start and stay
    in the same thread: the parent-death signal is bound to the thread that started the child (prctl(2)). ``run_as``
    names an unprivileged user, honoured only by root. Raises :class:`~drd.errors.ToolError` when it cannot start.
    """
    clean = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(env or {})
    prefix: list[str] = []
    if setpriv := shutil.which("setpriv"):  # util-linux; avoids preexec_fn, which can deadlock in threads
        prefix = [setpriv, "--pdeathsig", "KILL"]
        if run_as and os.geteuid() == 0:
            prefix += [f"--reuid={run_as}", f"--regid={run_as}", "--init-groups"]
        prefix.append("--")
    descriptor, name = tempfile.mkstemp(prefix="drd-stderr-")
    path = Path(name)
    try:
        try:
            process = subprocess.Popen(
                [*prefix, *argv],
                env=clean,
                stdin=stdin,
                stdout=stdout,
                stderr=descriptor,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(
                f"cannot start {argv[0]}: {error.strerror}", hint=f"install {Path(argv[0]).name} or set its path"
            ) from error
        finally:
            os.close(descriptor)
        child = Child(process, path)
        with cancel.on_cancel(lambda: child.signal_group(signal.SIGKILL)):
            try:
                yield child
            finally:
                if process.poll() is None:
                    child.end()
                child.signal_group(signal.SIGKILL)  # what it forked may live on
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):
                            stream.close()
    finally:
        path.unlink(missing_ok=True)
