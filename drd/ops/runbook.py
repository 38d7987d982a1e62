"""Print the shell commands that restore a backup with stock tools only, for the day drd itself is not at hand."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from drd.model import FINGERPRINT_ARTIFACT, Backup
from drd.protocols import Format


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where the repository lies, as the ``aws`` command needs it."""

    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """The directory in which the repository lies."""

    path: str


def runbook(backup: Backup, location: S3Location | FolderLocation, backup_format: Format) -> str:
    """Return a bash script: fetch, verify, decrypt and decompress every part, then restore with the engine's tools."""
    age = ", age" if backup.encryption == "age" else ""
    aws = ", aws (with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set)" if isinstance(location, S3Location) else ""
    lines = [
        "#!/usr/bin/env bash",
        f"# Restore {backup.id} ({backup.source}, {backup.engine} {backup.engine_version}) without drd.",
        f"# State as of {backup.recovery_point:%Y-%m-%d %H:%M:%S} UTC; {backup.plain_bytes} bytes once decoded.",
        f"# Needs: bash, coreutils, zstd{age}{aws},",
        "# and the tools of the database named below.",
        "set -euo pipefail",
        ': "${DRD_WORK:?set DRD_WORK to an empty directory with room for the decoded backup}"',
        *_fetching(backup, location),
        "",
        "# 1. Fetch every part, check its digest, decode it, and join the parts of each file.",
        *_parts(backup),
        "",
        f"# 2. Restore {backup.engine}.",
        *backup_format.runbook(backup),
    ]
    return "\n".join(lines) + "\n"


def _fetching(backup: Backup, location: S3Location | FolderLocation) -> list[str]:
    lines: list[str] = []
    if backup.encryption == "age":
        lines.append(': "${DRD_IDENTITY:?set DRD_IDENTITY to the file with the age identity (AGE-SECRET-KEY-1...)}"')
    if isinstance(location, S3Location):
        endpoint = f" --endpoint-url {shlex.quote(location.endpoint_url)}" if location.endpoint_url else ""
        base = "/".join(part for part in (location.bucket, location.prefix.strip("/")) if part)
        url = shlex.quote(f"s3://{base}/")
        lines.append(
            f'get() {{ aws s3 cp --only-show-errors --region {shlex.quote(location.region)}{endpoint} {url}"$1" -; }}'
        )
    else:
        lines.append(f'get() {{ cat -- {shlex.quote(location.path)}/"$1"; }}')
    decrypt = 'age -d -i "$DRD_IDENTITY" | ' if backup.encryption == "age" else ""
    lines.append(f"decode() {{ {decrypt}zstd -dcq; }}")
    return lines


def _parts(backup: Backup) -> list[str]:
    """List the parts in a here-document: digest, key, file. What the server reads from the store itself is left out."""
    rows: list[str] = []
    for artifact in backup.artifacts:
        if artifact.name == FINGERPRINT_ARTIFACT or (artifact.raw and backup.facts.get("mode") == "direct"):
            continue
        rows.extend(f"{part.stored_sha256} {part.key} {artifact.name}" for part in artifact.parts)
        if not artifact.parts:
            rows.append(f"- - {artifact.name}")
    if not rows:
        return ["# Nothing to fetch: the database server reads the store itself."]
    return [
        'part="$DRD_WORK/.part"',
        "while read -r digest key file; do",
        '  mkdir -p "$(dirname "$DRD_WORK/$file")"; touch "$DRD_WORK/$file"',
        '  if [ "$key" != - ]; then',
        '    get "$key" > "$part"',
        '    echo "$digest  $part" | sha256sum --check --quiet -',
        '    decode < "$part" >> "$DRD_WORK/$file"',
        "  fi",
        "done <<'PARTS'",
        *rows,
        "PARTS",
        'rm -f "$part"',
    ]
