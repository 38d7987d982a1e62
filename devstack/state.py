"""Write down a running stack for its users: drd.yaml, secrets, age keypair, state."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyrage
import yaml

from devstack import ledger, standins
from devstack.kept import CONFIG, HEADER, SECRETS, Service
from devstack.s3 import SeaweedS3
from devstack.server import Server, private_file
from devstack.stack import Stack
from devstack.trading import BUCKET, CLICKHOUSE_DATABASE, POSTGRES_DATABASE, PREFIX

__all__ = ["CONFIG", "write"]

_SUITE = Path(__file__).resolve().parents[1] / "restore_drills" / "trading.yaml"


def write(stack: Stack, state_dir: Path) -> Path:
    """Write drd.yaml, its secrets, the age keypair and the state; return the path of drd.yaml."""
    secrets_dir = state_dir / SECRETS
    secrets_dir.mkdir(mode=0o700, exist_ok=True)
    for name, text in _secrets(stack).items():
        private_file(secrets_dir / name, text + "\n")
    identity = pyrage.x25519.Identity.generate()
    private_file(secrets_dir / "age-identity", f"{identity}\n")
    config = private_file(
        state_dir / CONFIG,
        HEADER + yaml.safe_dump(_config(stack, str(identity.to_public())), sort_keys=False, allow_unicode=True),
    )
    state = {
        "workspace": str(stack.workspace.path),
        "services": [asdict(service) for service in _services(stack)],
    }
    temporary = private_file(state_dir / (ledger.STATE + ".new"), json.dumps(state, indent=2) + "\n")
    temporary.replace(state_dir / ledger.STATE)
    return config


def _secrets(stack: Stack) -> dict[str, str]:
    found = {}
    for server in (stack.postgres, stack.redis, stack.clickhouse):
        if server is not None:
            found[f"{server.name}-password"] = server.password
    if stack.s3:
        for who in stack.s3.identities:
            found[f"s3-{who.name}-access-key-id"] = who.access_key_id
            found[f"s3-{who.name}-secret-access-key"] = who.secret_access_key
    return found


def _file(name: str) -> dict[str, str]:
    """A secret by reference; a relative path starts at drd.yaml's folder."""
    return {"file": f"{SECRETS}/{name}"}


def _config(stack: Stack, recipient: str) -> dict[str, Any]:
    sources: dict[str, Any] = {}
    if stack.postgres:
        url = stack.postgres.url(POSTGRES_DATABASE)
        password = _file("postgres-password")
        sources["trading-postgres"] = {"type": "postgres", "url": url, "password": password, "method": "dump"}
    if stack.redis:
        sources["trading-redis"] = {"type": "redis", "url": stack.redis.url, "password": _file("redis-password")}
    if stack.clickhouse:
        sources["market-data"] = {
            "type": "clickhouse",
            "url": stack.clickhouse.url,
            "password": _file("clickhouse-password"),
            "databases": [CLICKHOUSE_DATABASE],
            "mode": "gateway",
        }
    return {
        "store": _store(stack.s3),
        "encryption": {"recipients": [recipient], "identity": _file("age-identity")},
        "sources": sources,
        **(_drills(stack) if sources else {}),
    }


def _drills(stack: Stack) -> dict[str, Any]:
    """Say how ``drd drill now`` proves the backups: by the shipped suite, in servers that are plain processes."""
    if not (stack.postgres and stack.redis and stack.clickhouse):
        return {}
    return {
        "drills": {
            "trading": {"suite": str(_SUITE), "runtime": "process", "objectives": {"rto": "10m", "rpo": "65m"}},
        },
        "scratch": {"programs": {"clickhouse": str(standins.clickhouse_programs())}},
    }


def _store(s3: SeaweedS3 | None) -> dict[str, Any]:
    if s3 is None:
        return {"type": "local", "path": "store"}
    return {
        "type": "s3",
        "bucket": BUCKET,
        "prefix": PREFIX,
        "endpoint_url": s3.url,
        "region": s3.region,
        "access_key_id": _file("s3-objects-access-key-id"),
        "secret_access_key": _file("s3-objects-secret-access-key"),
    }


def _services(stack: Stack) -> list[Service]:
    found = []
    if stack.postgres:
        postgres = stack.postgres
        found.append(_service(postgres, postgres.url(POSTGRES_DATABASE), postgres.user, "postgres-password"))
    found += [
        _service(server, server.url, "default", "redis-password")
        for server in (stack.redis, stack.redis_target)
        if server is not None
    ]
    found += [
        _service(server, server.url, server.user, "clickhouse-password")
        for server in (stack.clickhouse, stack.clickhouse_target)
        if server is not None
    ]
    if stack.s3:
        found.append(_service(stack.s3, stack.s3.url, stack.s3.admin.name, "s3-admin-secret-access-key"))
    return found


def _service(server: Server, url: str, user: str, password_file: str) -> Service:
    return Service(server.name, url, user, f"{SECRETS}/{password_file}", server.pid, str(server.log_path))
