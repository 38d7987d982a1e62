"""Catch mails on port 1025 and show them on port 8025, in as much of Mailpit's API as drd's tests ask for.

A stand-alone script that lies beside aiosmtpd.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from email import message_from_bytes, policy
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

sys.path.insert(0, str(Path(__file__).parent))  # the interpreter is isolated

from aiosmtpd.smtp import SMTP, Envelope, Session

_SMTP_PORT, _HTTP_PORT = 1025, 8025
_EVERYWHERE = "0.0.0.0"  # noqa: S104 # of its container
_mails: list[bytes] = []


class Keeper:
    """Keeps each mail, in memory."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 (aiosmtpd's name)
        """Keep one mail."""
        _mails.append(envelope.original_content or b"")
        return "250 OK"


class Api(BaseHTTPRequestHandler):
    """``/readyz``, ``/api/v1/messages`` (newest first) and ``/api/v1/message/ID``."""

    def do_GET(self) -> None:
        """Answer in JSON."""
        found: object
        if self.path == "/readyz":
            found = "ok"
        elif self.path == "/api/v1/messages":
            found = {"messages": [_told(number) for number in reversed(range(len(_mails)))]}
        elif self.path.startswith("/api/v1/message/") and self.path.rpartition("/")[2].isdigit():
            found = _told(int(self.path.rpartition("/")[2]), whole=True)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())


def _told(number: int, *, whole: bool = False) -> dict[str, object]:
    mail = message_from_bytes(_mails[number], policy=policy.default)
    told: dict[str, object] = {"ID": str(number), "Subject": mail["Subject"], "To": [{"Address": mail["To"]}]}
    if whole:
        for name, kind in (("Text", "plain"), ("HTML", "html")):
            part = mail.get_body(preferencelist=(kind,))
            told[name] = part.get_content() if part else ""
    return told


async def serve() -> None:
    """Listen until SIGTERM."""
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    web = ThreadingHTTPServer((_EVERYWHERE, _HTTP_PORT), Api)
    Thread(target=web.serve_forever, daemon=True).start()
    keeper = Keeper()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(keeper, hostname="mail.localhost"), _EVERYWHERE, _SMTP_PORT
    )
    async with server:
        await over.wait()
    web.shutdown()


if __name__ == "__main__":
    asyncio.run(serve())
