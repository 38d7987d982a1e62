"""What an API server and a kubelet would refuse, or what would not work: schemas, and rules that schemas lack."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import kubernetes_validate.utils as published
import referencing
from jsonschema.validators import Draft202012Validator

Object = dict[str, Any]

VERSIONS = ("1.25", "1.29", "1.32", published.major_minor(published.latest_version()))
FOREIGN = "monitoring.coreos.com/"
"""Kinds of the Prometheus operator: no schema of them is at hand."""
WORKLOADS = {"Deployment", "StatefulSet", "CronJob", "Pod", "Job"}

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
_ZONE = re.compile(r"[A-Za-z]+(/[A-Za-z_+-]+){0,2}")
_LONGEST_NAME = {"CronJob": 52, "Service": 63, "Pod": 253, "StatefulSet": 63}

ENUMS: dict[str, set[str]] = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "scheme": {"HTTP", "HTTPS", "http", "https"},
    "pathType": {"Prefix", "Exact", "ImplementationSpecific"},
    "medium": {"", "Memory"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "fsGroupChangePolicy": {"Always", "OnRootMismatch"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "action": {"Ignore", "FailJob", "Count", "FailIndex", "labeldrop"},
}
TYPES: dict[str, set[str]] = {
    "Service": {"ClusterIP", "NodePort", "LoadBalancer"},
    "strategy": {"Recreate", "RollingUpdate"},
    "seccompProfile": {"RuntimeDefault", "Localhost", "Unconfined"},
    "authorization": {"Bearer"},
}


@functools.cache
def _validator(version: str, kind: str, api: str) -> Draft202012Validator:
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    full = next(v for v in reversed(published.all_versions()) if published.major_minor(v) == version)
    folder = f"kubernetes-json-schema/v{full}-local-strict"
    schema = published.schema_contents(f"{folder}/{kind.lower()}-{api}.json", version)
    definitions = _definitions(folder, version)
    registry = definitions @ (referencing.Resource.from_contents(schema) @ referencing.Registry())
    return Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions(folder: str, version: str) -> Any:
    return referencing.Resource.from_contents(published.schema_contents(f"{folder}/_definitions.json", version))


def schema_problems(thing: Object, version: str) -> list[str]:
    """Return what the published schema of a Kubernetes release has against an object, unknown keys included."""
    errors = _validator(version, thing["kind"], thing["apiVersion"]).iter_errors(thing)
    return [f"{_called(thing)} in {version}: {error.json_path}: {error.message}" for error in errors]


def _called(thing: Object) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class Declared:
    """What values say exists outside of the chart, by kind."""

    names: Mapping[str, set[str]] = field(default_factory=dict)

    def __contains__(self, item: tuple[str, str]) -> bool:
        return item[1] in self.names.get(item[0], set())


def problems(things: list[Object], declared: Declared) -> list[str]:
    """Return everything that is wrong with objects that are installed together."""
    return [f"{_called(thing)}: {problem}" for thing in things for problem in _problems(thing, things, declared)]


def _problems(thing: Object, things: list[Object], declared: Declared) -> Iterator[str]:
    name = thing["metadata"]["name"]
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME.get(thing["kind"], 253):
        yield "not a name"
    if sum(_called(other) == _called(thing) for other in things) > 1:
        yield "there are two of it"
    yield from _label_problems(thing)
    yield from _enum_problems(thing, thing["kind"])
    yield from _selector_problems(thing, things)
    yield from _port_problems(thing, things)
    if thing["kind"] == "CronJob":
        yield from cron_problems(thing["spec"]["schedule"])
        if not _ZONE.fullmatch(thing["spec"]["timeZone"]) or thing["spec"]["startingDeadlineSeconds"] < 10:
            yield "time zone or starting deadline"
    if thing["kind"] in WORKLOADS:
        yield from _pod_problems(template_of(thing)["spec"])
    present = {(other["kind"], other["metadata"]["name"]) for other in things}
    for kind, wanted in references(thing):
        if (kind, wanted) not in present and (kind, wanted) not in declared:
            yield f"refers to {kind} {wanted}, which nobody makes"


def template_of(thing: Object) -> Object:
    """Return the pod's metadata and spec in a workload."""
    if thing["kind"] == "Pod":
        return thing
    if thing["kind"] == "CronJob":
        thing = thing["spec"]["jobTemplate"]
    template: Object = thing["spec"]["template"]
    return template


