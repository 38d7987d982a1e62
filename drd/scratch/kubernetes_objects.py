"""What a scratch server is made of in a cluster, and what a pod's status means. Pure: JSON in, JSON out.

The pod meets the level *restricted* of the Pod Security Standards. Sources: Kubernetes documentation, "Pod Security
Standards", "Network Policies", "Volumes: emptyDir" (a memory-backed one counts into the memory limit; a pod over the
``sizeLimit`` of one is evicted), "Pod Lifecycle".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from drd.model import EngineKind, ScratchSpec
from drd.scratch.kubernetes_api import Object
from drd.scratch.marking import MARK, NAME, marks, reason_to_remove
from drd.scratch.owners import Owner
from drd.scratch.recipes.recipe import Place
from drd.wording import size

FILES = "/drd"
DATA = "/drd-data"
CONTAINER = "server"
USERS: dict[EngineKind, int] = {"postgres": 999, "redis": 999, "clickhouse": 101}
"""Whom the official images of Debian's kind run their servers as."""
SELECTOR = f"{MARK}=1"
_NO_NAMES = "240.0.0.1"  # a reserved address (RFC 1112): nothing looks a name up
_MIB = 1 << 20
_WILL_NOT_START = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImagePullBackOff",  # ErrImagePull comes first, and may pass
    "ImageInspectError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
)
_STOPPED = {"Evicted", "Preempting", "Terminated", "NodeLost", "NodeAffinity", "UnexpectedAdmissionError"}
_OVER_DISK = re.compile(r"(EmptyDir|ephemeral).* exceed", re.IGNORECASE)
_MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class PodChoices:
    """What a configuration may say of the pods: where they are placed, who they run as, how images are had."""

    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    priority_class: str | None = None
    users: Mapping[EngineKind, int] = field(default_factory=dict)


def name_of(server_id: str) -> str:
    """Return the name of a server's pod, secret and network policy."""
    return f"{NAME}{server_id}"


def metadata(
    server_id: str, owner: Owner, expires_at: datetime, more: Mapping[str, str], holder: Object | None
) -> Object:
    """Return what every object of a server is marked with; ``holder`` is drd's own pod, with whom they go."""
    known = marks(server_id, owner, expires_at, more)
    selected_by = {name: known.pop(name) for name in (MARK, f"{MARK}.id")}
    found: Object = {
        "name": name_of(server_id),
        "labels": {"app.kubernetes.io/name": "drd-scratch", "app.kubernetes.io/managed-by": "drd", **selected_by},
        "annotations": known,
    }
    if holder is not None:
        found["ownerReferences"] = [owned_by(holder)]
    return found


def owned_by(pod: Object) -> Object:
    """Return the reference by which an object goes when the pod goes."""
    return {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}


def why_remove(pod: Object, now: datetime, *, kept_too: bool) -> str:
    """Say why a scratch pod may go; empty while somebody may want it."""
    found = dict(pod["metadata"].get("annotations") or {})
    return reason_to_remove(found, now, kept=found.get(f"{MARK}.kept") == "1" and not kept_too)


