"""Find the server programs of this machine, and which versions they are."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drd.errors import ScratchError
from drd.model import EngineKind, ScratchSpec
from drd.scratch.recipes.recipe import Recipe, numbers

_PACKAGED = {"postgres": ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")}
_ANSWER_S = 20
_INSTALL = {
    "postgres": "apt-get install postgresql-{release}",
    "redis": "apt-get install redis-server, of a release that has {release}",
    "clickhouse": "install clickhouse-server {release} or later",
}


@dataclass(frozen=True, slots=True)
class Program:
    """A server program and what it says its version is."""

    path: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.version))} ({self.path})"


def programs(recipe: Recipe, folders: Sequence[Path], *, packaged: bool = True) -> list[Program]:
    """Return every program of the engine in ``folders`` and, with ``packaged``, on the PATH and where packages go."""
    found: dict[Path, Program] = {}
    for path in _candidates(recipe, folders, packaged=packaged):
        real = path.resolve()
        if real not in found and (version := _version(path)):
            found[real] = Program(path, version)
    return list(found.values())


def choose(recipe: Recipe, spec: ScratchSpec, folders: Sequence[Path]) -> Program:
    """Return the program that is nearest to the version asked for; ``spec.image`` names the only folder to look in.

    Raises :class:`~drd.errors.ScratchError` that says which versions are here.
    """
    here = programs(recipe, [Path(spec.image)] if spec.image else folders, packaged=not spec.image)
    want = numbers(spec.version)
    fitting = [program for program in here if recipe.fits(program.version, want)]
    if fitting:
        return min(fitting, key=lambda program: program.version)
    release = recipe.release(want)
    where = f" in {spec.image}" if spec.image else " here"
    there = f"there is {', '.join(map(str, here))}" if here else "there is none at all"
    install = _INSTALL[recipe.engine].format(release=release)
    raise ScratchError(
        f"no {recipe.title} {release}{where} for a scratch server: {there}",
        hint=f"{install}, name the folder of its programs, or use the runtime docker",
    )


def _candidates(recipe: Recipe, folders: Sequence[Path], *, packaged: bool) -> Iterator[Path]:
    for folder in folders:
        yield from (folder / name for name in recipe.programs)
    if not packaged:
        return
    for name in recipe.programs:
        if found := shutil.which(name):
            yield Path(found)
    for pattern in _packaged(recipe.engine):
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            yield from (folder / name for name in recipe.programs)


def _packaged(engine: EngineKind) -> Sequence[str]:
    return _PACKAGED.get(engine, ())


def _version(path: Path) -> tuple[int, ...]:
    """Ask a program for its version; empty when it is none that can be started."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return numbers(said.stdout) if said.returncode == 0 else ()
