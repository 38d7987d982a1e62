"""Speak to a Docker Engine, and have every failure of it said in drd's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from drd.errors import ScratchError

Client: TypeAlias = Any  # docker.DockerClient; the SDK has no types
Container: TypeAlias = Any

_TIMEOUT_S = 60


@contextmanager
def mapped(doing: str, hint: str = "") -> Iterator[None]:
    """Turn what the SDK raises in the block into :class:`~drd.errors.ScratchError`."""
    import docker.errors
    import requests.exceptions

    try:
        yield
    except docker.errors.APIError as error:
        said = str(error.explanation or error).strip().splitlines()[0]
        raise ScratchError(f"cannot {doing}: the Docker Engine said: {said}", hint=hint) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise ScratchError(
            f"cannot {doing}: the Docker Engine does not answer: {_innermost(error)}",
            hint="start it (systemctl start docker), or use the runtime process",
        ) from error


def connect(host: str | None) -> Client:
    """Return a client of the engine at ``host`` (None: as the docker command finds it), which has answered.

    Raises :class:`~drd.errors.ScratchError` without the SDK or the engine.
    """
    try:
        import docker
    except ImportError as error:
        raise ScratchError(
            "the runtime docker needs Docker's own library for Python",
            hint="pip install 'docker>=7.1', or use the runtime process",
        ) from error
    with mapped(f"reach the Docker Engine{f' at {host}' if host else ''}"):
        client = docker.DockerClient(base_url=host, timeout=_TIMEOUT_S) if host else docker.from_env(timeout=_TIMEOUT_S)
        client.ping()
    return client


def _innermost(error: BaseException) -> str:
    """Return what the operating system said, below the layers of HTTP libraries."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return (str(seen) or type(seen).__name__).splitlines()[0]
