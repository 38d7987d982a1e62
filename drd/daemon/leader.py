"""Which of several daemons of one repository plans its jobs: the one that holds the lease ``daemon``.

The others stand by. Work itself is under a lease of each source and drill, as it is by hand, so even two who both
believe that they lead cannot do harm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from drd.cancel import CancelToken
from drd.errors import Cancelled, LeaseError, StoreError
from drd.ops.ports import Ports
from drd.repository import lease as leases

LEASE_NAME = "daemon"


class Leader:
    """The lease of one daemon on one repository. Thread-safe; each call may ask the store."""

    def __init__(self, ports: Ports, *, ttl_s: float, cancel: CancelToken) -> None:
        self._ports = ports
        self._ttl_s = ttl_s
        self._cancel = cancel
        self._lease: leases.StoreLease | None = None
        self._lock = threading.Lock()
        self.problem = ""
        """Why it is not known who leads, or who else does; empty for the leader."""

    @property
    def leads(self) -> bool:
        """Whether this daemon leads, as far as it knew when it last asked."""
        return self._lease is not None

    def look(self) -> bool:
        """Ask the store whether this daemon still leads, or may now; return whether it does.

        Raises StoreError when there is no answer: what was so before is then taken to be so.
        """
        with self._lock:
            if self._lease is not None:
                return self._still(self._lease)
            try:
                self._lease = leases.acquire(
                    self._ports.store,
                    LEASE_NAME,
                    ttl_s=self._ttl_s,
                    now=self._ports.now,
                    monotonic=self._ports.monotonic,
                    holder=self._ports.holder,
                    cancel=self._cancel,
                )
            except LeaseError as error:
                self.problem = error.message
                return False
            self.problem = ""
            return True

    def still(self, unknown: Callable[[StoreError], None] | None = None) -> bool:
        """Whether it still leads: asked before a job is started, and before history is written.

        Without an answer it does, and ``unknown`` is told why there was none.
        """
        with self._lock:
            if self._lease is None:
                return False
            try:
                return self._still(self._lease)
            except StoreError as error:
                if unknown is not None:
                    unknown(error)
                return True
            except Cancelled:
                return True

    def _still(self, lease: leases.StoreLease) -> bool:
        try:
            lease.ensure()
        except LeaseError as error:
            self.problem = error.message
            self._lease = None
            lease.release()  # ends its renewal; what it writes is of a generation that no longer counts
            return False
        return True

    def release(self) -> None:
        """Give the lease up, so that another daemon need not wait; idempotent."""
        with self._lock:
            lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
