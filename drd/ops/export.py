"""Write a backup's artifacts as files of stock formats, for people without a server to restore into."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drd.cancel import CancelToken
from drd.errors import IntegrityError, TargetError, TargetNotEmpty
from drd.model import Backup
from drd.ops.observe import Meter, ObservedReader
from drd.ops.ports import Ports
from drd.ops.presence import unless_removed
from drd.protocols import ArtifactReader


def export(ports: Ports, backup: Backup, directory: Path) -> Path:
    """Write the decoded artifacts of a backup as files of stock formats below ``directory/<source>``.

    The folder must not exist yet; it appears only when complete, and only its owner can enter it. Raises
    :class:`~drd.errors.TargetNotEmpty`, :class:`~drd.errors.TargetError` or
    :class:`~drd.errors.IntegrityError`.
    """
    refuse_existing(directory, backup.source)
    final = directory / backup.source
    try:
        with _partial_folder(directory, backup.source) as partial:
            meter = Meter(ports.progress, backup.source, "fetch", backup.plain_bytes)
            with ports.reader(backup) as artifacts:
                observed = ObservedReader(artifacts, meter)
                try:
                    for name in observed.names():
                        _write_file(partial / name, observed, name, ports.cancel)
                except IntegrityError as error:
                    raise unless_removed(ports, backup, error) from error
            refuse_existing(directory, backup.source)
            partial.rename(final)
    except OSError as error:
        raise TargetError(
            f"cannot write to {directory}: {error.strerror}",
            op="restore",
            subject=backup.source,
            hint="make room or rights there, or name another directory with --into; what was written of it is gone",
        ) from error
    return final


def refuse_existing(directory: Path, source: str) -> None:
    """Raise :class:`~drd.errors.TargetNotEmpty` when an export of ``source`` would find its folder taken."""
    final = directory / source
    if os.path.lexists(final):
        raise TargetNotEmpty(
            f"{final} exists already. Nothing was changed",
            op="restore",
            subject=source,
            hint="name another directory with --into",
        )


@contextmanager
def _partial_folder(directory: Path, source: str) -> Iterator[Path]:
    """Lend an empty folder that nobody else works in; it is gone afterwards unless it was renamed.

    Locked (flock(2)), so that what a killed drd left can be told from what another one is writing.
    """
    partial = directory / f".{source}.partial"
    directory.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        partial.mkdir(mode=0o700)
    folder = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(folder), partial.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise TargetError(
                f"another drd is writing {source} to {directory}",
                op="restore",
                subject=source,
                hint="wait for it, or name another directory with --into",
            )
        try:
            for left in partial.iterdir():  # by an export that was killed
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(folder)


def _write_file(path: Path, artifacts: ArtifactReader, name: str, cancel: CancelToken) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out, artifacts.open(name) as stream:
        for chunk in stream.chunks():
            cancel.raise_if_cancelled()
            out.write(chunk)
