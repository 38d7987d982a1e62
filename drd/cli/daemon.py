"""``drd daemon``: do what the schedules say, for years."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from drd.cli.session import Session


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
    from drd import config, wiring_daemon
    from drd.counts import StoreCounts
    from drd.daemon.lifecycle import Daemon
    from drd.daemon.numbers import Numbers
    from drd.daemon.systemd import ServiceManager

    _log_to_standard_error()
    path = config.find_config_file(session.config_path)
    service = wiring_daemon.Service.of()
    numbers = Numbers(StoreCounts())
    daemon = Daemon(
        lambda: wiring_daemon.load_world(path, service, numbers.store, session.cancel),
        listener=numbers,
        serve=lambda _daemon: contextlib.nullcontext(),
        manager=ServiceManager(service.notify_socket),
        watchdog_s=service.watchdog_s,
        cancel=session.cancel,
    )
    return daemon.run()


def _log_to_standard_error() -> None:
    """Write one JSON object a line: what happened, when, to what."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
