"""What a runtime asks of an engine's recipe."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import PurePosixPath

from drd.errors import ScratchError
from drd.model import EngineKind

USER = "drd_scratch"
"""The login of a scratch server: a name that restored roles do not have, so that they cannot lock drd out."""


class NotReady(Exception):
    """The server does not answer yet; the message says why, in its own words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server will run and within what: all that its settings depend on.

    ``folder`` holds the files of :meth:`Recipe.files` (read only for the server), ``data`` is empty and the server's;
    both as the server sees them. ``listen`` and ``ports`` are its addresses. ``host`` is drd's, as it sees it.
    """

    folder: PurePosixPath
    data: PurePosixPath
    listen: str
    ports: tuple[int, ...]
    host: str
    password: str
    version: tuple[int, ...]
    memory_bytes: int
    cpus: float


class Recipe(ABC):
    """An engine's scratch server: configured for a fast restore that nobody needs after a power cut, and no egress."""

    engine: EngineKind
    title: str
    programs: tuple[str, ...]
    """Names of the server program, any of which will do."""
    users: tuple[str, ...]
    """Whom a server started by root runs as, the first that exists."""
    stop_signal: int
    """What ends it at once without leaving anything in the kernel."""
    ports: tuple[int, ...]
    """What it listens on in a container; the first is for drd."""
    image: str
    """The official image, ``{release}`` standing for :meth:`release`."""

    @abstractmethod
    def fits(self, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
        """Whether a server of version ``have`` may prove a backup of one of version ``want``."""

    def demand(self, version: str, want: tuple[int, ...], image: str) -> None:
        """Raise :class:`~drd.errors.ScratchError` when the server of an image may not prove a backup of ``want``."""
        if not self.fits(numbers(version), want):
            raise ScratchError(
                f"the image {image} is {self.title} {version}, and the backup is of {'.'.join(map(str, want))}",
                hint=f"name an image of {self.title} {self.release(want)}",
            )

    @abstractmethod
    def release(self, version: tuple[int, ...]) -> str:
        """Return the part of a version that decides, such as 15, 7.2, 25.8."""

    @abstractmethod
    def files(self, place: Place) -> dict[str, str]:
        """Return the configuration files, secrets included, by name."""

    @abstractmethod
    def command(self, place: Place, program: str) -> list[str]:
        """Return what starts the server in the foreground, making its data first if need be; no secret in it."""

    @abstractmethod
    def url(self, host: str, port: int) -> str:
        """Return the URL for drd's engine of this kind, without the password."""

    @abstractmethod
    def ask(self, host: str, port: int, password: str) -> str:
        """Log in, run a query, return the server's version; raises :class:`NotReady`, waits 5 seconds at the most."""

    @abstractmethod
    def connect(self, host: str, port: int, password_from: str) -> str:
        """Return a shell line for a person; ``password_from`` is a command that prints the password."""


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version text in order: ``15.18 (Debian 15.18-0)`` is (15, 18)."""
    found = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
