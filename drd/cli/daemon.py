"""``drd daemon``: do what the schedules say, for years."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from drd.cli import documents
from drd.cli.session import Session

if TYPE_CHECKING:  # --help needs none of it
    from drd.daemon.model import Overview
    from drd.model import Json


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "daemon",
        help="run the schedules and drills of the configuration until told to end",
        parents=[common],
        description="Run backups, prune, verify and drills as the configuration's schedules say. SIGTERM ends it when "
        "what runs is done, or undone; a second one at once. SIGHUP takes the configuration anew.",
    )
    parser.set_defaults(run=run, interrupts=lambda _cancel: contextlib.nullcontext())


def run(args: argparse.Namespace, session: Session) -> int:  # noqa: ARG001 (verbs look alike)
    """Run until a signal; exit 0 after a clean end, 130 after a forced one, 2 for a configuration that is no good."""
    from drd import config, logs, wiring_daemon
    from drd.counts import StoreCounts
    from drd.daemon.lifecycle import Daemon
    from drd.daemon.numbers import Numbers
    from drd.daemon.systemd import ServiceManager
    from drd.daemon.web.serving import Serving

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be heard: what is read next is the newest anyway
    logs.configure(session.log_format)
    path = config.find_config_file(session.config_path)
    service = wiring_daemon.Service.of()
    numbers = Numbers(StoreCounts())
    daemon = Daemon(
        lambda: wiring_daemon.load_world(path, service, numbers.store, session.cancel, session.log_format),
        listener=numbers,
        serve=lambda made: Serving(made, numbers, status_document),
        manager=ServiceManager(service.notify_socket),
        watchdog_s=service.watchdog_s,
        cancel=session.cancel,
    )
    code = daemon.run()
    end_before_threads_break(code)
    return code


def end_before_threads_break(code: int) -> None:
    """End the process here if a thread of the daemon is still at something, as after a second signal.

    It would fail while the interpreter goes away under it, and say so among the log's lines.
    """
    if any(thread.name.startswith("drd-") for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)


def status_document(overview: Overview) -> Json:
    """Return what ``drd status --json`` gives, and the jobs besides; ``error`` is why it is older than it should be."""
    from drd.ops.status import StatusReport

    report = StatusReport(overview.at, tuple(view.status for view in overview.sources), overview.notices)
    planned = {view.name: view.next_backup_at for view in overview.sources}
    return {
        **documents.status_report(report, planned),
        "known": overview.known,
        "error": overview.error or None,
        "jobs": [documents.job(view) for view in overview.board.jobs] if overview.board else [],
    }
