"""Start the trading platform's servers on loopback and keep them: ``python -m devstack up|down|status|obtain``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from devstack import kept, ledger, obtain
from devstack.errors import DevstackError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code: 0 done, 1 failed or (status) not everything runs, 2 usage."""
    options = _parser().parse_args(argv)
    try:
        match options.verb:
            case "up":
                return _up(options)
            case "down":
                return _down(options)
            case "status":
                return _status(options)
            case _:
                return _obtain(options)
    except DevstackError as error:
        if options.json:
            print(json.dumps({"error": str(error)}))
        else:
            print(f"✗ {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start all servers, load data, write drd.yaml; the servers stay")
    down = verbs.add_parser("down", help="end exactly those servers and remove what up wrote")
    status = verbs.add_parser("status", help="what runs, where; exit 1 unless all of it does")
    fetch = verbs.add_parser("obtain", help="install or fetch what is missing, and say what is here")
    for verb in (up, down, status, fetch):
        verb.add_argument("--json", action="store_true", help="one JSON document on standard output")
    for verb in (up, down, status):
        verb.add_argument("--dir", type=Path, default=Path(".devstack"), help="state folder (default: .devstack)")
    up.add_argument("--scale", type=float, default=1.0, help="how much data: 0 none, 1 seconds (default), 50 gigabytes")
    for name in obtain.BY_SERVICE:
        up.add_argument(f"--no-{name}", action="store_true", help=f"leave {name} out")
    fetch.add_argument("--postgres", type=int, action="append", default=[], metavar="MAJOR", help="also 17 or 18")
    fetch.add_argument("--redis", action="append", default=[], choices=sorted(obtain.REDIS_PYPI), help="also this one")
    return parser


def _up(options: argparse.Namespace) -> int:
    from devstack import state  # noqa: PLC0415 # heavy: status and down need none of it
    from devstack.stack import Stack  # noqa: PLC0415
    from devstack.workspace import Workspace  # noqa: PLC0415

    started = time.monotonic()
    state_dir: Path = options.dir.absolute()
    if any(service.state == "running" for service in kept.read(state_dir)):
        raise DevstackError(f"servers of {options.dir} are up already; see status, or take them down first")
    if options.scale < 0:
        raise DevstackError("--scale is 0 or more")
    services = [name for name in obtain.BY_SERVICE if not getattr(options, f"no_{name}")]
    if not services:
        raise DevstackError("every service is left out; nothing to start")
    kept.take_down(state_dir)
    kept.refuse_to_overwrite(state_dir)
    ledger.reap_abandoned()
    _say(options, "obtaining programs …")
    for name in services:
        obtain.BY_SERVICE[name](install=True)
    state_dir.mkdir(parents=True, exist_ok=True)
    with Workspace.create() as workspace:
        _say(options, f"starting {', '.join(services)} …")
        stack = Stack.start(workspace, services)
        rows: dict[str, int] = {}
        if options.scale > 0:
            _say(options, f"loading data at scale {options.scale:g} …")
            rows = stack.load(options.scale)
        config = state.write(stack, state_dir)
        workspace.keep(state_dir)
    found = kept.read(state_dir)
    seconds = time.monotonic() - started
    if options.json:
        document = {"config": str(config), "rows": rows, "services": [asdict(service) for service in found]}
        print(json.dumps({**document, "seconds": round(seconds, 1)}, indent=2))
    else:
        _table(found)
        if rows:
            print("\n  " + "  ".join(f"{name} {count:,}" for name, count in rows.items()))
        print(f"\n✓ up in {seconds:.1f} s. Next:\n")
        shown = options.dir / kept.CONFIG
        print(f"  export DRD_CONFIG={shown}\n  drd check\n  drd backup now\n  drd restore --at now --dry-run")
        print(f"\n  python -m devstack down{_dir_option(options)}   # when done")
    return 0


def _down(options: argparse.Namespace) -> int:
    was_up = kept.take_down(options.dir.absolute())
    if options.json:
        print(json.dumps({"was_up": was_up}))
    else:
        print("✓ down: servers ended, files removed" if was_up else f"nothing is up in {options.dir}")
    return 0


def _status(options: argparse.Namespace) -> int:
    found = kept.read(options.dir.absolute())
    all_run = bool(found) and all(service.state == "running" for service in found)
    if options.json:
        print(json.dumps({"up": all_run, "services": [asdict(service) for service in found]}, indent=2))
    elif found:
        _table(found)
    else:
        print(f"nothing is up in {options.dir}; start with: python -m devstack up{_dir_option(options)}")
    return 0 if all_run else 1


def _obtain(options: argparse.Namespace) -> int:
    for find in (*obtain.BY_SERVICE.values(), *obtain.BY_TOOL.values()):
        find(install=True)
    for major in options.postgres:
        obtain.postgres_bin(major, install=True)
    for version in options.redis:
        obtain.redis_program(version, install=True)
    if options.json:
        print(json.dumps({"inventory": obtain.inventory()}))
    else:
        print("\n".join(obtain.inventory()))
    return 0


def _table(services: Sequence[kept.Service]) -> None:
    rows = [("SERVICE", "STATE", "PID", "URL", "PASSWORD IN")]
    rows += [(s.name, s.state, str(s.pid), s.url, s.password_file) for s in services]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _dir_option(options: argparse.Namespace) -> str:
    return "" if options.dir == Path(".devstack") else f" --dir {options.dir}"


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
