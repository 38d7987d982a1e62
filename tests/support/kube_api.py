"""A small API server for tests of drd's pods: the calls that drd makes, over real HTTP and websockets.

Bodies are checked against Kubernetes' own schemas (strictly: an unknown field is refused). Objects live in memory; a
:class:`~tests.support.kube_node.Node` plays the pods. It knows namespaces, merge patches, owner references, quota and
rights as far as the tests say, and proves nothing about schedulers, admission or networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import kubernetes_validate
import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.support.kube_node import Node

SCHEMA = "1.29"
NAMESPACE = "drills"
TOKEN = "a-token-of-tests"
_CHANNELS = "v4.channel.k8s.io"


class KubeApi:
    """The server; ``kubeconfig`` is a file that leads to it. ``quota`` and ``denied`` make it refuse."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.denied: set[tuple[str, str]] = set()
        self.quota = ""
        self.unschedulable = ""
        self.requests: list[str] = []
        self._lock = threading.RLock()
        server = uvicorn.Config(self._app(), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(server)
        self._thread = threading.Thread(target=self._server.run, name="kube-api", daemon=True)
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < until
            time.sleep(0.02)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{port}")))

    def close(self) -> None:
        """Stop serving, and end every pod."""
        self._server.should_exit = True
        self._thread.join(20)
        self.node.close()

    # ---- what a node asks and tells

    def has(self, uid: str) -> bool:
        """Whether a pod has not been deleted."""
        with self._lock:
            return any(found["metadata"]["uid"] == uid for found in self.objects.values())

    def environment(self, container: dict[str, Any]) -> dict[str, str] | None:
        """Return a container's environment; None while a secret is missing."""
        values: dict[str, str] = {}
        with self._lock:
            for source in container.get("envFrom", []):
                secret = self.objects.get(("secrets", source["secretRef"]["name"]))
                if secret is None:
                    return None
                values |= secret["stringData"]
        return values

    def report(self, uid: str, status: dict[str, Any]) -> None:
        """Take a pod's new status."""
        with self._lock:
            for found in self.objects.values():
                if found["metadata"]["uid"] == uid:
                    found["status"] = {**found.get("status", {}), **status}

    def event(self, pod: dict[str, Any], reason: str, message: str) -> None:
        """Write an event of a pod."""
        with self._lock:
            self.events.append(
                {
                    "involvedObject": {"uid": pod["metadata"]["uid"]},
                    "reason": reason,
                    "message": message,
                    "lastTimestamp": f"{len(self.events):09d}",
                }
            )

    # ---- what the API does

    def _app(self) -> Starlette:
        core, networking = "/api/v1/namespaces/{namespace}", "/apis/networking.k8s.io/v1/namespaces/{namespace}"
        routes: list[Any] = [
            Route("/version", self._version),
            Route("/version/", self._version),
            Route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._review, methods=["POST"]),
            Route(core + "/events", self._events),
            Route(core + "/pods/{name}/log", self._log),
            WebSocketRoute(core + "/pods/{name}/exec", self._exec),
            WebSocketRoute(core + "/pods/{name}/portforward", self._forward),
        ]
        for base in (core, networking):
            routes += [
                Route(base + "/{kind}", self._collection, methods=["GET", "POST"]),
                Route(base + "/{kind}/{name}", self._one, methods=["GET", "PATCH", "DELETE"]),
            ]
        return Starlette(routes=routes)

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"major": "1", "minor": "29", "gitVersion": "v1.29.0-tests", **_VERSION})

    async def _review(self, request: Request) -> Response:
        body = await request.json()
        wanted = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
        return JSONResponse({**body, "status": {"allowed": (wanted["verb"], resource) not in self.denied}})

    async def _events(self, request: Request) -> Response:
        uid = request.query_params["fieldSelector"].partition("=")[2]
        return JSONResponse({"items": [e for e in self.events if e["involvedObject"]["uid"] == uid]})

    async def _collection(self, request: Request) -> Response:
        kind, namespace = request.path_params["kind"], request.path_params["namespace"]
        if refusal := self._refused(request, "create" if request.method == "POST" else "list", kind):
            return refusal
        if namespace != NAMESPACE:
            return _failure(404, "NotFound", f'namespaces "{namespace}" not found')
        if request.method == "GET":
            assert request.query_params["labelSelector"] == "drd.scratch=1"
            with self._lock:
                return JSONResponse({"items": [o for (k, _), o in self.objects.items() if k == kind]})
        body = await request.json()
        try:
            kubernetes_validate.validate(body, SCHEMA, strict=True)
        except kubernetes_validate.ValidationError as error:
            return _failure(422, "Invalid", str(error))
        if kind == "pods" and self.quota:
            text = f'pods "{body["metadata"]["name"]}" is forbidden: exceeded quota: {self.quota}'
            return _failure(403, "Forbidden", text)
        body["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": namespace}
        with self._lock:
            if (kind, body["metadata"]["name"]) in self.objects:
                return _failure(409, "AlreadyExists", "already exists")
            self.objects[kind, body["metadata"]["name"]] = body
            if kind == "pods":
                self._start(body)
        return JSONResponse(body, status_code=201)

    def _start(self, pod: dict[str, Any]) -> None:
        pod["status"] = {"phase": "Pending"}
        if self.unschedulable:
            pod["status"]["conditions"] = [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": self.unschedulable}
            ]
            return
        pod["spec"]["nodeName"] = self.node.name
        threading.Thread(target=self.node.run, args=(json.loads(json.dumps(pod)), self), daemon=True).start()

    async def _one(self, request: Request) -> Response:
        kind, name = request.path_params["kind"], request.path_params["name"]
        verb = {"GET": "get", "PATCH": "patch", "DELETE": "delete"}[request.method]
        if refusal := self._refused(request, verb, kind):
            return refusal
        with self._lock:
            found = self.objects.get((kind, name))
        if found is None:
            return _failure(404, "NotFound", f'{kind} "{name}" not found')
        if request.method == "PATCH":
            assert request.headers["content-type"] == "application/merge-patch+json"
            with self._lock:
                _merge(found, await request.json())
        if request.method == "DELETE":
            await asyncio.to_thread(self._delete, kind, name)
        return JSONResponse(found)

    def _delete(self, kind: str, name: str) -> None:
        with self._lock:
            gone = self.objects.pop((kind, name), None)
            if gone is None:
                return
            uid = gone["metadata"]["uid"]
            owned = [
                key
                for key, other in self.objects.items()
                if any(owner["uid"] == uid for owner in other["metadata"].get("ownerReferences") or [])
            ]
        for key in owned:
            self._delete(*key)
        if kind == "pods":
            self.node.remove(uid)

    def _refused(self, request: Request, verb: str, kind: str) -> Response | None:
        self.requests.append(f"{verb} {kind}")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _failure(401, "Unauthorized", "Unauthorized")
        if (verb, kind) in self.denied:
            return _failure(403, "Forbidden", f'{kind} is forbidden: User "drd" cannot {verb} resource "{kind}"')
        return None

    async def _log(self, request: Request) -> Response:
        with self._lock:
            pod = self.objects.get(("pods", request.path_params["name"]))
        if pod is None:
            return _failure(404, "NotFound", "not found")
        lines = int(request.query_params["tailLines"])
        return PlainTextResponse(await asyncio.to_thread(self.node.log, pod["metadata"]["uid"], lines))

    async def _exec(self, socket: WebSocket) -> None:
        await socket.accept(subprotocol=_CHANNELS)
        uid = self.objects["pods", socket.path_params["name"]]["metadata"]["uid"]
        output, code = await asyncio.to_thread(self.node.execute, uid, socket.query_params.getlist("command"))
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while (piece := await asyncio.to_thread(next, output, None)) is not None:
                for channel, data in enumerate(piece, start=1):
                    for start in range(0, len(data or b""), 1 << 15):
                        await socket.send_bytes(bytes([channel]) + data[start : start + (1 << 15)])
            result: dict[str, Any] = {"metadata": {}, "status": "Success"}
            if number := await asyncio.to_thread(code):
                cause = {"reason": "ExitCode", "message": str(number)}
                result = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
            await socket.send_bytes(b"\x03" + json.dumps(result).encode())
            await socket.close()

    async def _forward(self, socket: WebSocket) -> None:
        await socket.accept(subprotocol=_CHANNELS)
        port = int(socket.query_params["ports"])
        uid = self.objects["pods", socket.path_params["name"]]["metadata"]["uid"]
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        try:
            there = await asyncio.to_thread(self.node.connect, uid, port)
            reader, writer = await asyncio.open_connection(sock=there)
        except OSError as error:
            await socket.send_bytes(b"\x01" + str(error).encode())
            await socket.close()
            return

        async def out() -> None:
            while data := await reader.read(1 << 15):
                await socket.send_bytes(b"\x00" + data)
            await socket.close()

        task = asyncio.create_task(out())
        try:
            while True:
                frame = await socket.receive_bytes()
                if frame[:1] == b"\x00":
                    writer.write(frame[1:])
                    await writer.drain()
        except (WebSocketDisconnect, RuntimeError, KeyError, OSError):
            task.cancel()
        finally:
            writer.close()


def _merge(found: dict[str, Any], change: dict[str, Any]) -> None:
    """Apply a JSON merge patch (RFC 7386)."""
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            _merge(found[key], value)
        else:
            found[key] = value


def _failure(code: int, reason: str, message: str) -> Response:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}
    return JSONResponse(body, status_code=code)


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": {"server": url}}],
        "users": [{"name": "drd", "user": {"token": TOKEN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "drd", "namespace": NAMESPACE}}],
    }


_VERSION = {
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
