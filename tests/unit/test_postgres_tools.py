"""Which client programs are taken, and what is said where none can be."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from drd.cancel import CancelToken
from drd.engines.postgres.tools import find_tool
from drd.errors import Cancelled


def test_interrupted_while_it_is_asked(tmp_path: Path) -> None:
    """An interruption that ends a program while it says its version is one, and no fault of the program."""
    program = tmp_path / "pg_restore"
    program.write_text("#!/bin/sh\nsleep 30\n", encoding="utf-8")
    program.chmod(0o755)
    token = CancelToken()
    timer = threading.Timer(0.3, token.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        find_tool("pg_restore", 15, tmp_path, token)
    timer.join()
