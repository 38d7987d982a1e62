"""The process of one job of the daemon: ``python -m drd.cli.job``, told by its standard input what to do.

It runs the same verb that a person would type, and says on standard output, a JSON object a line, what happens:
``progress`` (phase, share from 0 to 1 where it is known), ``delivery`` (how telling receivers went), ``retry`` (a call
to the store failed and is tried again), and last ``report`` (exit code, error, ids, and the verb's own document). When
its standard input ends, the daemon is gone, and the work is cancelled as by SIGTERM.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from drd.cancel import CancelToken
from drd.cli import documents, streams
from drd.cli.interrupts import Interrupts
from drd.cli.main import end, parse
from drd.cli.session import Session
from drd.counts import StoreCounts
from drd.errors import Cancelled, ConfigError, DrdError
from drd.events import Delivery, Event
from drd.model import CheckItem, Json, Progress
from drd.protocols import Notifier

if TYPE_CHECKING:  # made when the job asks for it
    from drd.wiring import Services

ORPHAN_GRACE_S = 90.0
"""How long an orphan may take to undo its work before it is ended."""
_PROGRESS_EVERY_S = 0.5
_VERBS = {"backup": ("backup", "now"), "prune": ("prune",), "verify": ("verify",), "drill": ("drill", "now")}


class Mouth:
    """Says events on the stream that the daemon reads; that nobody listens any more stops no work. Thread-safe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, event: str, **values: Json) -> None:
        """Say one event."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(json.dumps({"event": event, **values}) + "\n")
            self._stream.flush()


class JobSession(Session):
    """One run of one verb for the daemon: its progress and what it tells go to the daemon as well."""

    counts: StoreCounts

    def __init__(self, mouth: Mouth, cancel: CancelToken) -> None:
        super().__init__(None, as_json=True, cancel=cancel)
        self.mouth = mouth
        self.counts = StoreCounts()
        self._phase = ""
        self._next_at = 0.0

    @cached_property
    def services(self) -> Services:
        """The adapters and ports; what is asked of the store is counted."""
        from drd.wiring import Services

        return Services(
            self.config, cancel=self.cancel, progress=self._progress, on_retry=self._retrying, counts=self.counts
        )

    def say_counts(self) -> None:
        """Hand over what was counted since the last time."""
        counts = self.counts.take()
        if counts is not None:
            self.mouth.say("store", counts=counts)

    def _progress(self, step: Progress) -> None:
        now = time.monotonic()
        if step.phase == self._phase and now < self._next_at:
            return
        self._phase, self._next_at = step.phase, now + _PROGRESS_EVERY_S
        share = min(step.done_bytes / step.total_bytes, 1.0) if step.total_bytes else None
        self.mouth.say("progress", phase=step.phase, share=share, done_bytes=step.done_bytes)
        self.say_counts()

    def _retrying(self, text: str) -> None:
        super()._retrying(text)
        self.mouth.say("retry", message=text)


class _Overheard:
    """A notifier that also says how telling went."""

    def __init__(self, inner: Notifier, mouth: Mouth) -> None:
        self._inner = inner
        self._mouth = mouth

    def notify(self, events: Any) -> Delivery:
        """Tell the receivers, then the daemon."""
        told: tuple[Event, ...] = tuple(events)
        delivery = self._inner.notify(told)
        peers: list[Json] = [
            {"peer": peer.peer, "outcome": peer.outcome, "attempts": peer.attempts, "message": peer.message}
            for peer in delivery.peers
        ]
        self._mouth.say("delivery", events=delivery.events, peers=peers)
        return delivery

    def check(self) -> list[CheckItem]:
        """Pass on."""
        return list(self._inner.check())


def main() -> int:
    """Do what standard input asks for and return the verb's exit code."""
    mouth = Mouth(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever else prints, prints to the log
    streams.prepare()
    cancel = CancelToken()
    with Interrupts(cancel, quiet=True):
        line = _first_line()
        threading.Thread(target=_watch_daemon, args=(cancel,), name="drd-daemon-watch", daemon=True).start()
        return _run(line, mouth, cancel)


def _run(line: bytes, mouth: Mouth, cancel: CancelToken) -> int:
    said = io.StringIO()
    session = JobSession(mouth, cancel)
    error: DrdError | None = None
    kind = subject = ""
    try:
        try:
            request = json.loads(line)
            kind, subject = str(request["kind"]), str(request["subject"])
            _prepare(session, request)
            words = [*_VERBS[kind], "--json", *map(str, request["options"]), subject]
            args = parse(words)
            with contextlib.redirect_stdout(said):
                code = int(args.run(args, session))
        finally:
            session.close()
    except DrdError as raised:
        error, code = raised, raised.exit_code
    except KeyboardInterrupt:
        error, code = Cancelled("interrupted"), Cancelled.exit_code
    except Exception as bug:  # noqa: BLE001  # the outermost place of the process: a bug, shown with its traceback
        import traceback

        traceback.print_exc(file=sys.stderr)
        error = DrdError(f"unexpected {type(bug).__name__}: {bug}", hint="this is a bug in drd: please report it")
        code = error.exit_code
    session.say_counts()
    document = _document(said.getvalue())
    if error is not None:
        session.log.error("verb.failed", **documents.error(error))
    if (pruned := _pruned(kind, document)) is not None:
        mouth.say("pruned", source=subject, **pruned)
    told = documents.error(error) if error is not None else _error_in(document)
    mouth.say(
        "report",
        exit_code=code,
        document=document,
        error=told,
        backup=_id_in(document, "backups", "id"),
        run=_id_in(document, "runs", "run"),
    )
    return code


def _prepare(session: JobSession, request: dict[str, Any]) -> None:
    """Give the session the configuration that the daemon validated, and ears to what it tells."""
    from drd.config import load_text

    if isinstance(folder := request.get("folder"), str):
        tempfile.tempdir = folder  # not looked for: what was wiped is made anew by whoever needs it
    config = load_text(str(request["config"]), Path(str(request["path"])))
    session.__dict__["config"] = config
    from drd import logs
    from drd.wiring_logs import mask_secrets
    from drd.wiring_notify import notifier_of

    session.log_format = logs.style_of(request.get("log_format"), sys.stderr)
    logs.bind(job=str(request.get("job", "")))
    mask_secrets(config)

    session.__dict__["notifier"] = _Overheard(notifier_of(config, session.cancel), session.mouth)


def _first_line() -> bytes:
    """Read the request, byte by byte: what comes behind it is the daemon's end."""
    line = bytearray()
    while (byte := os.read(0, 65536)) and not byte.endswith(b"\n"):
        line += byte
    if not byte:
        raise SystemExit(ConfigError.exit_code)
    return bytes(line + byte)


def _watch_daemon(cancel: CancelToken) -> None:
    """Cancel the work when the daemon is gone; end the process when that takes too long."""
    while os.read(0, 4096):
        pass
    cancel.cancel()
    time.sleep(ORPHAN_GRACE_S)
    os._exit(Cancelled.exit_code)


def _document(text: str) -> Json:
    try:
        document: Json = json.loads(text) if text else None
    except ValueError:
        return None
    return document


def _error_in(document: Json) -> Json:
    """Return the first error that a verb's document tells of, in the form of :func:`documents.error`."""
    if not isinstance(document, dict):
        return None
    for name in ("backups", "errors", "runs"):
        items = document.get(name)
        for item in items if isinstance(items, list) else []:
            found = _error_of(item) if isinstance(item, dict) else None
            if found is not None:
                return found
    pruned = document.get("prune")
    return _error_in(pruned) if isinstance(pruned, dict) else None


def _error_of(item: dict[str, Json]) -> Json:
    if "message" in item and "hint" in item:
        return item
    if isinstance(item.get("error"), dict):
        return item["error"]
    problems = item.get("problems")
    if isinstance(problems, list) and problems and isinstance(problems[0], dict):
        return {
            "message": f"{problems[0].get('subject')}: {problems[0].get('message')}",
            "hint": problems[0].get("effect"),
        }
    if item.get("verdict") in {"failed", "unverified"}:
        return {
            "message": f"the drill of {item.get('source')} is {item.get('verdict')}",
            "hint": f"drd drill show {item.get('run')}",
        }
    return None


def _pruned(kind: str, document: Json) -> dict[str, Json] | None:
    """Return what pruning came to, after a prune or a backup that was followed by one."""
    found = document.get("prune") if kind == "backup" and isinstance(document, dict) else document
    if kind not in {"backup", "prune"} or not isinstance(found, dict) or not found.get("applied"):
        return None
    keep, going = found.get("keep"), found.get("remove")
    if not isinstance(keep, list) or not isinstance(going, list):
        return None
    removed = sum(isinstance(item, dict) and bool(item.get("removed")) for item in going)
    return {"kept": len(keep), "removed": removed, "blocked": len(going) - removed}


def _id_in(document: Json, items: str, name: str) -> Json:
    found = document.get(items) if isinstance(document, dict) else None
    first = found[0] if isinstance(found, list) and found else None
    return first.get(name) if isinstance(first, dict) else None


if __name__ == "__main__":
    code = main()
    end(code)
    sys.exit(code)
