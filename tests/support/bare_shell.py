"""A shell as on a machine without drd: stock tools on its PATH and nothing else, an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from drd.model import Backup
from drd.ops.runbook import FolderLocation, runbook
from drd.protocols import Format

_STOCK = (
    "awk bash cat chmod chown cp curl cut date df dirname env find grep head id ls mkdir mv rm sed seq sh sha256sum "
    "sleep sort tail tar touch tr uname wc xargs age zstd redis-server redis-cli redis-check-rdb"
)
TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Ended:
    """What one script gave."""

    rc: int
    text: str

    def succeeds(self) -> Ended:
        """Demand exit code 0 and no message of a shell that fell over; return self."""
        assert self.rc == 0, self.text
        assert "✗" not in self.text, self.text
        assert "unbound variable" not in self.text, self.text
        return self

    def fails(self, *words: str) -> Ended:
        """Demand exit code 1, and that these words are said; return self."""
        assert self.rc == 1, self.text
        for word in words:
            assert word in self.text, f"{word!r} is not in\n{self.text}"
        assert "unbound variable" not in self.text, self.text
        return self


def decoded(
    backup: Backup, artifacts: Mapping[str, bytes], backup_format: Format, folder: Path
) -> tuple[str, dict[str, str]]:
    """Lay artifacts below ``folder`` as the script's first half would; return the script and what it needs to know."""
    for name, content in artifacts.items():
        (folder / "decoded" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "decoded" / name).write_bytes(content)
    script = runbook(backup, FolderLocation(str(folder / "no-store")), backup_format)
    return script, {"DRD_WORK": str(folder / "work"), "DRD_DECODED": str(folder / "decoded")}


class BareShell:
    """Runs scripts below ``folder``; ``programs`` are more tools by their paths, such as ``pg_restore``."""

    def __init__(self, folder: Path, programs: Iterable[Path] = ()) -> None:
        self.folder = folder
        self.bin_dir = folder / "bin"
        self.bin_dir.mkdir(parents=True)
        for name in _STOCK.split():
            found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            assert found, f"this machine has no {name}; see .ci/system-packages"
            (self.bin_dir / name).symlink_to(found)
        for program in programs:
            (self.bin_dir / program.name).symlink_to(program)
        for absent in ("drd", "python", "python3", "perl", "rclone"):
            assert shutil.which(absent, path=str(self.bin_dir)) is None

    def run(self, script: str, env: Mapping[str, str] | None = None, *, timeout_s: float = TIMEOUT_S) -> Ended:
        """Save the script as a person would, and run it with bash to its end; ``env`` is all the environment it has."""
        process = self.start(script, env)
        out, _ = process.communicate(timeout=timeout_s)
        return Ended(process.returncode, out)

    def start(self, script: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it in a session of its own; both streams come out of ``stdout``."""
        path = self.folder / "restore.sh"
        path.write_text(script, encoding="utf-8")
        return subprocess.Popen(
            [str(self.bin_dir / "bash"), str(path)],
            env={
                "PATH": str(self.bin_dir),
                "HOME": str(self.folder),
                "AWS_EC2_METADATA_DISABLED": "true",
                **(env or {}),
            },
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
