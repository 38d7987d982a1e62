"""Tell Alertmanager: every configured peer gets every event, and none of them can hold drd up or stop another.

Alertmanager's peers share what was notified, not the alerts, so a client posts to all of them. An alert is known by its
labels alone, and lives in memory until its ``endsAt``: a report must last long enough to be mailed (also over an outage
of the mail server), a state until the next run of drd says how it is now.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlencode

from drd.cancel import CancelToken
from drd.errors import Cancelled
from drd.events import Delivery, Event, PeerResult
from drd.model import CheckItem, Json
from drd.notify.peer import NO_ALERTMANAGER, Access, PeerFault, send

BASE_DELAY_S = 0.5
MAX_DELAY_S = 5.0
JOIN_GRACE_S = 1.0
RUN_PLACEHOLDER = "{run}"


@dataclass(frozen=True, slots=True)
class AlertmanagerSettings:
    """Where to post and how long to try.

    ``patience_s`` bounds all tries of all peers (they are told side by side); ``report_s`` and ``state_s`` say how long
    an alert lives. ``labels`` are added to each alert. ``link`` leads to a report, with ``{run}`` in place of its id.
    """

    urls: tuple[str, ...]
    access: Access
    patience_s: float = 30.0
    report_s: float = 6 * 3600
    state_s: float = 14 * 86400
    labels: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None


class AlertmanagerNotifier:
    """Posts events as alerts. Thread-safe; holds no connection between calls."""

    def __init__(
        self,
        settings: AlertmanagerSettings,
        *,
        now: Callable[[], datetime],
        cancel: CancelToken,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._now = now
        self._cancel = cancel
        self._rng = rng or random.Random()  # noqa: S311  jitter is no secret

    def notify(self, events: Sequence[Event]) -> Delivery:
        """Post all events to every peer in one request each; return when all were told or the patience is over.

        The end of a state goes only to those that hold the state, or mails would tell of ends without a beginning.
        Raises nothing: what failed is in the result. After an interruption each peer gets one try.
        """
        if not events:
            return Delivery()
        alerts: list[Json] = [self._alert(event) for event in events]
        return Delivery(len(events), self._of_each(lambda url: self._post(url, alerts)))

    def check(self) -> Sequence[CheckItem]:
        """Ask each peer how it is: a line a peer, failed only when none of them answers."""
        items: dict[str, CheckItem] = {}

        def look(url: str) -> PeerResult:
            try:
                detail = _standing(self._send(url, "GET", "/api/v2/status", None))
            except PeerFault as fault:
                items[url] = CheckItem(f"alertmanager {url}", "warning", fault.message, fault.hint)
                return PeerResult(url, "failed", 1, fault.message)
            items[url] = CheckItem(f"alertmanager {url}", "ok", detail)
            return PeerResult(url, "ok", 1)

        results = self._of_each(look)
        silent = [
            items.get(r.peer) or CheckItem(f"alertmanager {r.peer}", "warning", r.message, "is it overloaded?")
            for r in results
        ]
        if any(result.outcome == "ok" for result in results):
            return silent
        return [CheckItem(item.name, "failed", item.detail, item.hint) for item in silent]

    def _alert(self, event: Event) -> dict[str, Json]:
        settings, now = self._settings, self._now()
        lasts_s = settings.report_s if event.nature == "report" else settings.state_s
        ends_at = now + timedelta(seconds=lasts_s) if event.firing else now
        labels = {
            **settings.labels,
            **event.labels,
            "alertname": event.name,
            "drd": event.nature,
            "severity": event.severity,
        }
        annotations: dict[str, Json] = dict(event.annotations)
        alert: dict[str, Json] = {
            "labels": dict(labels),
            "startsAt": _text(min(event.at, ends_at) if event.firing else ends_at),
            "endsAt": _text(ends_at),
        }
        if event.run and settings.link:
            link = settings.link.replace(RUN_PLACEHOLDER, event.run)
            alert["generatorURL"] = link
            annotations["link"] = link
        return alert | {"annotations": annotations}

    def _of_each(self, work: Callable[[str], PeerResult]) -> tuple[PeerResult, ...]:
        """Work for every peer in a thread of its own, bounded in time whatever a peer does."""
        results: dict[str, PeerResult] = {}

        def run(url: str) -> None:
            results[url] = work(url)

        urls = self._settings.urls
        threads = [threading.Thread(target=run, args=(url,), name=f"notify {url}", daemon=True) for url in urls]
        deadline = time.monotonic() + self._bound_s() + JOIN_GRACE_S
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = f"no answer within {self._bound_s():.0f} s"
        return tuple(dict(results).get(url) or PeerResult(url, "failed", 1, late) for url in urls)

    def _bound_s(self) -> float:
        return max(self._settings.patience_s, self._settings.access.timeout_s)

    def _post(self, url: str, alerts: list[Json]) -> PeerResult:
        """Post until it succeeds, is refused for good, or the patience is over; full jitter between tries."""
        deadline = time.monotonic() + self._settings.patience_s
        attempt = 0
        while True:
            attempt += 1
            try:
                held = self._held(url, deadline) if any(map(_is_end, alerts)) else ()
                wanted: list[Json] = [alert for alert in alerts if not _is_end(alert) or _labels(alert) in held]
                if wanted:
                    self._send(url, "POST", "/api/v2/alerts", wanted, deadline=deadline)
            except PeerFault as fault:
                delay_s = self._rng.uniform(0, min(MAX_DELAY_S, BASE_DELAY_S * 2 ** min(attempt - 1, 10)))
                failed = PeerResult(url, "failed", attempt, f"{fault.message} ({fault.hint})")
                if not fault.retryable or time.monotonic() + delay_s >= deadline:
                    return failed
                try:
                    self._cancel.sleep(delay_s)
                except Cancelled:
                    return failed
                continue
            return PeerResult(url, "ok", attempt)

    def _held(self, url: str, deadline: float) -> list[Json]:
        """Return the labels of each state of drd that the peer holds, silenced ones too."""
        question = urlencode({"filter": 'drd="state"'})
        found = self._send(url, "GET", f"/api/v2/alerts?{question}", None, deadline=deadline)
        if not isinstance(found, list):
            raise PeerFault("answered something that is no list of alerts", hint=NO_ALERTMANAGER, retryable=False)
        return [_labels(alert) for alert in found]

    def _send(self, url: str, method: str, path: str, document: Json, *, deadline: float | None = None) -> Json:
        access = self._settings.access
        left = access.timeout_s if deadline is None else max(0.5, deadline - time.monotonic())
        answer: Json = send(url, access, method, path, document, timeout_s=min(access.timeout_s, left))
        return answer


def _is_end(alert: Json) -> bool:
    return isinstance(alert, dict) and alert["startsAt"] == alert["endsAt"]


def _labels(alert: Json) -> Json:
    return alert.get("labels") if isinstance(alert, dict) else None


def _standing(status: Json) -> str:
    """Say version and cluster from the answer to a status request; a foreign answer is a fault."""
    version = status.get("versionInfo") if isinstance(status, dict) else None
    cluster = status.get("cluster") if isinstance(status, dict) else None
    if not isinstance(version, dict) or not isinstance(cluster, dict):
        raise PeerFault("answered something that is no status of it", hint=NO_ALERTMANAGER, retryable=False)
    peers = cluster.get("peers")
    count = f", {len(peers)} in its cluster" if isinstance(peers, list) and peers else ""
    return f"version {version.get('version', 'unknown')}, cluster {cluster.get('status', 'unknown')}{count}"


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
