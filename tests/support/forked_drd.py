"""drd commands by the dozen: run by a process that has drd imported already, and that can let one die."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml

from tests.faults import dying_drd
from tests.support.drd_site import ROOT, Site

DIED = dying_drd.DIED


class ForkedDrd:
    """Runs commands of one site. Only for a local store: see :mod:`tests.faults.dying_drd`."""

    def __init__(self, site: Site, process: subprocess.Popen[str]) -> None:
        self._site = site
        self._process = process

    def dies(self, nth: int, *arguments: str, of: Sequence[str] = ("",), kinds: Sequence[str] = ("change",)) -> bool:
        """Run a command that ends at its n-th step; return whether it came that far.

        ``kinds`` are of those in :mod:`tests.faults.dying_drd`, ``of`` words: only changes of keys with one of them
        count.
        """
        code, _, said = self._run(nth, arguments, of, kinds)
        assert code in {0, DIED}, said
        return code == DIED

    def steps(self, *arguments: str, of: Sequence[str], kinds: Sequence[str]) -> list[str]:
        """Run a command, which must exit 0, and return its steps, as :meth:`dies` counts them: the kind of each."""
        code, taken, said = self._run(0, arguments, of, kinds)
        assert code == 0, said
        return taken

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """Run a command with ``--json``, which must exit 0, and return its document."""
        code, _, said = self._run(0, (*arguments, "--json"))
        assert code == 0, said
        found: dict[str, Any] = json.JSONDecoder().raw_decode(said[said.index("{") :])[0]
        return found

    def _run(
        self, nth: int, arguments: tuple[str, ...], of: Sequence[str] = (), kinds: Sequence[str] = ()
    ) -> tuple[int, list[str], str]:
        site = self._site
        site.config_file.write_text(yaml.safe_dump(site.config, sort_keys=False), encoding="utf-8")
        output = site.folder / "forked.out"
        request = {
            "arguments": arguments,
            "environment": {**site.env, "DRD_CONFIG": str(site.config_file), "PATH": "/usr/bin:/bin"},
            "folder": str(site.folder),
            "output": str(output),
            "nth": nth,
            "of": list(of),
            "kinds": list(kinds),
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code, *taken = self._process.stdout.readline().split()
        said = output.read_text(encoding="utf-8")
        site.demand_no_secret(said, f"the output of drd {' '.join(arguments)}")
        return int(code), taken, f"drd {' '.join(arguments)}: exit {code}\n{said}"


@contextmanager
def forked_drd(site: Site) -> Iterator[ForkedDrd]:
    """Lend what runs commands of a site; its process is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, dying_drd.__file__],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            yield ForkedDrd(site, process)
            assert process.stdin
            process.stdin.close()
    finally:
        process.kill()
