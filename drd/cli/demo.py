"""``drd demo``: from nothing to proof, on real servers that the demo starts and stops itself."""

from __future__ import annotations

import argparse
from typing import Any

from drd.cli.session import Session
from drd.errors import ConfigError

MAX_SCALE = 1000


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "demo",
        help="back up, destroy and restore a trading platform",
        parents=[common],
        description="Start PostgreSQL, Redis, ClickHouse and an S3 server on loopback, load a trading platform, "
        "back it up, change it, destroy it, restore it to a time, and compare.",
    )
    parser.add_argument("--scale", type=_scale, default=1.0, help="how much data; 1 is some seconds of work (1)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the servers running and say how to use and stop them"
    )
    parser.set_defaults(run=run)


def _scale(text: str) -> float:
    scale = float(text)
    if not 0 < scale <= MAX_SCALE:  # neither nan nor inf
        raise ValueError(text)
    return scale


_scale.__name__ = f"scale (above 0, at most {MAX_SCALE})"  # argparse names the type in its message


def run(args: argparse.Namespace, session: Session) -> int:
    """Run the demo; 0 when every row and hash after the restore is what it was, 20 when not."""
    try:
        from devstack.demo import demonstrate
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the demo needs the servers of devstack, and {error.name} is not installed",
            op="demo",
            hint="clone drd and run: make demo",
        ) from error
    return demonstrate(scale=args.scale, keep=args.keep, as_json=session.as_json)
