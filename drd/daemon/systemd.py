"""Tell systemd how the service is (sd_notify(3)): one datagram to the socket that it named in the environment."""

from __future__ import annotations

import contextlib
import socket


class ServiceManager:
    """Whoever supervises the service; nobody, when ``address`` is empty. Telling never fails and never waits.

    Source: sd_notify(3). An address that starts with ``@`` is of the abstract namespace, unix(7).
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """Say that the service has started."""
        self._tell("READY=1")

    def reloading(self, monotonic_us: int) -> None:
        """Say that it takes a new configuration; :meth:`ready` ends it. The time is of CLOCK_MONOTONIC."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us}")

    def stopping(self) -> None:
        """Say that it ends."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Say that it lives, for the watchdog."""
        self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time to end."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(0)
            channel.sendto(text.encode(), self._address)
