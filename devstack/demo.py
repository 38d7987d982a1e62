"""The demo: a trading platform is backed up, lives on, is lost, and comes back as it was at a chosen time.

Every step is the command a person would type, run as its own process; what is compared at the end is read from the
servers directly, not through drd.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from devstack import ledger, obtain, state, truth
from devstack.errors import DevstackError
from devstack.stack import SERVICES, Stack
from devstack.workspace import Workspace

INTEGRITY_EXIT_CODE = 20
_VERDICTS = {0: "passed", 21: "failed", 22: "could not be carried out"}


def demonstrate(*, scale: float = 1.0, keep: bool = False, as_json: bool = False) -> int:
    """Run the whole story; return 0 when all came back equal and proven, 20 or a failed command's code when not."""
    out = sys.stderr if as_json else sys.stdout
    try:
        for name in SERVICES:
            obtain.BY_SERVICE[name](install=True)
        ledger.reap_abandoned()
        folder = Path(tempfile.mkdtemp(prefix="drd-demo-"))
        with Workspace.create() as workspace:
            story = _Story(folder, as_json=as_json)
            code = story.tell(workspace, scale)
            if keep:
                workspace.keep(folder)
                print(f"\nThe servers stay. Use them:  export DRD_CONFIG={folder / state.CONFIG}", file=out)
                print(f"Stop them:  {sys.executable} -m devstack down --dir {folder}", file=out)
        if not keep:
            ledger.remove_tree(folder)
    except DevstackError as error:
        print(f"✗ demo: {error}", file=sys.stderr)
        return 1
    return code


class _Story:
    """One run of the demo, telling what it does as it goes."""

    def __init__(self, folder: Path, *, as_json: bool) -> None:
        self._folder = folder
        self._out = sys.stderr if as_json else sys.stdout
        self._as_json = as_json
        self._started = time.monotonic()

    def tell(self, workspace: Workspace, scale: float) -> int:
        """Start, load, back up, change, back up, destroy, restore, compare, drill."""
        self._say("Start PostgreSQL, Redis, ClickHouse and an S3 server on loopback, and load a trading platform")
        stack = Stack.start(workspace)
        rows = stack.load(scale)
        state.write(stack, self._folder)
        print("  " + "  ".join(f"{name} {count:,}" for name, count in rows.items()), file=self._out)
        self._say("Look whether everything is fit for backups, and take the first one")
        for command in (["check"], ["backup", "now"]):
            if code := self._drd(*command):
                return code
        then = truth.of(stack)
        at = datetime.now(UTC)
        self._say(f"It is {at:%H:%M:%S} UTC. The platform lives on: new orders, quotes and ticks; then a second backup")
        time.sleep(1.1)  # so that the second backup's state is plainly later than the time we go back to
        stack.load_more()
        if code := self._drd("backup", "now"):
            return code
        later = truth.of(stack)
        self._say("Disaster: the databases are dropped, Redis is flushed")
        stack.lose_everything()
        lost = truth.of(stack)
        self._say("Bring everything back to the time of the first backup")
        wanted = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for command in (["status"], ["restore", "--at", wanted]):
            if code := self._drd(*command):
                return code
        equal = self._compare(then, later, lost, truth.of(stack))
        self._say("And the newest backups? Restore them into throw-away servers, from the store and the identity alone")
        drilled = self._drd("drill", "now")
        self._close(then, truth.of(stack), equal=equal, drilled=drilled)
        return drilled if equal else INTEGRITY_EXIT_CODE

    def _say(self, text: str) -> None:
        print(f"\n── {text} ({time.monotonic() - self._started:.0f} s)", file=self._out, flush=True)

    def _drd(self, *arguments: str) -> int:
        """Run one command as a person would, in a process of its own."""
        print(f"\n$ drd {shlex.join(arguments)}", file=self._out, flush=True)
        environment = {**os.environ, "DRD_CONFIG": str(self._folder / state.CONFIG)}
        argv = [sys.executable, "-m", "drd", *arguments]
        done = subprocess.run(argv, env=environment, stdout=self._out, check=False)
        if done.returncode:
            print(f"✗ drd {shlex.join(arguments)} ended with exit code {done.returncode}", file=sys.stderr)
        return done.returncode

    def _compare(self, then: truth.Truth, later: truth.Truth, lost: truth.Truth, now: truth.Truth) -> bool:
        """Show each table at the first backup, before the disaster, after it, and after the restore."""
        self._say("Compare, read from the servers directly: rows or keys, and a digest of the content")
        equal = then == now and bool(then)
        width = max(len(name) for name in then)
        print(f"  {'':<{width}}  {'FIRST BACKUP':<26}{'BEFORE THE LOSS':<17}{'AFTER':<9}RESTORED", file=self._out)
        for name in sorted({*then, *now}):
            want, have = then.get(name, (0, "absent")), now.get(name, (0, "absent"))
            mark = "✓" if want == have else "✗"
            print(
                f"  {name:<{width}}  {want[0]:>11,} {want[1]:<14}{later.get(name, (0, ''))[0]:>13,}    "
                f"{lost.get(name, (0, ''))[0]:>5,}    {have[0]:>11,} {have[1]} {mark}",
                file=self._out,
            )
        return equal

    def _close(self, then: truth.Truth, now: truth.Truth, *, equal: bool, drilled: int) -> None:
        """Say in one line how it went, and where to look next."""
        took_s = time.monotonic() - self._started
        verdict = "every row and digest is that of the first backup" if equal else "NOT equal to the first backup"
        proof = _VERDICTS.get(drilled, f"ended with exit code {drilled}")
        good = equal and not drilled
        mark = "✓" if good else "✗"
        print(
            f"\n{mark} {verdict}; the drill of the newest {proof}; the whole demo took {took_s:.0f} s", file=self._out
        )
        if self._as_json:
            tables = {name: {"expected": then.get(name), "found": now.get(name)} for name in sorted({*then, *now})}
            outcome = "ok" if good else "failed"
            print(json.dumps({"outcome": outcome, "drill": proof, "seconds": round(took_s, 1), "tables": tables}))
        else:
            print(
                "\nWhere to look next: README.md · drd demo --keep leaves the servers up to play with ·\n"
                "config/drd.example.yaml for your own databases · drd --help",
                file=self._out,
            )
