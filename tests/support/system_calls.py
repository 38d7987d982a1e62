"""What a systemd unit lets its processes call, as a profile that a Docker Engine enforces."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Set as AbstractSet
from pathlib import Path

from devstack.errors import ServiceMissing


def allowed_calls(unit: Path) -> set[str]:
    """Return the system calls that a unit's SystemCallFilter lines leave, by systemd's own sets (systemd.exec(5))."""
    if shutil.which("systemd-analyze") is None:
        raise ServiceMissing("systemd-analyze is missing: apt-get install systemd")
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.+)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
        named = {call for word in line.removeprefix("~").split() for call in _calls(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def _calls(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    inside = {line.strip() for line in said.splitlines()[1:] if line.strip() and not line.strip().startswith("#")}
    return {call for one in inside for call in _calls(one)}


def seccomp_profile(folder: Path, allowed: AbstractSet[str]) -> Path:
    """Write a profile that refuses all else with EPERM, as the units do."""
    rules = [{"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}]
    profile = folder / f"seccomp-{len(allowed)}.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}), encoding="utf-8")
    return profile
