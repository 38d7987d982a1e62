"""What the daemon answers over HTTP: probes, metrics, the page, drill reports, the status as JSON; jobs on demand.

Everything is read from memory but drill reports, which are read from the store, two at a time. No handler waits for a
job. What it shows is handed in: this module knows HTTP and nothing else.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drd.daemon.model import Controls, Overview
from drd.daemon.readiness import Condition
from drd.daemon.web.gate import Gate
from drd.daemon.web.packing import WORTH_BYTES, packed, takes_gzip
from drd.daemon.web.settings import Access
from drd.drills.history import RecordedRun
from drd.drills.page import page as drill_page
from drd.errors import CatalogError, ConfigError, DrdError, LeaseError
from drd.model import Json
from drd.protocols import Clock
from drd.repository.layout import is_backup_id

PAGE_LASTS_S = 1.0
"""A page is made at most once in this time, however many ask for it."""
PATIENCE_S = 20.0
"""How long a client waits for what is read from the store."""
_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the application shows and does; every callable is thread-safe.

    ``page`` makes the HTML of an overview and ``policy`` the content security policy it needs; ``report`` finds a drill
    run in the store; ``status`` makes the document of ``drd status``; ``conditions`` are those of readiness.
    """

    overview: Callable[[], Overview]
    page: Callable[[Overview, datetime], str]
    policy: Callable[[], str]
    report: Callable[[str], RecordedRun]
    status: Callable[[Overview], Json]
    conditions: Callable[[], Sequence[Condition]]
    registry: CollectorRegistry
    controls: Controls
    access: Callable[[], Access]
    now: Clock


def application(shown: Shown) -> Starlette:
    """Make the ASGI application."""
    handlers = _Handlers(shown)
    app = Starlette(
        routes=[
            Route("/healthz", handlers.health),
            Route("/health", handlers.health),
            Route("/readyz", handlers.ready),
            Route("/ready", handlers.ready),
            Route("/metrics", handlers.metrics),
            Route("/", handlers.page),
            Route("/drills/{run}", handlers.report),
            Route("/api/status", handlers.status),
            Route("/api/jobs/{job:path}/run", handlers.run_job, methods=["POST"]),
            Route("/api/pause", handlers.pause, methods=["POST"]),
            Route("/api/resume", handlers.resume, methods=["POST"]),
        ],
        middleware=[Middleware(Gate, access=shown.access)],
        exception_handlers={DrdError: _failed, HTTPException: _refused, TimeoutError: _slow},
    )
    app.router.redirect_slashes = False  # a redirection would lead to whatever host the client named
    return app


class _Handlers:
    """The handlers, one an address."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._making = anyio.CapacityLimiter(4)
        self._reading = anyio.CapacityLimiter(2)
        self._page = _Memo(PAGE_LASTS_S, self._render)

    async def health(self, _request: Request) -> Response:
        """Say that the process lives and answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Say whether it can do its work, and if not, why; the reasons are for readers."""
        found = self._shown.conditions()
        ready = all(condition.ok for condition in found)
        trusted = request.state.trusted
        document: dict[str, Json] = {"ready": ready}
        for condition in found:
            document[condition.name] = {"ok": condition.ok} | (
                {"reason": condition.reason} if condition.reason and trusted else {}
            )
        return JSONResponse(document, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Give the metrics in the format that is asked for."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return await self._give(request, functools.partial(encode, self._shown.registry), {"content-type": media_type})

    async def page(self, request: Request) -> Response:
        """Give the page."""
        return await self._give(request, lambda: self._page().encode(), self._html())

    async def report(self, request: Request) -> Response:
        """Give the report of a drill run."""
        run_id: str = request.path_params["run"]
        if not is_backup_id(run_id):
            raise HTTPException(404, "that is no id of a drill run")
        with anyio.fail_after(PATIENCE_S):
            found = await run_sync(self._shown.report, run_id, abandon_on_cancel=True, limiter=self._reading)
        if found.run is None:
            raise HTTPException(404, f"the report cannot be read: {found.problem}")
        return await self._give(request, lambda: drill_page(found, home="../").encode(), self._html())

    async def status(self, _request: Request) -> Response:
        """Give what ``drd status --json`` gives, of the overview."""
        return JSONResponse(await self._make(lambda: self._shown.status(self._shown.overview())))

    async def run_job(self, request: Request) -> Response:
        """Plan a run of a job for this moment."""
        job: str = request.path_params["job"]
        self._shown.controls.run_now(job)
        return JSONResponse({"outcome": "planned", "job": job}, 202)

    async def pause(self, _request: Request) -> Response:
        """Stop planning new runs."""
        self._shown.controls.pause(paused=True)
        return JSONResponse({"outcome": "paused"})

    async def resume(self, _request: Request) -> Response:
        """Plan new runs again."""
        self._shown.controls.pause(paused=False)
        return JSONResponse({"outcome": "resumed"})

    def _render(self) -> str:
        return self._shown.page(self._shown.overview(), self._shown.now())

    def _html(self) -> dict[str, str]:
        return {"content-type": "text/html; charset=utf-8", "content-security-policy": self._shown.policy()}

    async def _give(self, request: Request, make: Callable[[], bytes], headers: dict[str, str]) -> Response:
        """Answer with what is made, packed beside the loop where that is worth it."""
        wanted = takes_gzip(request.headers.get("accept-encoding", ""))

        def made() -> Response:
            data = make()
            if wanted and len(data) >= WORTH_BYTES:
                return Response(
                    packed(data), headers={**headers, "vary": "accept-encoding", "content-encoding": "gzip"}
                )
            return Response(data, headers={**headers, "vary": "accept-encoding"})

        return await self._make(made)

    async def _make(self, make: Callable[[], _Made]) -> _Made:
        """Do what takes the processor a while beside the loop, so that probes are answered meanwhile."""
        return await run_sync(make, limiter=self._making)


class _Memo:
    """Makes a text and gives the same one for a while; of several that ask at once, one makes it. Thread-safe."""

    def __init__(self, lasts_s: float, make: Callable[[], str]) -> None:
        self._lasts_s = lasts_s
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[float, str] | None = None

    def __call__(self) -> str:
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] >= self._lasts_s:
                text = self._make()
                self._made = (time.monotonic(), text)
            return self._made[1]


async def _failed(_request: Request, error: Exception) -> Response:
    """Answer with an error of drd's own."""
    if not isinstance(error, DrdError):
        raise error
    status = 503 if error.retryable else 500
    if isinstance(error, (CatalogError, ConfigError)):
        status = 404
    elif isinstance(error, LeaseError):
        status = 409
    told: dict[str, Json] = {
        "code": error.code,
        "op": error.op,
        "subject": error.subject,
        "message": error.message,
        "hint": error.hint,
    }
    return JSONResponse({"error": told}, status)


async def _refused(_request: Request, error: Exception) -> Response:
    """Answer to what there is not."""
    if not isinstance(error, HTTPException):
        raise error
    told = {"code": f"http_{error.status_code}", "message": error.detail}
    return JSONResponse({"error": told}, error.status_code, headers=error.headers)


async def _slow(_request: Request, _error: Exception) -> Response:
    told = {"code": "store_unavailable", "message": f"the store has not answered within {PATIENCE_S:.0f} s"}
    return JSONResponse({"error": told}, 503)
