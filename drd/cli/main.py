"""The ``drd`` command: parse, run one verb, turn an error into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from drd import __version__
from drd.cancel import CancelToken
from drd.cli import documents, measuring, render, streams
from drd.cli.interrupts import Interrupts
from drd.cli.session import Session
from drd.errors import Cancelled, ConfigError, DrdError

VERBS = {
    "backup": "backup",
    "restore": "restore",
    "list": "listing",
    "show": "show",
    "verify": "verify",
    "prune": "prune",
    "pin": "pin",
    "unpin": "pin",
    "drill": "drill",
    "check": "check",
    "status": "status",
    "daemon": "daemon",
    "plan": "plan",
    "runbook": "runbook",
    "keygen": "keygen",
    "config": "config",
    "demo": "demo",
}
"""The module of each verb, in the order of the help."""
YOUNG_OBJECTS = 50_000
"""How many new objects are looked through for cycles at once, not 700: what imports make stays, and there is much."""

EPILOG = """exit codes: 0 done, 1 unexpected, 2 usage or configuration, 3 done in part, 10 no such backup or no path to
the time, 11 lease held, 12 store, 13 database, 14 target not empty, 20 integrity, 21 drill failed, 22 drill not
carried out, 130 interrupted"""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like every other error of drd."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # --js for --json would be taken by half of drd

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse: does not return; raising is that
        raise ConfigError(message, op=self.prog, hint=f"see: {self.prog} --help")


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Build the command line: the whole of it, or with ``verb`` only what that one needs. Imports nothing heavy."""
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("everywhere")
    group.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="configuration (else $DRD_CONFIG, ./drd.yaml, /etc/drd/drd.yaml)",
    )
    group.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document on standard output"
    )
    group.add_argument(
        "--log-format",
        choices=("json", "console"),
        default=argparse.SUPPRESS,
        help="log events on standard error as well, one a line (the daemon always does: JSON unless at a terminal)",
    )
    parser = _Parser(
        prog="drd",
        description="Back up PostgreSQL, Redis and ClickHouse, and restore them to a time.",
        epilog=EPILOG,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"drd {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for module in dict.fromkeys(VERBS.values() if verb is None else (VERBS[verb],)):
        importlib.import_module(f"drd.cli.{module}").add(verbs, common)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line with as little of the parser as it needs; raises ConfigError, and SystemExit for --help.

    What seems to be the verb may be another option's value. Then, and for help and errors, which name all verbs, the
    whole parser decides.
    """
    verb = next((word for word in arguments if word in VERBS), None)
    if verb is not None and not {"-h", "--help"} & set(arguments):
        with contextlib.suppress(ConfigError):
            return build_parser(verb).parse_args(arguments)
    return build_parser().parse_args(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises. Without ``argv`` the process is drd's, and ends here."""
    if argv is None:
        gc.set_threshold(YOUNG_OBJECTS)
    streams.prepare()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader left
        streams.abandon_output()
        code = 141
    if argv is None or _is_stuck():
        end(code)
    return code


def _is_stuck() -> bool:
    """Whether work was left behind that waits for a dead server: the interpreter would join it."""
    bounded = sys.modules.get("drd.ops.bounded")  # heavy, and only there when a verb used it
    return bounded is not None and bool(bounded.left_behind())


def end(code: int) -> None:
    """End the process at once: taking the interpreter apart, module by module, is a fifth of what a small verb takes.

    All that drd opened is closed and written by now. Where a thread is left that the interpreter would wait for, and
    that is no work given up, this returns instead.
    """
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if not _is_stuck() and any(not thread.daemon for thread in others):
        return
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        sys.stderr.flush()
    os._exit(code)


def _run(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    cancel = CancelToken()
    verb = ""
    session: Session | None = None
    try:
        args = parse(arguments)
        verb = args.verb
        with getattr(args, "interrupts", Interrupts)(cancel):
            log_format = getattr(args, "log_format", None)
            session = Session(getattr(args, "config", None), as_json=as_json, cancel=cancel, log_format=log_format)
            try:
                return _measured(args, session)
            finally:
                session.close()
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except DrdError as error:
        error.op = verb or error.op
        if session is not None:
            session.log.error("verb.failed", **documents.error(error))  # noqa: TRY400  # no traceback
        return report(error, as_json=as_json)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return report(Cancelled("interrupted", op=verb), as_json=as_json)
    except Exception as error:  # noqa: BLE001  # the outermost place: a bug, shown with its traceback
        import traceback

        traceback.print_exc(file=sys.stderr)
        bug = DrdError(
            f"unexpected {type(error).__name__}: {error}",
            hint="this is a bug in drd: please report it with the lines above",
        )
        return report(bug, as_json=as_json)


def _measured(args: argparse.Namespace, session: Session) -> int:
    """Run the verb and, where it is one that is asked for its metrics, publish them however it ended."""
    if getattr(args, "measured", None) is None:
        return int(args.run(args, session))
    from drd.counts import StoreCounts
    from drd.wiring_notify import utc_now

    began, session.counts = utc_now(), StoreCounts()
    try:
        code = int(args.run(args, session))
    except Cancelled:
        raise
    except DrdError as error:
        measuring.publish(args, session, began, error)
        raise
    measuring.publish(args, session, began, None)
    return code


def report(error: DrdError, *, as_json: bool) -> int:
    """Show an error and return its exit code."""
    if as_json:
        try:
            documents.emit({"error": documents.error(error)})
            sys.stdout.flush()
        except BrokenPipeError:  # nobody reads it; the exit code still says it
            streams.abandon_output()
    try:
        print(render.error_lines(error, stream=sys.stderr), file=sys.stderr, flush=True)
    except BrokenPipeError:
        streams.abandon_errors()
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
