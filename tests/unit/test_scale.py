"""docs/scale.md quotes what benchmarks/scale.py works out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_document_quotes_the_calculation():
    """The figures in docs/scale.md are those that the script prints from drd's rules of today."""
    done = subprocess.run(
        [sys.executable, "benchmarks/scale.py"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert f"```\n{done.stdout}```\n" in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
