"""Speak to a scratch server the way anybody would: a login, a word, an attempt to reach somebody else."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from drd.model import EngineKind, ScratchEndpoint

_READ = "SELECT * FROM url('http://{host}:{port}/x', 'LineAsString', 'l String') SETTINGS http_max_tries = 1"


class Refused(Exception):
    """The server did not let us in."""


def login(engine: EngineKind, url: str, password: str) -> str:
    """Log in and return what ``1 + 1`` or a ping says; raises Refused with the server's words."""
    try:
        if engine == "postgres":
            with psycopg.connect(url, password=password, connect_timeout=5) as connection:
                row = connection.execute("SELECT 1 + 1").fetchone()
                return str(row[0]) if row else ""
        if engine == "redis":
            with redis_client(url, password) as client:
                return str(client.echo("2"), "ascii")  # type: ignore[arg-type]
        return query(url, password, "SELECT 1 + 1")
    except (psycopg.Error, redis.RedisError, OSError) as error:
        raise Refused(str(error)) from error


def redis_client(url: str, password: str) -> redis.Redis:
    """Return a client that does not try again and again."""
    parts = urlsplit(url)
    once = Retry(NoBackoff(), 0)
    host, port = str(parts.hostname), int(parts.port or 0)
    return redis.Redis(host=host, port=port, password=password or None, socket_timeout=5, retry=once)


def query(url: str, password: str, sql: str) -> str:
    """Run SQL on ClickHouse, in one session for all; raises Refused."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    headers = {"X-ClickHouse-User": str(parts.username), "X-ClickHouse-Key": password}
    try:
        connection.request("POST", "/?session_id=tests", body=sql.encode(), headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace").strip()
    finally:
        connection.close()
    if answer.status != 200:
        raise Refused(text)
    return text


@contextmanager
def listener(host: str) -> Iterator[tuple[int, list[str]]]:
    """Listen on an address of this machine; yield the port and who came."""
    came: list[str] = []
    server = socket.create_server((host, 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                peer, address = server.accept()
                came.append(address[0])
                peer.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1], came
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def reach_out(endpoint: ScratchEndpoint, host: str, port: int) -> None:
    """Make a ClickHouse or Redis try to connect to an address, by the means it has; any refusal is fine."""
    password = endpoint.password.reveal()
    with suppress(Refused, redis.RedisError):
        if endpoint.engine == "clickhouse":
            query(endpoint.url, password, _READ.format(host=host, port=port))
        else:
            with redis_client(endpoint.url, password) as client:
                client.execute_command("REPLICAOF", host, port)
                time.sleep(1.2)  # it tries every second
                client.execute_command("REPLICAOF", "NO", "ONE")