def secret(meta: Object, values: Mapping[str, str]) -> Object:
    """Return the secret that holds the server's password and the files of its configuration."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "type": "Opaque",
        "immutable": True,
        "stringData": dict(values),
    }


def policy(meta: Object, drd_address: str | None) -> Object:
    """Return the rule that lets nobody in and nothing out but drd, where its address is known."""
    peer = [{"ipBlock": {"cidr": f"{drd_address}/{128 if ':' in drd_address else 32}"}}] if drd_address else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {
            "podSelector": {"matchLabels": {f"{MARK}.id": meta["labels"][f"{MARK}.id"]}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peer}] if peer else [],
            "egress": [{"to": peer}] if peer else [],
        },
    }


def pod(meta: Object, spec: ScratchSpec, place: Place, image: str, argv: Sequence[str], choices: PodChoices) -> Object:
    """Return the pod; ``argv`` starts the server, the secret of the same name holds its environment."""
    user = choices.users.get(spec.engine, USERS[spec.engine])
    memory, disk = str(spec.memory_bytes), str(spec.disk_bytes)
    limits = {"memory": memory, "cpu": f"{max(1, round(spec.cpus * 1000))}m", "ephemeral-storage": disk}
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": choices.pull_policy,
        "command": list(argv),
        "envFrom": [{"secretRef": {"name": meta["name"]}}],
        "ports": [{"containerPort": port, "protocol": "TCP"} for port in place.ports],
        "resources": {
            "limits": limits,
            "requests": {**limits, "cpu": f"{max(1, round(spec.cpus * 500))}m", "ephemeral-storage": str(64 * _MIB)},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "files", "mountPath": FILES},
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the container's own
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }
    body: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": max(1, round(spec.expires_s)),
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": [_NO_NAMES]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "files", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "data", "emptyDir": {"sizeLimit": disk}},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(spec.memory_bytes // 2)}},
        ],
    }
    if choices.pull_secrets:
        body["imagePullSecrets"] = [{"name": name} for name in choices.pull_secrets]
    if choices.node_selector:
        body["nodeSelector"] = dict(choices.node_selector)
    if choices.tolerations:
        body["tolerations"] = [dict(each) for each in choices.tolerations]
    if choices.priority_class:
        body["priorityClassName"] = choices.priority_class
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}


def address(found: Object) -> str:
    """Return the pod's address; empty while it has none."""
    return str((found.get("status") or {}).get("podIP") or "")


def image_digest(found: Object) -> str:
    """Return the digest of the image that the container runs, as the node knows it."""
    return str(_container(found).get("imageID") or "").rpartition("@")[2]


def death(found: Object, spec: ScratchSpec) -> str:
    """Say why the server has ended, or will never start; empty while it runs or may yet start."""
    status = found.get("status") or {}
    state = _container(found).get("state") or {}
    if found["metadata"].get("deletionTimestamp"):
        return "its pod was deleted"
    if status.get("reason") == "DeadlineExceeded":
        return "its pod was stopped, as its time was over"
    if status.get("reason") == "Evicted" and _OVER_DISK.search(str(status.get("message") or "")):
        return f"its pod was evicted, over its disk limit of {size(spec.disk_bytes)}: {_cut(status['message'])}"
    if status.get("reason") in _STOPPED:
        return f"its pod was stopped ({status['reason']}): {_cut(status.get('message'))}"
    if ended := state.get("terminated"):
        if ended.get("reason") == "OOMKilled":
            return f"killed for its memory limit of {size(spec.memory_bytes)} (OOMKilled)"
        return f"exit code {ended.get('exitCode')}: {_cut(ended.get('message') or ended.get('reason'))}"
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _WILL_NOT_START:
        return f"{waiting['reason']}: {_cut(waiting.get('message'))}"
    if status.get("phase") in {"Failed", "Succeeded"}:
        return f"its pod {status['phase'].lower()}: {_cut(status.get('message') or status.get('reason'))}"
    return ""


def waits_for(found: Object) -> str:
    """Say what a pod that does not run yet waits for, in the cluster's words; empty when it runs."""
    status = found.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason') or 'Unschedulable'}: {_cut(condition.get('message'))}"
    waiting = (_container(found).get("state") or {}).get("waiting") or {}
    if waiting:
        return f"{waiting.get('reason')}: {_cut(waiting.get('message'))}".removesuffix(": ")
    return "" if status.get("phase") == "Running" else f"the pod is {status.get('phase') or 'new'}"


def _container(found: Object) -> Object:
    states = (found.get("status") or {}).get("containerStatuses") or []
    return next((dict(state) for state in states if state.get("name") == CONTAINER), {})


def _cut(text: object) -> str:
    words = " ".join(str(text or "").split())
    return words if len(words) <= _MAX_TEXT else words[:_MAX_TEXT] + "…"
