"""What the daemon is made of, as a configuration and systemd have it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drd.cancel import CancelToken
from drd.config import Config, load_text, read_text
from drd.config_daemon import ScheduleConfig, TlsConfig
from drd.config_drills import DrillConfig
from drd.config_values import SecretRef
from drd.counts import StoreCounts
from drd.daemon.model import Job, JobKind, Plan
from drd.daemon.overview import Watched
from drd.daemon.planning import Rules
from drd.daemon.web.gate import hosts_of
from drd.daemon.web.settings import Access, Place, WebSettings
from drd.daemon.world import World
from drd.drills.suite import DEFAULT_NAME
from drd.errors import ConfigError
from drd.logs import Format
from drd.model import Json, Notice, Secret
from drd.timing import Timing, longest_gap_s
from drd.wiring import Services
from drd.wiring_logs import mask_secrets
from drd.wiring_notify import notifier_of

JOB_ARGV = (sys.executable, "-m", "drd.cli.job")
MARGIN_S = 600.0
"""A job's process may take so much longer than the source's own deadline: for its end, and for prune."""
OTHER_DEADLINE_S = 6 * 3600.0
SAMPLE = "5%"
SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Service:
    """What systemd tells the service by its environment (systemd.exec(5), sd_notify(3)); empty or 0 without it."""

    notify_socket: str
    watchdog_s: float
    state_dir: Path | None

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Service:
        """Read it."""
        usec = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        folder = environ.get("STATE_DIRECTORY", "").split(":")[0]
        return cls(
            environ.get("NOTIFY_SOCKET", ""),
            int(usec) / 1e6 if mine and usec.isascii() and usec.isdigit() else 0.0,
            Path(folder) if folder else None,
        )


def job_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a job's process: the daemon's own, without what systemd meant for the daemon alone."""
    own = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: value for name, value in environ.items() if name not in own}


def load_world(
    path: Path, service: Service, counts: StoreCounts, cancel: CancelToken, log_format: Format | None = None
) -> World:
    """Read, validate and wire a configuration as a whole; raises ConfigError, and then nothing was opened.

    ``log_format`` is in which form jobs log; None: as the daemon does by itself.
    """
    text = read_text(path)
    config = load_text(text, path, check_references=True)
    mask_secrets(config)
    return world_of(config, text, path, service, counts, cancel, log_format)


def world_of(
    config: Config,
    text: str,
    path: Path,
    service: Service,
    counts: StoreCounts,
    cancel: CancelToken,
    log_format: Format | None = None,
) -> World:
    """Wire a configuration; ``text`` and ``path`` are what it was read from, for the processes of jobs."""
    settings = config.daemon
    services = Services(config, cancel=cancel, progress=lambda _: None, counts=counts)
    state_dir = settings.state_dir or service.state_dir
    folder = state_dir / "tmp" if state_dir else None
    place = str(path.absolute())

    def request(plan: Plan) -> dict[str, Json]:
        return {
            "config": text,
            "path": place,
            "kind": plan.job.kind,
            "subject": plan.job.subject,
            "options": list(plan.options),
            "job": plan.job.name,
            "log_format": log_format,
        }

    return World(
        plans=tuple(plans_of(config)),
        rules=Rules(
            first_s=settings.retry.first.total_seconds(),
            longest_s=settings.retry.longest.total_seconds(),
            attempts=settings.retry.attempts,
        ),
        concurrency=settings.concurrency,
        grace_s=settings.grace.total_seconds(),
        heartbeat_s=settings.heartbeat.total_seconds(),
        lease_ttl_s=settings.lease.total_seconds(),
        ports=services.ports,
        notifier=notifier_of(config, cancel),
        watched=watched_of(config),
        drills=tuple(config.drills) or (DEFAULT_NAME,),
        drilled={name: drill.sources or tuple(config.sources) for name, drill in config.drills.items()},
        argv=JOB_ARGV,
        environ=job_environment(),
        folder=folder,
        request=request,
        configured_at=services.ports.now(),
        close=services.close,
        web=web_settings(config),
        notices=tuple(Notice("config", text) for text in config.warnings),
        look_at_folder=lambda: folder_notice(folder),
    )


