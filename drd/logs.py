"""The log: one line an event, JSON or for the eye, on standard error; no secret in it.

Every event has a name of :data:`EVENTS` and facts as keys. Verbs at a terminal write for people and log nothing unless
they are asked to (``--log-format``); the daemon and the processes of its jobs log always.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import threading
from collections.abc import Iterable, MutableMapping
from typing import Any, Literal, TextIO
from urllib.parse import quote

import structlog

Format = Literal["json", "console"]
MASK = "**********"
SHORTEST_SECRET = 6
"""Shorter ones are not masked: every other line would be full of stars, and tell what they are."""
_DEPTH = 6
_FIRST = ("timestamp", "level", "event")

EVENTS: dict[str, str] = {
    "backup.started": "A run of backups begins: the sources asked for, and the kind.",
    "backup.finished": "A source was backed up: its backup, kind, sizes, rows, duration and recovery point.",
    "backup.failed": "A source was not backed up: why, and what to do.",
    "prune.finished": "A source was pruned: what was kept, removed and in the way.",
    "prune.failed": "A source could not be pruned: why, and what to do.",
    "verify.finished": "Stored bytes were read back: how many backups or objects, and how many were no good.",
    "verify.damaged": "A backup is not what its manifest says: the first problem.",
    "restore.finished": "A source was restored: from which backup, to which time, and how long that took.",
    "restore.failed": "A source was not restored: why, and what to do.",
    "drill.finished": "A backup was tried: verdict, recovery time and point, and how many checks did not pass.",
    "drill.failed": "A drill ended before anything could be tried: why, and what to do.",
    "verb.failed": "A verb ended with an error that concerns all it was asked for.",
    "notify.failed": "A receiver was not told: which, and why.",
    "metrics.unsent": "Metrics of a verb could not be written or pushed: where, and why.",
    "daemon.started": "The daemon is up: how many jobs it has.",
    "daemon.draining": "It was told to end: what still runs, and how long that may take.",
    "daemon.cancelling": "The grace is over: what still runs is told to undo its work.",
    "daemon.forced": "A second signal came: everything ends at once.",
    "daemon.ended": "The daemon has ended cleanly.",
    "config.reloaded": "A new configuration is in force.",
    "config.refused": "The new configuration is no good, and the old one stays: why.",
    "config.notice": "A person should look at the configuration in force, or what it names: at what.",
    "config.notice_over": "What a `config.notice` said is over: which.",
    "leader.gained": "This replica plans the jobs from now on.",
    "leader.lost": "This replica plans no jobs any more: why. Another one does, or the lease is gone from the store.",
    "leader.unknown": "The store does not say who leads; what was so is taken to be so.",
    "scheduler.planned": "All jobs were planned anew: why, how many, and how many are due at once.",
    "scheduler.paused": "A person has stopped the planning of new runs.",
    "scheduler.resumed": "New runs are planned again.",
    "scheduler.stuck": "The scheduler has not moved for so long that systemd will restart the daemon.",
    "clock.jumped": "The clock was set: by how much. All jobs are planned anew.",
    "job.started": "A run of a job begins: why, which attempt.",
    "job.ended": "A run of a job has ended: outcome, exit code, duration, and what it made or why it failed.",
    "backups.late": "The newest backups of these sources are older than they may be.",
    "backups.in_time": "No source is late any more.",
    "history.damaged": "The stored history of a job cannot be read, and begins anew.",
    "history.unwritten": "The history of a job could not be stored; it is tried again.",
    "http.started": "Health, metrics and page are served: where.",
    "http.renewed": "A renewed certificate is used from now on.",
    "http.refused": "The address or certificate of a new configuration cannot be used, and the old one stays: why.",
    "store.away": "The store does not answer: why.",
    "store.answers": "The store answers (again).",
    "store.one_replica_only": "The store cannot keep two daemons apart.",
    "store.retried": "A call to the store failed and is tried again.",
    "config.warning": "Something is configured that is allowed and unwise.",
    "library.warning": "A library that drd uses had something to say.",
}


class Masker:
    """A processor that puts stars in the place of secrets, in every text of an event; thread-safe.

    It is the second line of defence: no event is given a secret on purpose.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: tuple[str, ...] = ()

    def know(self, secrets: Iterable[str]) -> None:
        """Mask these from now on, each line of them alone, and as URLs and basic authentication spell them."""
        found: set[str] = set()
        for secret in secrets:
            for line in (secret, *secret.splitlines()):
                text = line.strip()
                if len(text) >= SHORTEST_SECRET and not text.startswith("-----"):
                    found |= {text, quote(text, safe=""), base64.b64encode(text.encode()).decode("ascii").rstrip("=")}
        with self._lock:
            self._secrets = tuple(sorted({*self._secrets, *found}, key=lambda text: (-len(text), text)))

    def text(self, value: str) -> str:
        """Return a text without secrets."""
        for secret in self._secrets:
            if secret in value:
                value = value.replace(secret, MASK)
        return value

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Mask every text of an event, however deep."""
        return {self.text(str(name)): self._value(value, _DEPTH) for name, value in event.items()}

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            return self.text(value)
        if depth and isinstance(value, dict):
            return {self.text(str(key)): self._value(item, depth - 1) for key, item in value.items()}
        if depth and isinstance(value, (list, tuple)):
            return [self._value(item, depth - 1) for item in value]
        return self.text(str(value))


masker = Masker()
"""The one of this process; told of secrets where a configuration is read."""


def configure(style: Format | None, stream: TextIO | None = None) -> None:
    """Log to ``stream`` (standard error); None: JSON unless a person watches. What libraries warn of is logged too."""
    out = stream or sys.stderr
    lines, style = _Lines(out), style_of(style, out)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            masker,
            _json if style == "json" else _console,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Library)]:
        root.removeHandler(handler)
    root.addHandler(_Library(logging.WARNING))


def style_of(asked: object, stream: TextIO) -> Format:
    """Return the format that was asked for; of anything else, JSON unless a person watches the stream."""
    match asked:
        case "json" | "console":
            return asked
        case _:
            return "console" if stream.isatty() else "json"


def bind(**facts: str) -> None:
    """Add facts to every event of this thread, and of those that it starts with its context."""
    structlog.contextvars.bind_contextvars(**facts)


class _Lines:
    """Writes lines, each at once and whole, to a stream whose reader may go away without ending the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """Write a line."""
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return

    debug = info = warning = error = critical = exception = msg


class _Library(logging.Handler):
    """Hands what libraries log to the log; never fails, whatever they say."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record, in one line, with its traceback if it has one."""
        try:
            text = " ".join(record.getMessage().split())
        except Exception:  # noqa: BLE001 - a library's wrong format must not end what it was about
            text = str(record.msg)
        log = structlog.get_logger()
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("library.warning", logger=record.name, message=text[:2000], **_trace(record))


def _trace(record: logging.LogRecord) -> dict[str, Any]:
    return {"exc_info": record.exc_info} if record.exc_info and record.exc_info[0] else {}


def _json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    first = {name: event[name] for name in _FIRST if name in event}
    return json.dumps({**first, **event}, default=str)


def _console(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    facts = [f"{name}={_shown(value)}" for name, value in event.items() if name not in {*_FIRST, "exception"}]
    line = f"{event.get('timestamp', '')} {event.get('level', ''):<7} {event.get('event', '')}"
    trace = f"\n{event['exception']}" if "exception" in event else ""
    return "  ".join([line, *facts]) + trace


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if text and not any(c in text for c in ' ="\n\t') else json.dumps(text, ensure_ascii=False)
