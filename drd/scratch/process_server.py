"""One running scratch server that is a process of this machine."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.model import Json, ScratchEndpoint, ScratchSpec, Secret
from drd.scratch import ledger, owners
from drd.scratch.commands import PATH, guarded_run
from drd.scratch.programs import Program
from drd.scratch.ready import last_words
from drd.scratch.recipes.recipe import Place, Recipe
from drd.wording import size

_END_S = 30.0


class ProcessServer:
    """A server under its guardian; see :class:`~drd.protocols.ScratchServer`."""

    endpoint: ScratchEndpoint

    def __init__(
        self,
        recipe: Recipe,
        spec: ScratchSpec,
        program: Program,
        place: Place,
        folder: Path,
        user: pwd.struct_passwd | None,
        guardian: subprocess.Popen[bytes],
    ) -> None:
        self._recipe = recipe
        self._spec = spec
        self._program = program
        self._place = place
        self._folder = folder
        self._user = user
        self._guardian = guardian
        self._kept = False
        self._death = ""

    def ask(self) -> str:
        """Return the version that the server answers with; raises NotReady."""
        return self._recipe.ask(self._place.listen, self._place.ports[0], self._place.password)

    def describe(self, version: str) -> None:
        """Make the endpoint, once the server has answered."""
        spec, host, port = self._spec, self._place.listen, self._place.ports[0]
        connect = self._recipe.connect(host, port, f"cat {self._folder}/password")
        self.endpoint = ScratchEndpoint(
            engine=spec.engine,
            name=self._folder.name,
            url=self._recipe.url(host, port),
            password=Secret(self._place.password),
            version=version,
            environment={
                "runtime": "process",
                "program": str(self._program.path),
                "version": version,
                "user": self._user.pw_name if self._user else _own_name(),
                "memory": size(spec.memory_bytes),
                "processors": f"{spec.cpus:g}",
                "threads and processes": str(spec.pids),
                "disk": size(spec.disk_bytes),
                "network": "loopback; a process of this machine, kept from others by its settings alone",
            },
            connect=(connect,),
            listen_host=self._place.host,
        )

    def death(self) -> str:
        """Say why the server has ended; empty while it runs."""
        if self._death:
            return self._death
        ended = ledger.ended(self._folder)
        if not ended:
            if self._guardian.poll() is None:
                return ""
            return f"its guardian was killed; {self._words()}"
        code, why = ended.get("code"), ended.get("why")
        if why:
            how = f"stopped by drd: {why}"
        elif code == -signal.SIGKILL and ended.get("oom"):
            how = "killed by the kernel, which was out of memory"
        elif isinstance(code, int) and code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        else:
            how = f"exit code {code}"
        self._death = f"{how}; {self._words()}"
        return self._death

    def _words(self) -> str:
        return f"its last words: {last_words(self.log(), hide=self._place.password) or 'none'}"

    def log(self, limit_bytes: int = 8192) -> str:
        """Return the end of the log; nothing once the folder is gone."""
        with suppress(FileNotFoundError), (self._folder / "server.log").open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - limit_bytes))
            return stream.read(limit_bytes).decode("utf-8", "replace")
        return ""

    def run(self, argv: Sequence[str], cancel: CancelToken) -> tuple[int, str]:
        """Let the guardian run a command as the server's user in its folder, under the server's limits."""
        home = self._folder / "server"
        order: dict[str, Json] = {
            "argv": list(argv),
            "env": {
                "PATH": f"{self._program.path.parent}:{PATH}",
                "HOME": str(home),
                "LANG": "C.UTF-8",
                "DRD_SCRATCH_URL": self.endpoint.url,
                "DRD_SCRATCH_PASSWORD": self._place.password,
            },
        }
        if self._guardian.stdin is None or self._guardian.poll() is not None or self.death():
            raise ScratchError(f"cannot run {argv[0]} beside the scratch server: {self.death() or 'it has ended'}")
        code, output = guarded_run(self._guardian, self._folder, order, cancel)
        if code is None:
            raise ScratchError(f"the guardian of the scratch server ended while {argv[0]} ran: {self.death()}")
        return code, output

    def keep(self) -> None:
        """Leave it to its guardian until it expires."""
        if self._guardian.stdin is None or self._guardian.poll() is not None or self.death():
            raise ScratchError(f"cannot keep the scratch server {self._folder.name}: {self.death() or 'it has ended'}")
        ledger.write_private(self._folder / "kept", "")
        self._guardian.stdin.write(b"keep\n")
        self._guardian.stdin.close()
        self._kept = True

    def close(self) -> None:
        """End the server and remove its folder, unless it is kept; raises ScratchError when something is left."""
        if self._kept or (self._guardian.returncode is not None and not self._folder.exists()):
            return
        if self._guardian.poll() is None:
            self.death()  # the last chance to learn of it
        if self._guardian.stdin is not None:
            with suppress(BrokenPipeError):
                self._guardian.stdin.close()
        try:
            self._guardian.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
            self._guardian.wait()
        if process := ledger.processes_of(self._folder).get("server"):
            owners.end(process, self._recipe.stop_signal)
        if self._folder.exists():
            ledger.remove_tree(self._folder)


def _own_name() -> str:
    """Return who this process is: a container's user often has a number alone."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
