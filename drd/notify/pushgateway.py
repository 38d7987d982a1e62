"""Hand metrics to a Prometheus Pushgateway, for work that no scraper can wait for.

Source: the Pushgateway's README (API): ``POST /metrics/job/<job>{/<label>/<value>}`` replaces the metrics of the same
names in that group and leaves the others, a value with a slash (or an empty one) goes as ``<label>@base64/<value>`` in
URL-safe base64; it answers 200 or 202, and 400 for what it finds inconsistent.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from drd.notify.peer import Access, exchange, refusal

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NO_PUSHGATEWAY = "is the URL that of a Pushgateway, with its --web.route-prefix?"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where to, and the group that what is pushed belongs to: ``job`` and more labels."""

    url: str
    access: Access
    job: str = "drd"
    labels: Mapping[str, str] = field(default_factory=dict)

    def push(self, metrics: bytes) -> None:
        """Push metrics in the text format; raises :class:`~drd.notify.peer.PeerFault` when they did not arrive."""
        path = "/metrics" + "".join(_labelled(*pair) for pair in (("job", self.job), *self.labels.items()))
        timeout_s = self.access.timeout_s
        status, data = exchange(self.url, self.access, "POST", path, metrics, _CONTENT_TYPE, timeout_s=timeout_s)
        if status // 100 != 2:
            raise refusal(status, data, self.access, _NO_PUSHGATEWAY, "see the log of the Pushgateway")


def _labelled(name: str, value: str) -> str:
    if value and "/" not in value:
        return f"/{name}/{quote(value, safe='')}"
    return f"/{name}@base64/{base64.urlsafe_b64encode(value.encode()).decode('ascii') or '='}"
