"""The ``alertmanager`` section: who is told how backups and drills went."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from drd.config_urls import HttpUrl, mask_url
from drd.config_values import Duration, FilePath, SecretField, Section, Text, refuse
from drd.events import LABEL_NAME, MAX_LABEL_CHARACTERS, RESERVED_LABELS

MAX_OWN_LABELS = 6
MAX_PEERS = 16
MIN_REPORT = timedelta(minutes=5)


def _peer(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        raise ValueError(f"{mask_url(url)}: allowed: a URL without user; give username and password by their own keys")
    return url


def _link(url: str) -> str:
    if not url.startswith(("http://", "https://")) or not url.isprintable() or " " in url:
        raise ValueError("allowed: an http(s) URL, with {run} where the id of the run goes")
    return url


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_OWN_LABELS:
        raise ValueError(f"allowed: at most {MAX_OWN_LABELS} labels")
    for name, value in labels.items():
        if not LABEL_NAME.fullmatch(name) or name.startswith("__"):
            raise ValueError(f"{name[:40]!r}: allowed: names of letters, digits and underscore")
        if name in RESERVED_LABELS:
            raise ValueError(f"{name}: drd sets this label itself")
        if not value or len(value) > MAX_LABEL_CHARACTERS or not value.isprintable():
            raise ValueError(f"{name}: allowed: one line of at most {MAX_LABEL_CHARACTERS} characters")
    return labels


Peer: TypeAlias = Annotated[HttpUrl, AfterValidator(_peer)]
Link: TypeAlias = Annotated[
    str, AfterValidator(_link), WithJsonSchema({"type": "string", "pattern": "^https?://[^ ]+$"})
]


class AlertmanagerConfig(Section):
    """Alertmanagers that are told of failed, shrunken and good backups, and of drills. None of them can stop drd."""

    urls: Annotated[tuple[Peer, ...], Field(min_length=1, max_length=MAX_PEERS)] = Field(
        description="Every peer of the cluster, http://host:9093 (with its --web.route-prefix); all of them are told."
    )
    username: Text | None = Field(default=None, description="User for basic authentication.")
    credentials: SecretField | None = Field(
        default=None, description="Password of the user; without a user, a bearer token."
    )
    ca_file: FilePath | None = Field(
        default=None, description="Certificate authority for https. Default: the system's."
    )
    timeout: Duration = Field(default=timedelta(seconds=5), description="How long to wait for one answer.")
    patience: Duration = Field(
        default=timedelta(seconds=30), description="How long telling is retried in all; drd ends that much later."
    )
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(
        default_factory=dict, description="Labels of your own on every alert, such as site; to route by."
    )
    report_for: Duration = Field(
        default=timedelta(hours=6),
        description="How long a drill's report stays an alert: the longest outage of the mail server it survives.",
    )
    state_for: Duration = Field(
        default=timedelta(days=14),
        description="How long a failure stays an alert when drd never says more; longer than your rarest schedule.",
    )
    link: Link | None = Field(
        default=None, description="Where your reports can be read, with {run} in place of the id. Default: no link."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> AlertmanagerConfig:
        problems: dict[str, str] = {}
        if self.username is not None and self.credentials is None:
            problems["credentials"] = "required: the password of username"
        if self.ca_file is not None and not any(url.startswith("https:") for url in self.urls):
            problems["ca_file"] = "has no effect without TLS; write urls with https://"
        if self.patience < self.timeout:
            problems["patience"] = "allowed: at least timeout"
        if self.report_for < MIN_REPORT:
            problems["report_for"] = "allowed: at least 5m, or Alertmanager may drop the report before it is mailed"
        if len(set(self.urls)) != len(self.urls):
            problems["urls"] = "a peer is named twice"
        refuse(problems)
        return self
