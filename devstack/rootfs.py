"""Make the file system of a container out of programs that this machine has, with the libraries that they need."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack.errors import ServiceMissing

TOOLS = (
    "sh",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "printenv",
    "printf",
    "ps",
    "pwd",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setpriv",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tar",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
    "xargs",
)
_MERGED = re.compile(r"^/(bin|sbin|lib|lib64)/")  # Debian keeps them below /usr and links to them
_BASE = ("bin", "sbin", "lib", "lib64")


@dataclass
class Rootfs:
    """What goes into the tar. ``files`` are paths of this machine, kept where they are; ``texts`` are made here.

    ``users`` maps a name to its number; ``folders`` maps a path to the user that owns it and its mode.
    """

    files: list[Path] = field(default_factory=list)
    placed: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)
    folders: dict[str, tuple[str, int]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the tar; the paths in it are sorted, each folder before what is in it."""
        with tarfile.open(path, "w") as archive:
            _Writer(archive).all(self)


class _Writer:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._known: set[str] = set()

    def all(self, rootfs: Rootfs) -> None:
        for name in _BASE:
            self._folder(f"usr/{name}")
            self._link(name, f"usr/{name}")
        for name, mode in (("tmp", 0o1777), ("run", 0o755), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)):
            self._folder(name, mode)
        accounts = {"root": 0, **rootfs.users}
        self._text("etc/passwd", "".join(f"{n}:x:{i}:{i}::/:/bin/sh\n" for n, i in accounts.items()), 0o644)
        self._text("etc/group", "".join(f"{n}:x:{i}:\n" for n, i in accounts.items()), 0o644)
        self._text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644)
        tools = [Path(found) for name in TOOLS if (found := shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"))]
        every = {*rootfs.files, *tools}
        for file in sorted(every | libraries([*every, *rootfs.placed.values()])):
            self._file(_MERGED.sub(r"/usr/\1/", str(file)).lstrip("/"), file)
        for name, source in rootfs.placed.items():
            self._file(name, source)
        for name, text in rootfs.texts.items():
            self._text(name, text, 0o755)
        for name, (user, mode) in rootfs.folders.items():
            self._folder(name, mode, accounts[user])

    def _add(self, name: str, info: tarfile.TarInfo, content: io.BufferedIOBase | None = None) -> None:
        if name in self._known:
            return
        if (parent := name.rpartition("/")[0]) and parent not in self._known:
            self._folder(parent)
        self._known.add(name)
        self._archive.addfile(info, content)

    def _folder(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, owner, owner
        self._add(name, info)

    def _link(self, name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._add(name, info)

    def _text(self, name: str, text: str, mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(text.encode()), mode
        self._add(name, info, io.BytesIO(text.encode()))

    def _file(self, name: str, source: Path) -> None:
        real = source.resolve()
        info = tarfile.TarInfo(name)
        info.size, info.mode = real.stat().st_size, real.stat().st_mode & 0o755
        with real.open("rb") as stream:
            self._add(name, info, stream)


def below(*folders: Path, without: Iterable[str] = ()) -> list[Path]:
    """Return every file below the folders, but those whose path has a part of ``without`` in it."""
    unwanted = tuple(without)
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise ServiceMissing(f"there is no {folder} to make a stand-in image of")
        found += [f for f in folder.rglob("*") if f.is_file() and not any(part in str(f) for part in unwanted)]
    return found


def libraries(files: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that programs and libraries need, as the loader of this machine finds them."""
    binaries = [str(path) for path in {file.resolve() for file in files} if _is_elf(path)]
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", said)}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"
