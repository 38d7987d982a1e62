"""A volume that drd and the ClickHouse server both see: pack a backup out of it, lay one into it, clean up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from drd.engines.clickhouse.client import Side
from drd.engines.clickhouse.packindex import PackIndex
from drd.engines.clickhouse.packing import PackingSpace
from drd.engines.clickhouse.s3wire import CHUNK_BYTES
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.errors import ConfigError
from drd.model import Notice, Progress
from drd.protocols import ArtifactReader, WorkContext


@dataclass(frozen=True)
class Volume:
    """drd's view of the server's disk; ``side`` decides the family of errors."""

    root: Path
    side: Side

    @classmethod
    def of(cls, settings: ClickHouseSettings, side: Side) -> Self:
        """Return the configured volume; raises :class:`~drd.errors.ConfigError` when drd cannot see it."""
        if settings.disk_path is None or not settings.disk_path.is_dir():
            raise ConfigError(
                f"mode disk needs disk_path, the folder where drd sees the server's disk {settings.disk_name}",
                hint="mount the same volume on both sides and name drd's folder in disk_path",
            )
        return cls(settings.disk_path, side)

    def pack(self, folder: str, space: PackingSpace, ctx: WorkContext) -> None:
        """Pack every file below ``folder``, without following links; the server's manifest comes last."""
        top = self.root / folder
        if not top.is_dir():
            raise self.side.failed(
                f"the server wrote its backup, but {top} is not there",
                hint="does disk_path show the same folder as the server's disk?",
            )
        done = 0
        try:
            for path in _files(top):
                ctx.cancel.raise_if_cancelled()
                with path.open("rb") as stream:
                    size = os.fstat(stream.fileno()).st_size
                    space.put_file(path.relative_to(top).as_posix(), size, _chunks(stream.read, size))
                done += size
                ctx.progress(Progress(ctx.source, "packing", done))
        except OSError as error:
            raise self.side.failed(
                f"cannot read {error.filename or top}: {error.strerror}",
                hint="drd needs to read what the server writes there: same user, or a common group",
            ) from error

    def unpack(self, folder: str, index: PackIndex, artifacts: ArtifactReader, ctx: WorkContext) -> None:
        """Write every object of ``index`` below ``folder``; keys were checked when the index was read."""
        top = self.root / folder
        done = 0
        try:
            top.mkdir(mode=0o755)
            for key, item in index.objects.items():
                ctx.cancel.raise_if_cancelled()
                path = top / key
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as out:
                    for artifact, offset, size in index.ranges(key, 0, item.size):
                        with artifacts.open(artifact, start=offset, length=size) as stream:
                            for chunk in stream.chunks():
                                out.write(chunk)
                done += item.size
                ctx.progress(Progress(ctx.source, "unpacking", done))
        except OSError as error:
            raise self.side.failed(
                f"cannot write {error.filename or top}: {error.strerror}",
                hint="drd needs to write where the server reads, and enough space for the whole backup",
            ) from error

    def remove(self, folder: str) -> Notice | None:
        """Delete ``folder``; return a notice naming it when that is refused."""
        try:
            shutil.rmtree(self.root / folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Notice("disk-leftover", f"cannot delete {self.root / folder}: {error.strerror}; delete it by hand")
        return None


def _files(top: Path) -> Iterator[Path]:
    late = []
    for folder, names, files in os.walk(top):
        names.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                continue
            if folder == str(top):
                late.append(path)
            else:
                yield path
    yield from late


def _chunks(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = read(min(left, CHUNK_BYTES))
        if not piece:
            raise OSError(5, "the file shrank while it was read")
        left -= len(piece)
        yield piece
