"""Scratch servers as plain processes of this machine: for hosts without a container engine.

Each has a private folder, an unprivileged user where drd is root, a port on loopback, a random password and a guardian
(:mod:`drd.scratch.guardian`) that holds it to its limits and ends it with drd. What a process cannot have is a network
of its own: nothing but its settings keeps it from talking to others.
"""

from __future__ import annotations

import json
import math
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath

from drd.cancel import CancelToken
from drd.errors import DrdError, ScratchError
from drd.model import CheckItem, EngineKind, ScratchSpec
from drd.protocols import Clock, ScratchServer
from drd.scratch import ledger, owners
from drd.scratch.commands import PATH
from drd.scratch.lending import lent
from drd.scratch.process_server import ProcessServer
from drd.scratch.programs import Program, choose, programs
from drd.scratch.ready import PortTaken, wait_ready
from drd.scratch.recipes import RECIPES
from drd.scratch.recipes.recipe import Place, Recipe
from drd.scratch.sizes import without_room
from drd.wording import size

_GUARDIAN = Path(__file__).with_name("guardian.py")
_LOOPBACK = "127.0.0.1"
_ATTEMPTS = 4


class ProcessRuntime:
    """Starts ``postgres``, ``redis-server`` or ``clickhouse`` in folders below ``root``.

    The programs come from ``programs`` (a folder an engine), the PATH or where packages put them; a spec's ``image``
    is a folder of programs. ``run_as`` names the user that a server becomes where drd is root.
    """

    name = "process"

    def __init__(
        self,
        root: Path,
        *,
        now: Clock,
        programs: Mapping[EngineKind, Path] | None = None,
        run_as: str | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        self._root = root
        self._now = now
        self._folders = {engine: [folder] for engine, folder in (programs or {}).items()}
        self._run_as = run_as
        self._ready_timeout_s = ready_timeout_s

    @contextmanager
    def start(self, spec: ScratchSpec, cancel: CancelToken) -> Iterator[ScratchServer]:
        """Start a server; leaving the block ends it and removes its folder."""
        recipe = RECIPES[spec.engine]
        program = choose(recipe, spec, self._folders.get(spec.engine, ()))
        user = self._user(recipe)
        self._make_root(user)
        self.reap()
        without_room(spec, shutil.disk_usage(self._root).free, str(self._root))
        with lent(self._launch(recipe, spec, program, user, cancel)) as server:
            yield server

    def reap(self, *, kept: bool = False) -> Sequence[str]:
        """Remove what drds that are gone left below the root, and what has expired; with ``kept``, what was kept too.

        Servers of running drds are left alone.
        """
        lines = []
        for folder in sorted(self._root.glob(f"{ledger.PREFIX}*")):
            try:
                why = ledger.reason_to_remove(folder, self._now(), kept_too=kept)
            except FileNotFoundError:  # its own guardian was quicker
                continue
            if not why:
                continue
            entry = ledger.entry_of(folder)
            if entry and entry.owner.same_boot():
                running = ledger.processes_of(folder)
                if guardian := running.get("guardian"):
                    owners.end(guardian, signal.SIGTERM, 15.0)
                if process := running.get("server"):
                    owners.end(process, entry.stop_signal)
            ledger.remove_tree(folder)
            lines.append(f"removed {folder} ({entry.engine if entry else 'unknown'}): {why}")
        return lines

    def check(self) -> Sequence[CheckItem]:
        """Look for the programs of each engine, and whether the root can be used."""
        items = []
        for engine, recipe in RECIPES.items():
            found = programs(recipe, self._folders.get(engine, ()))
            detail = ", ".join(map(str, found)) or f"no {recipe.title} server program on this machine"
            hint = (
                "" if found else f"install it, name the folder of its programs, or use the runtime docker for {engine}"
            )
            items.append(CheckItem(f"scratch process {engine}", "ok" if found else "warning", detail, hint))
        try:
            for recipe in RECIPES.values():
                self._make_root(self._user(recipe))
            free = shutil.disk_usage(self._root).free
            items.append(CheckItem("scratch process folder", "ok", f"{self._root}, {size(free)} free"))
        except DrdError as error:
            items.append(CheckItem("scratch process folder", "failed", error.message, error.hint))
        return items

    def _user(self, recipe: Recipe) -> pwd.struct_passwd | None:
        if os.geteuid() != 0:
            return None
        for name in [self._run_as] if self._run_as else recipe.users:
            with suppress(KeyError):
                found = pwd.getpwnam(name)
                if found.pw_uid != 0:
                    return found
        names = self._run_as or " or ".join(recipe.users)
        raise ScratchError(
            f"a scratch {recipe.title} must not run as root, and there is no unprivileged user {names}",
            hint="name a user to run scratch servers as",
        )

    def _make_root(self, user: pwd.struct_passwd | None) -> None:
        try:
            self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
            own = self._root.lstat()
            closed = user and next((p for p in (self._root, *self._root.parents) if not p.stat().st_mode & 0o001), None)
        except OSError as error:
            raise ScratchError(
                f"cannot use {self._root} for scratch servers: {error.strerror}",
                hint="name a folder on a disk with room that drd may write",
            ) from error
        if own.st_uid != os.geteuid() or own.st_mode & 0o022 or not stat.S_ISDIR(own.st_mode):
            raise ScratchError(
                f"{self._root} is not a folder of drd's own that others cannot change",
                hint="remove it, or name another folder",
            )
        if user and closed:
            raise ScratchError(
                f"user {user.pw_name}, which scratch servers run as, cannot pass through {closed} to {self._root}",
                hint=f"chmod o+x {closed}, or name another folder, such as /var/tmp/drd-scratch",
            )

    def _launch(
        self, recipe: Recipe, spec: ScratchSpec, program: Program, user: pwd.struct_passwd | None, cancel: CancelToken
    ) -> ProcessServer:
        for _ in range(_ATTEMPTS):
            server = self._spawn(recipe, spec, program, user)
            try:
                version = wait_ready(
                    server.ask,
                    title=recipe.title,
                    death=server.death,
                    log=server.log,
                    cancel=cancel,
                    patience_s=self._ready_timeout_s,
                    hint=f"the program is {program.path}; more memory, another version or the runtime docker may help",
                )
            except PortTaken:
                server.close()
                continue
            except BaseException:
                server.close()
                raise
            server.describe(version)
            return server
        raise ScratchError("every port tried for a scratch server was taken meanwhile", hint="try again")

    def _spawn(
        self, recipe: Recipe, spec: ScratchSpec, program: Program, user: pwd.struct_passwd | None
    ) -> ProcessServer:
        until = self._now() + timedelta(seconds=spec.expires_s)
        entry = ledger.Entry(spec.engine, owners.Owner.current(), until, recipe.stop_signal)
        folder = ledger.make_folder(self._root, entry, shared=user is not None)
        home = folder / "server"
        ports = _free_ports(len(recipe.ports))
        place = Place(
            PurePosixPath(home / "conf"),
            PurePosixPath(home / "data"),
            _LOOPBACK,
            ports,
            _LOOPBACK,
            secrets.token_urlsafe(24),
            program.version,
            spec.memory_bytes,
            spec.cpus,
        )
        try:
            for path in (home, home / "conf", home / "data"):
                path.mkdir(mode=0o700)
            for name, text in recipe.files(place).items():
                ledger.write_private(home / "conf" / name, text)
            ledger.write_private(folder / "password", place.password + "\n")
            if user:
                for path in (home, *home.iterdir(), *(home / "conf").iterdir()):
                    os.chown(path, user.pw_uid, user.pw_gid)
        except OSError as error:
            ledger.remove_tree(folder)
            raise ScratchError(f"cannot write the scratch server's folder {folder}: {error.strerror}") from error
        order = {
            "folder": str(folder),
            "argv": recipe.command(place, str(program.path)),
            "env": _environment(program.path, home),
            "cwd": str(home),
            "uid": user.pw_uid if user else None,
            "gid": user.pw_gid if user else None,
            "stop_signal": recipe.stop_signal,
            "grace_s": 5.0,
            "expires_s": spec.expires_s,
            "memory_bytes": spec.memory_bytes,
            "disk_bytes": spec.disk_bytes,
            "pids": spec.pids,
            "processors": _processors(spec.cpus),
        }
        return ProcessServer(recipe, spec, program, place, folder, user, _guard(order, folder))


def _guard(order: Mapping[str, object], folder: Path) -> subprocess.Popen[bytes]:
    try:
        with (folder / "guardian.log").open("ab") as log:
            guardian = subprocess.Popen(
                [sys.executable, "-I", str(_GUARDIAN)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is drd's to act on
                cwd="/",
            )
    except OSError as error:
        ledger.remove_tree(folder)
        raise ScratchError(f"cannot start the guardian of a scratch server: {error.strerror}") from error
    if guardian.stdin is not None:
        with suppress(BrokenPipeError):  # it died; the readiness check will tell
            guardian.stdin.write(json.dumps(order).encode() + b"\n")
            guardian.stdin.flush()
    return guardian


def _environment(program: Path, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{program.parent}:{PATH}",
        "HOME": str(home),
        "TMPDIR": str(home / "data"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "CLICKHOUSE_WATCHDOG_ENABLE": "0",  # one process, which the guardian knows
    }


def _processors(cpus: float) -> list[int]:
    """Return the processors a server is kept to, the last ones of drd's own; empty when the limit is no limit."""
    mine = sorted(os.sched_getaffinity(0))
    count = max(1, math.ceil(cpus))
    return mine[-count:] if count < len(mine) else []


def _free_ports(count: int) -> tuple[int, ...]:
    """Return ports of loopback that nobody listens on now; a race that is lost is another attempt."""
    sockets = [socket.create_server((_LOOPBACK, 0)) for _ in range(count)]
    try:
        return tuple(made.getsockname()[1] for made in sockets)
    finally:
        for made in sockets:
            made.close()
