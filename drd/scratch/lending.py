"""How every runtime lends a scratch server: for the length of a block, and gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from drd.errors import ScratchError


class Closable(Protocol):
    """A server that has started."""

    def close(self) -> None:
        """Remove the server and all that it made; raises :class:`~drd.errors.ScratchError` naming what is left."""


Server = TypeVar("Server", bound=Closable)


@contextmanager
def lent(server: Server) -> Iterator[Server]:
    """Lend a server and close it; that it cannot be closed is raised, or noted on what the block raised."""
    try:
        yield server
    except BaseException as error:
        try:
            server.close()
        except ScratchError as left:  # what went wrong first is what people need to read
            error.add_note(str(left))
        raise
    server.close()
