"""The Kubernetes API as scratch servers need it: plain JSON in and out, and refusals in words for people.

Source: Kubernetes API reference, v1 (Pod, Secret, Event), networking.k8s.io/v1, authorization.k8s.io/v1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from drd.errors import ScratchError

Object: TypeAlias = dict[str, Any]
Kind = Literal["pods", "secrets", "networkpolicies"]
KINDS: tuple[Kind, ...] = ("pods", "networkpolicies", "secrets")

IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = (10, 30)
_MERGE = "application/merge-patch+json"
_FORBIDDEN, _MISSING, _CONFLICT = 403, 404, 409
_RIGHTS = "see docs/drills-kubernetes.md for the rights that drd needs, or use another runtime"


class Missing(ScratchError):
    """There is no such object (any more)."""


class Cluster:
    """One namespace of one cluster. Calls raise :class:`~drd.errors.ScratchError`; objects are JSON as the API has it.

    ``inside`` tells whether drd itself runs in a pod of the cluster.
    """

    def __init__(self, client: Any, namespace: str, *, inside: bool) -> None:
        from kubernetes import client as api

        self._client = client
        self._core = api.CoreV1Api(client)
        self._networking = api.NetworkingV1Api(client)
        self.namespace = namespace
        self.inside = inside

    def create(self, kind: Kind, body: Mapping[str, Any]) -> Object:
        """Make an object and return it."""
        call = {
            "pods": self._core.create_namespaced_pod,
            "secrets": self._core.create_namespaced_secret,
            "networkpolicies": self._networking.create_namespaced_network_policy,
        }[kind]
        with mapped(f"create {kind} in the namespace {self.namespace}"):
            return _read(call(self.namespace, dict(body), _preload_content=False, _request_timeout=_TIMEOUT_S))

    def patch(self, kind: Kind, name: str, body: Mapping[str, Any]) -> None:
        """Change an object by a JSON merge patch (RFC 7386)."""
        call = {
            "pods": self._core.patch_namespaced_pod,
            "secrets": self._core.patch_namespaced_secret,
            "networkpolicies": self._networking.patch_namespaced_network_policy,
        }[kind]
        with mapped(f"change {kind}/{name}"):
            call(
                name,
                self.namespace,
                dict(body),
                _content_type=_MERGE,
                _preload_content=False,
                _request_timeout=_TIMEOUT_S,
            )

    def delete(self, kind: Kind, name: str) -> None:
        """Remove an object at once; one that is gone already is fine."""
        call = {
            "pods": self._core.delete_namespaced_pod,
            "secrets": self._core.delete_namespaced_secret,
            "networkpolicies": self._networking.delete_namespaced_network_policy,
        }[kind]
        by_hand = f"kubectl -n {self.namespace} delete {kind} {name} --grace-period=0"
        try:
            with mapped(f"remove {kind}/{name}", by_hand):
                call(
                    name,
                    self.namespace,
                    grace_period_seconds=0,
                    _preload_content=False,
                    _request_timeout=_TIMEOUT_S,
                )
        except Missing:
            return

    def pod(self, name: str) -> Object:
        """Return a pod; raises :class:`Missing`."""
        with mapped(f"look at pods/{name}"):
            return _read(
                self._core.read_namespaced_pod(
                    name, self.namespace, _preload_content=False, _request_timeout=_TIMEOUT_S
                )
            )

    def pods(self, selector: str) -> list[Object]:
        """Return the pods that a label selector finds."""
        with mapped(f"list pods in the namespace {self.namespace}"):
            found = _read(
                self._core.list_namespaced_pod(
                    self.namespace, label_selector=selector, _preload_content=False, _request_timeout=_TIMEOUT_S
                )
            )
        return list(found.get("items") or [])

    def events(self, uid: str) -> list[str]:
        """Return what the cluster says of an object, oldest first, as ``Reason: message``."""
        with mapped("list events"):
            found = _read(
                self._core.list_namespaced_event(
                    self.namespace,
                    field_selector=f"involvedObject.uid={uid}",
                    limit=100,
                    _preload_content=False,
                    _request_timeout=_TIMEOUT_S,
                )
            )
        items = sorted(found.get("items") or [], key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
        return [f"{item.get('reason', '')}: {item.get('message', '')}" for item in items]

    def log(self, name: str, limit_bytes: int) -> str:
        """Return the end of what a pod wrote."""
        with mapped(f"read the log of pods/{name}"):
            said = self._core.read_namespaced_pod_log(
                name,
                self.namespace,
                tail_lines=max(1, limit_bytes // 40),
                _preload_content=False,
                _request_timeout=_TIMEOUT_S,
            )
            return bytes(said.data)[-limit_bytes:].decode("utf-8", "replace")

    def open_exec(self, name: str, argv: list[str]) -> Any:
        """Start a command in a pod's container; return the websocket client of its output."""
        from kubernetes.stream import stream

        with mapped(f"run {argv[0]} in pods/{name}"):
            return stream(
                self._for_a_stream().connect_get_namespaced_pod_exec,
                name,
                self.namespace,
                command=argv,
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                _preload_content=False,
            )

    def open_port(self, name: str, port: int) -> Any:
        """Return a connection to a port of a pod, by way of the API server."""
        from kubernetes.stream import portforward

        with mapped(f"reach port {port} of pods/{name}"):
            return portforward(
                self._for_a_stream().connect_get_namespaced_pod_portforward, name, self.namespace, ports=str(port)
            )

    def version(self) -> str:
        """Return the API server's version."""
        from kubernetes import client as api

        with mapped("ask the Kubernetes API for its version"):
            return str(api.VersionApi(self._client).get_code(_request_timeout=_TIMEOUT_S).git_version)

    def may(self, verb: str, resource: str) -> bool:
        """Ask the API server whether this identity may do something in the namespace."""
        from kubernetes import client as api

        name, _, sub = resource.partition("/")
        wanted = {
            "namespace": self.namespace,
            "verb": verb,
            "group": "networking.k8s.io" if name == "networkpolicies" else "",
            "resource": name,
            "subresource": sub,
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        with mapped("ask the Kubernetes API for this identity's rights"):
            answer = _read(
                api.AuthorizationV1Api(self._client).create_self_subject_access_review(
                    {**review, "spec": {"resourceAttributes": wanted}},
                    _preload_content=False,
                    _request_timeout=_TIMEOUT_S,
                )
            )
        return bool((answer.get("status") or {}).get("allowed"))

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def _for_a_stream(self) -> Any:
        """Return an API object of its own: the library replaces its transport while a stream is opened."""
        from kubernetes import client as api

        return api.CoreV1Api(api.ApiClient(self._client.configuration))


def connect(context: str | None, kubeconfig: Path | None, namespace: str | None) -> Cluster:
    """Return the cluster: drd's own, where it runs in a pod, else the one of the kubeconfig (as kubectl finds it).

    Raises :class:`~drd.errors.ScratchError` without the library or a configuration; nothing is asked of the cluster.
    """
    try:
        from kubernetes import client as api
        from kubernetes import config
    except ImportError as error:
        raise ScratchError(
            "the runtime kubernetes needs the library of that name", hint="pip install 'drd[kubernetes]'"
        ) from error
    settings = api.Configuration()
    inside = context is None and kubeconfig is None and in_a_pod()
    try:
        if inside:
            config.load_incluster_config(client_configuration=settings)
            own = (IN_POD / "namespace").read_text(encoding="ascii").strip()
        else:
            file = str(kubeconfig) if kubeconfig else None
            config.load_kube_config(config_file=file, context=context, client_configuration=settings)
            _, active = config.list_kube_config_contexts(config_file=file)
            chosen = active if context is None else {"context": _context(config, file, context)}
            own = str((chosen or {}).get("context", {}).get("namespace") or "default")
    except (config.ConfigException, OSError) as error:
        raise ScratchError(
            f"no Kubernetes cluster is known here: {error}",
            hint="run drd in a pod, or name a kubeconfig: scratch.kubernetes.kubeconfig and context",
        ) from error
    settings.retries = 2
    return Cluster(api.ApiClient(settings), namespace or own, inside=inside)


def in_a_pod() -> bool:
    """Whether this process runs in a pod that may speak to its cluster."""
    return (IN_POD / "token").exists()


def _context(config: Any, file: str | None, name: str) -> Object:
    contexts, _ = config.list_kube_config_contexts(config_file=file)
    return next((dict(found["context"]) for found in contexts if found["name"] == name), {})


def _read(answer: Any) -> Object:
    found = json.loads(answer.data)
    return found if isinstance(found, dict) else {}


@contextmanager
def mapped(doing: str, hint: str = "") -> Iterator[None]:
    """Turn what the library raises into :class:`~drd.errors.ScratchError`, with the API server's own words."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError
    from websocket import WebSocketException

    try:
        yield
    except ApiException as error:
        said = _said(error)
        if error.status == _MISSING:
            raise Missing(f"cannot {doing}: {said}", hint=hint or "look at the namespace's name") from error
        if error.status == _FORBIDDEN and "exceeded quota" in said:
            what = "free some of the quota, raise it, or lower limits.memory and limits.cpus of the drill"
            raise ScratchError(f"cannot {doing}: {said}", hint=what) from error
        if error.status == _FORBIDDEN and "violates PodSecurity" in said:
            what = "report this to drd: its pods are made for the level restricted"
            raise ScratchError(f"cannot {doing}: {said}", hint=what) from error
        refused = error.status in {401, _FORBIDDEN}
        raise ScratchError(f"cannot {doing}: {said}", hint=hint or (_RIGHTS if refused else "")) from error
    except (HTTPError, WebSocketException, OSError) as error:
        raise ScratchError(
            f"cannot {doing}: the Kubernetes API does not answer: {_innermost(error)}",
            hint=hint or "kubectl cluster-info tells more",
        ) from error


def _said(error: Any) -> str:
    try:
        message = json.loads(error.body or "{}").get("message")
    except (ValueError, AttributeError):
        message = None
    return str(message or error.reason or f"HTTP {error.status}").strip().splitlines()[0][:600]


def _innermost(error: BaseException) -> str:
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return (str(seen) or type(seen).__name__).splitlines()[0]
