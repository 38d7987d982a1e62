"""Child processes that cannot outlive drd: client tools of the databases and short-lived servers.

Each child gets its own process group, dies with drd (parent-death signal, so also after ``kill -9``), is
killed on cancellation, and gets secrets by environment or file, never in its arguments.
"""

from __future__ import annotations

import contextlib
import os
import select
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

    ``process`` is the Popen object. Its standard error goes to a nameless file of which the last 64 KiB can be read.
    """

    def __init__(self, process: subprocess.Popen[bytes], stderr: int) -> None:
        self.process = process
        self._stderr = stderr

    def stderr_tail(self) -> str:
        """Return the end of what the child wrote to standard error so far, at most 64 KiB."""
        size = os.fstat(self._stderr).st_size
        # pread, since the child writes at the position that both share
        return os.pread(self._stderr, _STDERR_TAIL_BYTES, max(0, size - _STDERR_TAIL_BYTES)).decode("utf-8", "replace")

    def wait(self, seconds: float) -> int | None:
        """Return the exit code as soon as the child has ended, None when it has not within ``seconds``.

        Popen's own wait with a limit sleeps up to a twentieth of a second at a time; this one is woken.
        """
        if (code := self.process.poll()) is not None:
            return code
        try:
            descriptor = os.pidfd_open(self.process.pid)
        except OSError:  # a sandbox that does not know the call, or a kernel before 5.3
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(seconds)
            return None
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(descriptor)
        return self.process.poll()

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
    with _nameless_file() as stderr:
        try:
            process = subprocess.Popen(
                [*prefix, *argv],
                env=clean,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(
                f"cannot start {argv[0]}: {error.strerror}", hint=f"install {Path(argv[0]).name} or set its path"
            ) from error
        child = Child(process, stderr)
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


@contextmanager
def _nameless_file() -> Iterator[int]:
    """Lend a temporary file that has no name, so that not even ``kill -9`` leaves it behind."""
    try:
        file = tempfile.TemporaryFile(prefix="drd-stderr-")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ToolError(
            f"cannot make a temporary file in {tempfile.gettempdir()}: {error.strerror}", hint="free space there"
        ) from error
    with file:
        yield file.fileno()