def folder_notice(folder: Path | None) -> Notice | None:
    """Say that no job can run, since the folder of their temporary files cannot be used; None while it can.

    No reason to refuse the configuration: a disk that is full or not mounted yet may be there at the hour.
    """
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        text = (
            f"daemon.state_dir: nothing can be written to {folder}: {error.strerror or error}; "
            "no job can run while that is so"
        )
        return Notice("state-dir", text)


def plans_of(config: Config) -> list[Plan]:
    """Return every job of a configuration: each schedule with each of its sources, each drill that has its times."""
    out: list[Plan] = []
    zone = config.daemon.time_zone
    for name, schedule in config.schedules.items():
        timing = schedule.timing(zone)
        if timing is None:
            continue
        for source in dict.fromkeys(schedule.sources or config.sources):
            deadline_s = _deadline_s(config, schedule, source)
            out += [_plan(schedule.do, name, source, timing, deadline_s, _options(schedule))]
    for name, drill in config.drills.items():
        timing = drill.timing(zone)
        if timing is not None:
            out.append(_plan("drill", name, name, timing, _drill_deadline_s(config, drill), ()))
    return out


def web_settings(config: Config) -> WebSettings:
    """Say where and to whom the daemon shows itself; raises ConfigError for a token that can be guessed."""
    settings = config.daemon
    place = place_of(settings.listen, settings.tls)
    hosts = None if place.unix else hosts_of(place.host, settings.hosts)
    token, control = (_token(ref) for ref in (settings.token, settings.control_token))
    access = Access(token=token, control_token=control, hosts=hosts)
    return WebSettings(place=place, access=access, textfile=settings.textfile)


def place_of(listen: str, tls: TlsConfig | None) -> Place:
    """Return where ``daemon.listen`` is."""
    if listen.startswith("unix:"):
        return Place(unix=Path(listen.removeprefix("unix:")))
    host, _, port = listen.rpartition(":")
    return Place(
        host=host.strip("[]"),
        port=int(port),
        cert_file=tls.cert_file if tls else None,
        key_file=tls.key_file if tls else None,
    )


def _token(reference: SecretRef | None) -> Secret | None:
    if reference is None:
        return None
    token = reference.resolve()
    if len(token.reveal()) < SHORTEST_TOKEN or not token.reveal().isascii():
        raise ConfigError(
            f"{reference.where}: the token can be guessed: allowed are {SHORTEST_TOKEN} characters of ASCII or more",
            hint="make one with: openssl rand -hex 32",
        )
    return token


def watched_of(config: Config) -> tuple[Watched, ...]:
    """Return the configured sources as the overview knows them."""
    return tuple(
        Watched(name, source.type, source.rpo.total_seconds() if source.rpo else None)
        for name, source in config.sources.items()
    )


def _plan(
    kind: JobKind, schedule: str, subject: str, timing: Timing, deadline_s: float, options: tuple[str, ...]
) -> Plan:
    name = f"drill/{schedule}" if kind == "drill" else f"{kind}/{schedule}/{subject}"
    job = Job(name=name, kind=kind, schedule=schedule, subject=subject, longest_gap_s=longest_gap_s(timing))
    return Plan(job=job, timing=timing, deadline_s=deadline_s, options=options)


def _deadline_s(config: Config, schedule: ScheduleConfig, source: str) -> float:
    if schedule.deadline is not None:
        return schedule.deadline.total_seconds()
    if schedule.do == "backup":
        return config.sources[source].deadline.total_seconds() + MARGIN_S
    return OTHER_DEADLINE_S


def _drill_deadline_s(config: Config, drill: DrillConfig) -> float:
    """Return the sum of the budgets of its runs: of each source, each kind of choice."""
    runs = max(len(drill.sources or config.sources), 1) * len(drill.select)
    return runs * drill.budgets.time.total_seconds() + MARGIN_S


def _options(schedule: ScheduleConfig) -> tuple[str, ...]:
    if schedule.do == "backup":
        return ("--kind", schedule.kind or "auto")
    return ("--sample", schedule.sample or SAMPLE) if schedule.do == "verify" else ("--apply",)
