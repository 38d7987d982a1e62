"""A Redis or Valkey that forgets: no snapshot, no append-only file, no modules, and it evicts nothing."""

from __future__ import annotations

import signal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from drd.model import EngineKind
from drd.scratch.recipes.recipe import NotReady, Place, Recipe

_PASSWORD_AT_ONCE = Retry(NoBackoff(), 0)
_DATABASES = 1024  # a source may have raised the default of 16; an RDB that names more than there are is refused


class RedisRecipe(Recipe):
    """Redis: the same major version and not an older minor one, which could not read the snapshot."""

    engine: EngineKind = "redis"
    title = "Redis"
    programs = ("redis-server", "valkey-server")
    users = ("redis", "valkey", "nobody")
    stop_signal = signal.SIGKILL
    ports = (6379,)
    image = "redis:{release}"

    def fits(self, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
        """Ask for the major version, and at least the minor one."""
        return have[:1] == want[:1] and have[:2] >= want[:2]

    def release(self, version: tuple[int, ...]) -> str:
        """Return major and minor version."""
        return ".".join(map(str, version[:2]))

    def files(self, place: Place) -> dict[str, str]:
        """Return redis.conf; the password is in it and in a file of its own for people."""
        text = "".join(f"{name} {value}\n" for name, value in self.settings(place).items())
        return {"password": place.password + "\n", "scratch.conf": text}

    def settings(self, place: Place) -> dict[str, str]:
        """Return the settings. ``replica-ignore-maxmemory`` is left as it is: the runtime's limit guards a restore."""
        lines = {
            "bind": place.listen,
            "port": str(place.ports[0]),
            "protected-mode": "no",
            "requirepass": place.password,
            "dir": str(place.data),
            "databases": str(_DATABASES),
            "save": '""',
            "appendonly": "no",
            "maxmemory": str(place.memory_bytes * 9 // 10),
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": '""',
        }
        if place.version >= (6, 0):
            lines["repl-diskless-load"] = "on-empty-db"  # a restore is read from the wire, without a file between
        if place.version >= (7, 0):
            lines |= {"enable-module-command": "no", "enable-debug-command": "no"}
        return lines

    def command(self, place: Place, program: str) -> list[str]:
        """Start it from the file."""
        return [program, str(place.folder / "scratch.conf")]

    def url(self, host: str, port: int) -> str:
        """Return a redis URL."""
        return f"redis://{host}:{port}"

    def ask(self, host: str, port: int, password: str) -> str:
        """Log in and read the version; a server without a password refuses the login and is not ours."""
        try:
            with redis.Redis(
                host=host,
                port=port,
                password=password,
                socket_timeout=5,
                socket_connect_timeout=5,
                retry=_PASSWORD_AT_ONCE,
            ) as client:
                info = dict(client.info("server"))
        except (redis.RedisError, OSError) as error:
            raise NotReady(str(error)) from error
        return str(info.get("valkey_version") or info.get("redis_version", ""))

    def connect(self, host: str, port: int, password_from: str) -> str:
        """Return a redis-cli line."""
        return f'REDISCLI_AUTH="$({password_from})" redis-cli -h {host} -p {port}'
