"""The daemon's jobs as CronJobs of Kubernetes, where a cluster's scheduler is to spread them. Pure: values to values.

A job gets the share of its schedule's jitter that the daemon would give it, so that hundreds of one schedule do not
start in one minute. The chart (helm/drd, ``mode: cronjob``) lays them the same way; a test compares the two.
Outside facts: CronJob v1 of batch, and its cron lines (robfig/cron v3: Sunday is 0, no 7).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drd.daemon.model import JobKind, Plan
from drd.errors import ConfigError
from drd.model import Json
from drd.timing import Cron, Timing, share_of

USER_ID = 10001
"""Of drd's image."""
CONFIG_PATH = "/etc/drd/drd.yaml"
_MAX_NAME = 52  # of a CronJob: its Jobs get eleven characters more
_MIN_STARTING_DEADLINE_S = 60.0  # the cluster looks every ten seconds, and may be late
_VERBS: dict[JobKind, tuple[str, ...]] = {
    "backup": ("backup", "now"),
    "prune": ("prune",),
    "verify": ("verify",),
    "drill": ("drill", "now"),
}
_HOPELESS: list[Json] = [2, 10, 20, 21]
"""Exit codes that trying again cannot mend: configuration, no such backup, damage, a failed drill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the CronJobs go and what they refer to.

    ``secret`` gives its keys as variables; ``files`` are secrets by the folder that they are mounted at. ``variables``
    are given as they are.
    """

    image: str
    namespace: str
    config_map: str
    secret: str = ""
    files: Mapping[str, str]
    service_account: str = ""
    prefix: str = "drd"
    variables: Mapping[str, str]


def cron_jobs(plans: Iterable[Plan], place: Place) -> list[dict[str, Json]]:
    """Return a CronJob for each plan; raises ConfigError for an interval, and where two would have one name."""
    found: dict[str, Plan] = {}
    out: list[dict[str, Json]] = []
    for plan in plans:
        job = plan.job
        if plan.timing.cron is None:
            raise ConfigError(
                f"{_path(plan)}.interval: Kubernetes' CronJobs know no intervals",
                hint="write a cron line, or let drd daemon run it",
            )
        words = (place.prefix, job.kind, job.schedule) + ((job.subject,) if job.kind != "drill" else ())
        name = name_of(words)
        if name in found:
            raise ConfigError(
                f"{found[name].job.name} and {job.name} would both be the CronJob {name}", hint="rename one of them"
            )
        found[name] = plan
        out.append(_cron_job(name, plan, plan.timing.cron, place))
    return out


def name_of(words: Sequence[str]) -> str:
    """Return words as a name that Kubernetes takes; those that had to be changed end in six digits of their own."""
    full = "-".join(words)
    name = re.sub(r"[^a-z0-9-]+", "-", full).removesuffix("-")
    if name == full and len(name) <= _MAX_NAME:
        return name
    return f"{name[:45].removesuffix('-')}-{hashlib.sha256(full.encode()).hexdigest()[:6]}"


def line_of(cron: Cron, job: str, timing: Timing) -> str:
    """Return the cron line of a job, moved by its own share of the jitter.

    Moved are: one time of the day, into the next day where every day is meant; the minute of an every-hour line, around
    the hour; of other lines the minutes, as far as the hour lasts.
    """
    minutes, hours = cron.minutes, cron.hours
    by = int(int(timing.jitter_s) // 60 * share_of(job))
    every_day = not cron.days and not cron.weekdays and len(cron.months) == 12
    if len(minutes) == 1 and cron.every_hour and every_day:
        minutes = ((minutes[0] + by) % 60,)
    elif len(minutes) == 1 and len(hours) == 1:
        at = 60 * hours[0] + minutes[0] + by
        at = at % 1440 if every_day else min(at, 1439)
        hours, minutes = (at // 60,), (at % 60,)
    else:
        by = min(by, 59 - minutes[-1])
        minutes = tuple(minute + by for minute in minutes)
    return " ".join(
        (
            _field(minutes, 60),
            _field(hours, 24),
            _field(cron.days, 0),
            _field(cron.months, 12),
            _field(cron.weekdays, 0),
        )
    )


def _field(numbers: tuple[int, ...], whole: int) -> str:
    """Write a field; ``whole`` is how many numbers are all of them, which none at all are too."""
    if not numbers or len(numbers) == whole:
        return "*"
    if len(numbers) > 2 and all(later - earlier == 1 for earlier, later in pairwise(numbers)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))


def _path(plan: Plan) -> str:
    return f"{'drills' if plan.job.kind == 'drill' else 'schedules'}.{plan.job.schedule}"


def _cron_job(name: str, plan: Plan, cron: Cron, place: Place) -> dict[str, Json]:
    labels: dict[str, Json] = {
        "app.kubernetes.io/name": "drd",
        "app.kubernetes.io/instance": place.prefix,
        "app.kubernetes.io/component": plan.job.kind,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": name,
            "namespace": place.namespace,
            "labels": dict(labels),
            "annotations": {"drd/job": plan.job.name},
        },
        "spec": {
            "schedule": line_of(cron, plan.job.name, plan.timing),
            "timeZone": plan.timing.zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": math.ceil(max(_MIN_STARTING_DEADLINE_S, plan.timing.grace_s)),
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": {"labels": dict(labels)},
                "spec": {
                    "backoffLimit": 2,
                    "activeDeadlineSeconds": math.ceil(plan.deadline_s),
                    "podFailurePolicy": _failure_policy(),
                    "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(plan, place)},
                },
            },
        },
    }


def _failure_policy() -> dict[str, Json]:
    hopeless: dict[str, Json] = {"containerName": "drd", "operator": "In", "values": _HOPELESS}
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": hopeless, "onPodConditions": []},  # 1.25 wants the empty list
        ]
    }


def _pod(plan: Plan, place: Place) -> dict[str, Json]:
    mounted: list[Json] = [
        {"name": _volume(name), "mountPath": path, "readOnly": True} for path, name in place.files.items()
    ]
    secret_volumes: list[Json] = [
        {"name": _volume(name), "secret": {"secretName": name, "defaultMode": 0o440}} for name in place.files.values()
    ]
    container: dict[str, Json] = {
        "name": "drd",
        "image": place.image,
        "args": [*_VERBS[plan.job.kind], *plan.options, plan.job.subject],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "drd-config", "mountPath": CONFIG_PATH, "subPath": "drd.yaml", "readOnly": True},
            {"name": "drd-spool", "mountPath": "/var/spool/drd"},
            {"name": "drd-state", "mountPath": "/var/lib/drd"},
            *mounted,
        ],
    }
    if place.secret:
        container["envFrom"] = [{"secretRef": {"name": place.secret}}]
    if place.variables:
        address: Json = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        given: list[Json] = [{"name": name, "value": value} for name, value in place.variables.items()]
        container["env"] = [address, *given]
    pod: dict[str, Json] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 120,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "drd-config", "configMap": {"name": place.config_map}},
            {"name": "drd-spool", "emptyDir": {"sizeLimit": "2Gi"}},
            {"name": "drd-state", "emptyDir": {"sizeLimit": "256Mi"}},
            *secret_volumes,
        ],
    }
    if place.service_account:
        pod |= {"serviceAccountName": place.service_account, "automountServiceAccountToken": True}
    return pod


def _volume(secret: str) -> str:
    return name_of(("secret", secret))
