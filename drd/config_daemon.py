"""The shape of ``schedules`` and ``daemon``: what is done again and again, and by what kind of daemon."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from drd.config_timing import TimedSection, TimeZone
from drd.config_values import (
    Count,
    Duration,
    FilePath,
    SecretField,
    Section,
    Text,
    its_defaults,
    parse_amount,
    refuse,
)
from drd.timing import LONGEST_LEASE

_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]/\s]+):(?P<port>\d{1,5})|unix:(?P<path>/\S+)")


def _listen(text: str) -> str:
    match = _LISTEN.fullmatch(text)
    if match is None or (match["port"] and int(match["port"]) > 65535):
        raise ValueError("allowed: host:port such as 127.0.0.1:8088, [::1]:8088, or unix:/path")
    return text


def _amount(text: str) -> str:
    try:
        good = parse_amount(text)[1] > 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("allowed: a share such as 5%, a size such as 10GiB, or a time such as 15m")
    return text


Listen: TypeAlias = Annotated[
    str,
    AfterValidator(_listen),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8088"]}),
]
Amount: TypeAlias = Annotated[
    str, AfterValidator(_amount), WithJsonSchema({"type": "string", "examples": ["5%", "10GiB", "15m"]})
]


class ScheduleConfig(TimedSection):
    """What the daemon does again and again; each source is a job of its own."""

    do: Literal["backup", "prune", "verify"] = Field(default="backup", description="What: backup, prune or verify.")
    sources: tuple[Text, ...] = Field(default=(), description="Which sources. Default: all of the configuration.")
    kind: Literal["auto", "full", "incremental"] | None = Field(
        default=None, description="Of backups: as drd backup now --kind. Default: auto."
    )
    sample: Amount | None = Field(
        default=None, description="Of verify: how much each run reads back, as drd verify --sample. Default: 5%."
    )
    deadline: Duration | None = Field(
        default=None,
        description="When a run is ended by force. Default: the source's deadline and 10 minutes, or 6 hours.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ScheduleConfig:
        problems = self._timing_problems()
        if self.cron is None and self.interval is None:
            problems["cron"] = "required: cron or interval"
        if self.kind is not None and self.do != "backup":
            problems["kind"] = f"has no effect with do: {self.do}"
        if self.sample is not None and self.do != "verify":
            problems["sample"] = f"has no effect with do: {self.do}"
        refuse(problems)
        return self


class RetryConfig(Section):
    """When a job that failed is tried again: after random waits that double, and that survive a restart."""

    first: Duration = Field(default=timedelta(minutes=1), description="About how long after the first failure.")
    longest: Duration = Field(default=timedelta(hours=1), description="The longest wait.")
    attempts: Annotated[Count, Field(ge=0, le=1000)] = Field(
        default=8, description="How often at most, before it waits for the next planned run. 0: never."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> RetryConfig:
        if self.longest < self.first:
            refuse({"longest": "allowed: not shorter than first"})
        return self


class TlsConfig(Section):
    """Certificate and key of the page."""

    cert_file: FilePath = Field(description="Certificate with its chain, PEM.")
    key_file: FilePath = Field(description="Its private key, PEM.")


class DaemonConfig(Section):
    """``drd daemon``: what runs for years beside the databases."""

    listen: Listen = Field(
        default="127.0.0.1:8088", description="Where health, metrics and the page are served: host:port or unix:/path."
    )
    state_dir: FilePath | None = Field(
        default=None,
        description="Folder for temporary files; it may be lost at any time. Default: $STATE_DIRECTORY, else none.",
    )
    concurrency: Annotated[Count, Field(ge=1, le=64)] = Field(default=2, description="Most jobs at once.")
    time_zone: TimeZone = Field(default="UTC", description="Zone of cron lines that name none.")
    grace: Duration = Field(
        default=timedelta(minutes=1), description="How long jobs may go on when the daemon is told to end (SIGTERM)."
    )
    heartbeat: Duration = Field(
        default=timedelta(minutes=1), description="How often the store is asked whether it is there, and for news."
    )
    lease: Duration = Field(
        default=timedelta(minutes=1),
        description="How long a lease lives that nobody renews. A dead holder blocks others for half as much again.",
    )
    retry: RetryConfig = Field(default_factory=its_defaults, description="When a job that failed is tried again.")
    hosts: tuple[Text, ...] = Field(
        default=(),
        description="Names by which the server may be asked for, besides localhost: those of a reverse proxy, say. "
        "On loopback others are refused; elsewhere any will do unless some are given here.",
    )
    token: SecretField | None = Field(
        default=None, description="Bearer token for reading: page and metrics. Default: none is asked for."
    )
    control_token: SecretField | None = Field(
        default=None, description="Bearer token for running jobs and pausing over HTTP. Default: nobody may."
    )
    tls: TlsConfig | None = Field(default=None, description="Serve https. Default: http.")
    textfile: FilePath | None = Field(
        default=None, description="File that metrics are written to, for node_exporter's textfile collector (*.prom)."
    )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        host = self.listen.rpartition(":")[0].strip("[]")
        return self.listen.startswith("unix:") or host in {"localhost", "::1"} or host.startswith("127.")

    @model_validator(mode="after")
    def _fits_together(self) -> DaemonConfig:
        problems: dict[str, str] = {}
        if not timedelta(seconds=1) <= self.lease <= LONGEST_LEASE:
            problems["lease"] = "allowed: 1s to 15m"
        if self.heartbeat < timedelta(seconds=1):
            problems["heartbeat"] = "allowed: 1s or more"
        if self.tls is not None and self.listen.startswith("unix:"):
            problems["tls"] = "has no effect on a unix socket"
        if self.textfile is not None and self.textfile.suffix != ".prom":
            problems["textfile"] = "allowed: a name that ends in .prom, or node_exporter passes it over"
        refuse(problems)
        return self