def containers(thing: Object) -> list[Object]:
    """Return the containers of a workload."""
    found: list[Object] = template_of(thing)["spec"]["containers"]
    return found


def walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every mapping and value below, with the key it stands under."""
    yield key, node
    below: Iterable[tuple[str, Any]] = ()
    if isinstance(node, dict):
        below = ((str(name), value) for name, value in node.items())
    elif isinstance(node, list):
        below = ((key, value) for value in node)
    for name, value in below:
        yield from walk(value, name)


def _label_problems(thing: Object) -> Iterator[str]:
    for key, node in walk(thing):
        if key in {"labels", "matchLabels"} and isinstance(node, dict) and thing["kind"] != "PrometheusRule":
            for label, value in node.items():
                if not _LABEL_KEY.fullmatch(label) or not isinstance(value, str) or not _LABEL.fullmatch(value):
                    yield f"label {label}: {value!r}"
        if key == "annotations" and isinstance(node, dict) and not all(isinstance(v, str) for v in node.values()):
            yield "an annotation is not text"


def _enum_problems(thing: Object, kind: str) -> Iterator[str]:
    for key, node in walk(thing.get("spec", {}) if kind != "PrometheusRule" else {}):
        if key in ENUMS and isinstance(node, str) and node not in ENUMS[key]:
            yield f"{key}: {node}"
        if key in TYPES and isinstance(node, dict) and node.get("type") not in TYPES[key]:
            yield f"{key}.type: {node.get('type')}"
    if kind in TYPES and thing["spec"]["type"] not in TYPES[kind]:
        yield f"type: {thing['spec']['type']}"
    if thing["kind"] == "CronJob" and template_of(thing)["spec"]["restartPolicy"] == "Always":
        yield "a Job's pod cannot restart always"


def _selector_problems(thing: Object, things: list[Object]) -> Iterator[str]:
    spec = thing.get("spec", {})
    match thing["kind"]:
        case "Service":
            wanted, over = spec["selector"], _pods(things)
        case "Deployment" | "StatefulSet":
            wanted, over = spec["selector"]["matchLabels"], [template_of(thing)]
        case "PodDisruptionBudget" | "PodMonitor":
            wanted, over = spec["selector"]["matchLabels"], _pods(things)
        case "NetworkPolicy":
            wanted, over = spec["podSelector"]["matchLabels"], _pods(things)
        case "ServiceMonitor":
            wanted, over = spec["selector"]["matchLabels"], [t for t in things if t["kind"] == "Service"]
        case _:
            return
    labels = [item["metadata"]["labels"] for item in over]
    if labels and not any(wanted.items() <= have.items() for have in labels):
        yield f"selects nothing by {wanted}"


def _pods(things: list[Object]) -> list[Object]:
    return [template_of(thing) for thing in things if thing["kind"] in WORKLOADS]


def _port_problems(thing: Object, things: list[Object]) -> Iterator[str]:
    spec = thing.get("spec", {})
    opened = {
        port["name"] for other in things if other["kind"] in WORKLOADS for c in containers(other) for port in _ports(c)
    }
    served = {port["name"] for other in things if other["kind"] == "Service" for port in other["spec"]["ports"]}
    for kind, key, there in (
        ("Service", "targetPort", opened),
        ("Ingress", "name", served),
        ("ServiceMonitor", "port", served),
        ("PodMonitor", "port", opened),
    ):
        if thing["kind"] != kind or (kind == "PodMonitor" and not opened):
            continue
        for place, node in walk(spec):
            if place in {"ports", "endpoints", "podMetricsEndpoints", "port"} and isinstance(node, dict):
                name = node.get(key)
                if name not in there:
                    yield f"port {name} is none of {sorted(there)}"
    if thing["kind"] == "NetworkPolicy":
        for place, node in walk(spec):
            named = node["port"] if place == "ports" and isinstance(node, dict) else 0
            if isinstance(named, str) and named not in opened:
                yield f"port {named} is none of {sorted(opened)}"


def _ports(container: Object) -> list[Object]:
    found: list[Object] = container.get("ports", [])
    return found


def _pod_problems(spec: Object) -> Iterator[str]:
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    if len(volumes) != len(set(volumes)):
        yield "a volume's name is given twice"
    for container in spec["containers"]:
        mounts = container.get("volumeMounts", [])
        if missing := {mount["name"] for mount in mounts} - set(volumes):
            yield f"mounts what is no volume: {missing}"
        paths = [mount["mountPath"] for mount in mounts]
        if len(paths) != len(set(paths)):
            yield "two volumes are mounted at one place"
        names = [variable["name"] for variable in container.get("env", [])]
        if len(names) != len(set(names)):
            yield "a variable is given twice"
        ports = {port["name"] for port in _ports(container)}
        if not all(_PORT_NAME.fullmatch(port) for port in ports):
            yield "not a port's name"
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            wanted = container.get(kind, {}).get("httpGet", {}).get("port")
            if wanted is not None and wanted not in ports:
                yield f"{kind} asks at {wanted}, which is no port"


def restriction_problems(spec: Object) -> list[str]:
    """Return what the Pod Security Standard "restricted" forbids of a pod, and whether its root can be written."""
    whole = spec.get("securityContext", {})
    wrong = []
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        if not whole.get("runAsNonRoot"):
            wrong.append("may be root")
        if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            wrong.append("seccomp")
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities", {}).get("drop") != ["ALL"]:
            wrong.append("privileges")
        if own.get("readOnlyRootFilesystem") is not True:
            wrong.append("root file system")
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        wrong.append("host path")
    return wrong


def references(thing: Object) -> Iterator[tuple[str, str]]:
    """Yield each object that another one needs to be there: kind and name."""
    for key, node in walk(thing.get("spec", {})):
        if not isinstance(node, dict):
            if key == "serviceAccountName":
                yield "ServiceAccount", node
            continue
        if key in {"secretKeyRef", "secretRef", "imagePullSecrets", "credentials"}:
            yield "Secret", node["name"]
        elif key == "secret" and "secretName" in node:
            yield "Secret", node["secretName"]
        elif key in {"configMap", "configMapRef"}:
            yield "ConfigMap", node["name"]
        elif key == "persistentVolumeClaim":
            yield "PersistentVolumeClaim", node["claimName"]
        elif key == "tls" and "secretName" in node:
            yield "Secret", node["secretName"]
        elif key == "service":
            yield "Service", node["name"]
    if thing["kind"] == "RoleBinding":
        yield thing["roleRef"]["kind"], thing["roleRef"]["name"]
        yield from ((subject["kind"], subject["name"]) for subject in thing["subjects"])


_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("weekday", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def cron_problems(line: str) -> list[str]:
    """Return what Kubernetes' cron parser (robfig/cron v3, ParseStandard) has against a line: no 7, no TZ=."""
    fields = line.split(" ")
    if len(fields) != 5:
        return [f"{line!r}: not five fields"]
    wrong = []
    for text, (what, low, high, names) in zip(fields, _FIELDS, strict=True):
        for item in text.split(","):
            match = re.fullmatch(r"(\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([0-9]+))?", item)
            numbers = [_number(match[n], low, names) for n in (2, 3) if match[n]] if match else [-1]
            good = all(low <= number <= high for number in numbers) and numbers == sorted(numbers)
            if not good or (match and match[4] == "0"):
                wrong.append(f"{line!r}: {what} {item!r}")
    return wrong


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    return int(text) if text.isdigit() else names.index(text) + low if text in names else -1


def as_json(things: list[Object]) -> str:
    """Return all objects as one text, to search in."""
    return json.dumps(things, ensure_ascii=False)
