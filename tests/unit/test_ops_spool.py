"""Spool directories: private, locked while in use, removed by the next piece of work after a crash."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from drd.errors import ConfigError
from drd.ops.spool import spool_directory, sweep

BACKUP = "20261122T181455Z-k3f9qa"

_DIES = """
import os, sys
from pathlib import Path
from drd.ops.spool import spool_directory
with spool_directory(Path(sys.argv[1]), sys.argv[2]) as spool:
    (spool / "half").write_bytes(b"x" * 1000)
    os._exit(9)
"""


def test_it_is_gone_afterwards_also_after_an_error(tmp_path: Path) -> None:
    """The directory exists in the block and not after it."""

    def fail() -> None:
        with spool_directory(tmp_path / "deep" / "root", BACKUP) as spool:
            (spool / "file").write_text("x")
            raise OSError(errno.EIO, "planted")

    with pytest.raises(OSError, match="planted"):
        fail()
    assert list((tmp_path / "deep" / "root").iterdir()) == []


def test_what_a_dead_process_left_goes_with_the_next_piece_of_work(tmp_path: Path) -> None:
    """A process that ended without a word leaves its directory; the next one removes that and nothing else."""
    (tmp_path / "drd-notes").mkdir()
    (tmp_path / f"drd-{BACKUP}-a-file").write_text("not a directory")
    done = subprocess.run([sys.executable, "-c", _DIES, str(tmp_path), BACKUP], check=False)
    assert done.returncode == 9
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 2
    with spool_directory(tmp_path, BACKUP) as spool:
        assert {path.name for path in tmp_path.iterdir()} == {spool.name, "drd-notes", f"drd-{BACKUP}-a-file"}


def test_one_in_use_is_left_alone(tmp_path: Path) -> None:
    """Neither a sweep nor other work touches a directory whose owner lives, in this process or another."""
    with spool_directory(tmp_path, BACKUP) as mine, spool_directory(tmp_path, BACKUP) as other:
        assert sweep(tmp_path) == []
        assert mine.is_dir()
        assert other.is_dir()
        assert mine != other


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A root that is a file is refused in words."""
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ConfigError, match="cannot make a spool directory below"),
        spool_directory(tmp_path / "file", BACKUP),
    ):
        pass
