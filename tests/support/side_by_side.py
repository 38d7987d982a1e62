"""Which tests run side by side: a file to a worker, in the order of the folders; those in containers one by one."""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadFileScheduling

IN_CONTAINERS = {
    "test_compose_stack.py",
    "test_drill.py",
    "test_drill_interrupted.py",
    "test_drill_kept.py",
    "test_drill_limits.py",
    "test_drill_tricks.py",
    "test_image.py",
    "test_scratch_contract.py",
    "test_scratch_kubernetes.py",
    "test_scratch_lost.py",
}
"""Files that wait for the Docker Engine in turns; one that is missing here costs time alone."""


class SideBySide(LoadFileScheduling):
    """Gives all that waits for one thing to one worker, lest the others stand still with it."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "in containers" if PurePosixPath(file).name in IN_CONTAINERS else file
