"""Keeps the HTTP server running beside the daemon, through reloads, and the textfile of metrics up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from prometheus_client.exposition import generate_latest

from drd.daemon.lifecycle import Daemon
from drd.daemon.metrics import DrdCollector, registry_of
from drd.daemon.model import Overview
from drd.daemon.numbers import Numbers
from drd.daemon.readiness import Condition, conditions
from drd.daemon.textfile import write_textfile
from drd.daemon.web.app import Shown, application
from drd.daemon.web.kept import KeptRows
from drd.daemon.web.page import content_security_policy, render
from drd.daemon.web.server import WebServer
from drd.daemon.web.settings import Place
from drd.drills.history import History, RecordedRun
from drd.errors import DrdError
from drd.model import Json

_TEXTFILE_EVERY_S = 15.0
_CERTIFICATE_EVERY_S = 60.0
_AGAIN_EVERY_S = 10.0
_ROWS_EVERY_S = 60.0
"""How often the rows of the page are made for nobody: ages on it are as old at most, and who asks need not wait."""
_log = structlog.get_logger("drd.daemon")


class Serving:
    """A context manager: serves while it is entered. ``adopt`` and ``tick`` are called by the thread that entered it.

    ``status`` makes the document of ``drd status --json`` of an overview.
    """

    def __init__(self, daemon: Daemon, numbers: Numbers, status: Callable[[Overview], Json]) -> None:
        self._daemon = daemon
        self._numbers = numbers
        collector = DrdCollector(daemon.overview, numbers)
        self._plain = registry_of(collector, process=False)
        self._app = application(
            Shown(
                overview=daemon.overview,
                page=self._page,
                policy=content_security_policy,
                report=self._report,
                status=status,
                conditions=self._conditions,
                registry=registry_of(collector, process=True),
                controls=daemon.desk,
                access=lambda: daemon.world.web.access,
                now=self._now,
            )
        )
        self._place = daemon.world.web.place
        self._server = WebServer(self._app, self._place)
        self._textfile_due_s = self._certificate_due_s = self._again_due_s = 0.0
        self._unwritten = ""
        self._rows_due_s = 0.0
        self._kept = KeptRows()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def place(self) -> Place:
        """Where it serves."""
        return self._server.place

    def adopt(self) -> str:
        """Serve where the configuration in force says; return why that cannot be, and go on as before, or nothing."""
        wanted, before = self._daemon.world.web.place, self._place
        if wanted == before:
            return ""
        refusal = self._move(wanted)
        if refusal:
            self._move(before)  # and where that is taken meanwhile, tick() tries again
        return refusal

    def _move(self, place: Place) -> str:
        """Serve at another place, or nowhere for now; return why not."""
        self._server.close()
        self._place = place
        try:
            self._server = WebServer(self._app, place)
            self._start()
        except DrdError as error:
            _log.error("http.refused", reason=error.message, hint=error.hint)
            return error.message
        return ""

    def tick(self) -> None:
        """Do what is due: serve again, look for a renewed certificate, write the textfile. Called once a second.

        Once something is known, the page is made for nobody now and then, so that who asks need not wait for it.
        """
        now_s = time.monotonic()
        if now_s >= self._rows_due_s and (overview := self._daemon.overview()).known:
            self._rows_due_s = now_s + _ROWS_EVERY_S
            fresh = KeptRows()
            render(overview, self._now(), kept=fresh)
            self._kept = fresh
        if not self._server.alive and now_s >= self._again_due_s:
            self._again_due_s = now_s + _AGAIN_EVERY_S
            self._move(self._place)
        if now_s >= self._certificate_due_s:
            self._certificate_due_s = now_s + _CERTIFICATE_EVERY_S
            self._renew()
        if now_s >= self._textfile_due_s and self._daemon.world.web.textfile is not None:
            self._textfile_due_s = now_s + _TEXTFILE_EVERY_S
            self._write(self._daemon.world.web.textfile)

    def _start(self) -> None:
        self._server.start()
        _log.info("http.started", place=str(self._server.place))

    def _renew(self) -> None:
        try:
            if self._server.renew_certificate():
                _log.info("http.renewed", place=str(self._server.place))
        except DrdError as error:
            _log.error("http.refused", reason=error.message, hint=error.hint)

    def _write(self, path: Path) -> None:
        try:
            write_textfile(path, generate_latest(self._plain))
        except DrdError as error:
            if self._unwritten != error.message:
                _log.error("metrics.unsent", reason=error.message, hint=error.hint)
            self._unwritten = error.message
        else:
            self._unwritten = ""

    def _now(self) -> datetime:
        return self._daemon.world.ports.now()

    def _page(self, overview: Overview, now: datetime) -> str:
        return render(overview, now, kept=self._kept)

    def _report(self, run_id: str) -> RecordedRun:
        ports = self._daemon.world.ports
        return History(ports.store, ports.catalog.signing).find(run_id)

    def _conditions(self) -> Sequence[Condition]:
        daemon = self._daemon
        return conditions(
            daemon.desk.board(),
            silent_s=daemon.heart.silent_s,
            store_error=daemon.heart.store_error,
            heartbeat_s=daemon.world.heartbeat_s,
        )
