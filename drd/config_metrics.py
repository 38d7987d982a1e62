"""The ``metrics`` section: where a verb leaves its numbers when no daemon is there to be asked."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from drd.config_alertmanager import Peer
from drd.config_values import Duration, FilePath, SecretField, Section, Text, refuse

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TAKEN = frozenset({"job", "source", "drill", "verdict", "phase", "engine", "operation", "outcome", "direction"})
MOST_LABELS = 6


def _grouping(labels: dict[str, str]) -> dict[str, str]:
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or name.startswith("__"):
            raise ValueError(f"{name[:40]!r}: allowed: names of letters, digits and underscore")
        if name in _TAKEN:
            raise ValueError(f"{name}: drd sets this label itself")
        if not value.isprintable() or len(value) > 200:
            raise ValueError(f"{name}: allowed: one line of at most 200 characters")
    if len(labels) > MOST_LABELS:
        raise ValueError(f"allowed: at most {MOST_LABELS} labels")
    return labels


class PushgatewayConfig(Section):
    """A Pushgateway that verbs push to. It cannot stop drd."""

    url: Peer = Field(description="Where it is, http://host:9091 (with its --web.route-prefix).")
    job: Text = Field(
        default="drd",
        description="The job of what is pushed. CronJobs that do different things push under names of their own.",
    )
    labels: Annotated[dict[str, str], AfterValidator(_grouping)] = Field(
        default_factory=dict, description="More labels of the group, such as instance."
    )
    username: Text | None = Field(default=None, description="User for basic authentication.")
    credentials: SecretField | None = Field(
        default=None, description="Password of the user; without a user, a bearer token."
    )
    ca_file: FilePath | None = Field(
        default=None, description="Certificate authority for https. Default: the system's."
    )
    timeout: Duration = Field(default=timedelta(seconds=10), description="How long to wait for its answer.")

    @model_validator(mode="after")
    def _fits_together(self) -> PushgatewayConfig:
        problems: dict[str, str] = {}
        if self.username is not None and self.credentials is None:
            problems["credentials"] = "required: the password of username"
        if self.ca_file is not None and not self.url.startswith("https:"):
            problems["ca_file"] = "has no effect without TLS; write url with https://"
        refuse(problems)
        return self


class MetricsConfig(Section):
    """Metrics of backup now, drill now, verify and prune, run by hand or by a CronJob."""

    textfile: FilePath | None = Field(
        default=None, description="File for node_exporter's textfile collector (*.prom), written when the verb is done."
    )
    pushgateway: PushgatewayConfig | None = Field(default=None, description="Pushgateway to push them to.")

    @model_validator(mode="after")
    def _fits_together(self) -> MetricsConfig:
        if self.textfile is not None and self.textfile.suffix != ".prom":
            refuse({"textfile": "allowed: a name that ends in .prom, or node_exporter passes it over"})
        return self
