"""Receive mails and keep each as a file: ``python -m devstack.mailbox PORT FOLDER``. Loopback, no TLS, no login."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Keeper:
    """Writes each mail whole, under a name that sorts by arrival; a reader never sees a half-written one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serial = itertools.count(len(list(folder.glob("*.eml"))))

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 (aiosmtpd's name)
        """Keep one mail."""
        place = self._folder / f"{next(self._serial):06d}.eml"
        partial = place.with_suffix(".part")
        partial.write_bytes(envelope.original_content or b"")
        partial.rename(place)
        return "250 OK"


async def serve(port: int, folder: Path) -> None:
    """Listen until SIGTERM."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    keeper = Keeper(folder)
    server = await loop.create_server(lambda: SMTP(keeper, hostname="mailbox.localhost"), "127.0.0.1", port)
    async with server:
        await over.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
