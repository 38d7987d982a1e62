"""A real ``drd daemon`` under test: started from a site, watched by its log and by what it keeps in the store."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.drd_site import Run, Running, Site


class RunningDaemon:
    """A daemon; a context manager that kills it if it still runs. Events are the lines of its log, as JSON objects."""

    def __init__(self, site: Site, *words: str, argv: tuple[str, ...] = ()) -> None:
        self.site = site
        self.running: Running = site.start("daemon", *words, argv=argv)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running.process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        """Pid of the daemon itself."""
        return self.running.pid

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        found = []
        for line in self.running.err_path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
        return found

    def of(self, event: str, **values: Any) -> list[dict[str, Any]]:
        """Return the events of that name with these values."""
        return [e for e in self.events if e["event"] == event and all(e.get(k) == v for k, v in values.items())]

    def wait(self, event: str, *, times: int = 1, timeout_s: float = 30.0, **values: Any) -> dict[str, Any]:
        """Wait until it has logged such an event so often; return the last."""
        return wait_until(
            f"{event} {values}", lambda: (self.of(event, **values)[times - 1 :] or [None])[-1], timeout_s, self.said
        )

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of one of its pages."""
        place = urlsplit(self.wait("http.started")["place"])
        connection = HTTPConnection(place.hostname or "", place.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body

    def series(self, name: str, label: str = "") -> list[float]:
        """Return the values of a metric's series that have a label."""
        lines = self.get("/metrics")[1].splitlines()
        return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and label in line]

    def said(self) -> str:
        """Return its log, for the message of a failing test."""
        return self.running.err_path.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.running.process.send_signal(number)

    def end(self, timeout_s: float = 30.0) -> Run:
        """Tell it to end, and return the run."""
        if self.running.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.running.finish(timeout_s)

    def kill(self) -> Run:
        """End it as ``kill -9`` does."""
        self.signal(signal.SIGKILL)
        return self.running.finish(10)


def wait_until(what: str, found: Callable[[], Any], timeout_s: float = 30.0, said: Callable[[], str] = str) -> Any:
    """Wait until ``found`` gives something true and return it."""
    ends = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < ends, f"waited {timeout_s} s in vain for {what}\n{said()}"
        time.sleep(0.05)
    return value


def timed(site: Site, **schedules: dict[str, Any]) -> Site:
    """Give a site schedules, and a daemon that notices everything within seconds."""
    site.config["schedules"] = schedules
    site.config["daemon"] = {
        "listen": "127.0.0.1:0",
        "state_dir": str(site.folder / "state"),
        "lease": "2s",
        "heartbeat": "1s",
        "grace": "1s",
        "retry": {"first": "1s", "longest": "2s", "attempts": 50},
    }
    return site


def job_of(daemon: RunningDaemon) -> int:
    """Wait for a process of a job and return its pid."""
    children = Path(f"/proc/{daemon.pid}/task")

    def found() -> int | None:
        for task in children.iterdir():
            for pid in (task / "children").read_text().split():
                if b"drd.cli.job" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        return None

    pid: int = wait_until("a job's process", found, said=daemon.said)
    return pid


def history(site: Site, job: str) -> dict[str, Any]:
    """Return what a local store holds of a job."""
    path = Path(site.store_dir, "jobs", f"{job}.json")
    found: dict[str, Any] = (
        json.loads(path.read_text()) if path.exists() else {"runs": [], "failures": 0, "retry": None}
    )
    return found


def backups(site: Site, source: str) -> list[str]:
    """Return the ids of the backups of a source in a local store."""
    return sorted(path.parent.name for path in site.store_dir.glob(f"backups/{source}/*/manifest.json"))
