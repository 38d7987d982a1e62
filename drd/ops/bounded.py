"""Engine work that ends when it must, also when a server or a library never answers.

Engines stop by themselves when their token is cancelled, and undo what they began. One that waits for a server which
stands still cannot; it is given a while and then left behind, so that drd can say so and clear up its own side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from drd.cancel import CancelToken
from drd.errors import Cancelled

Result = TypeVar("Result")

LOOK_GRACE_S = 2.0
"""How long a question that changes nothing may go on after a cancellation."""
BACKUP_GRACE_S = 20.0
"""The same for a backup, which may have to end a job on the server."""
RESTORE_GRACE_S = 120.0
"""The same for a restore, which has to take back what it made."""
_PREFIX = "drd-engine"


def run_bounded(work: Callable[[], Result], cancel: CancelToken, grace_s: float) -> Result:
    """Return ``work()``, run in a thread of its own; raises what it raises.

    When ``cancel`` is cancelled and the work has not ended ``grace_s`` later, it is left behind and
    :class:`~drd.errors.Cancelled` is raised; :func:`left_behind` then is true until it ends.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    wake, ended = threading.Event(), threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed on below
            errors.append(error)
        ended.set()
        wake.set()

    threading.Thread(target=run, name=f"{_PREFIX}-{threading.get_native_id()}", daemon=True).start()
    with cancel.on_cancel(wake.set):
        wake.wait()
    if not ended.wait(grace_s):
        raise Cancelled(
            f"interrupted; the server did not answer for {grace_s:.0f} s, so its side could not be undone",
            hint="when it answers again, look there for sessions or jobs of drd that still run",
        )
    if errors:
        raise errors[0]
    return results[0]


def left_behind() -> bool:
    """Whether work that was given up still waits for its server: a process that ends now must not join it."""
    return any(thread.name.startswith(_PREFIX) for thread in threading.enumerate())
