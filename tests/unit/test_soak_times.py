"""What the storm over the daemons is judged by: who had the chance to work, and for how long nobody did."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from tests.support.soak_times import DaemonLife, idle_s, leaderless_s, minus, union


def life(path: Path, events: list[tuple[float, str, str]], ended_at: float) -> DaemonLife:
    """Return the life of a daemon that logged events (second, name, job) and was killed amid a line."""
    lines = [
        json.dumps({"timestamp": datetime.fromtimestamp(at, UTC).isoformat(), "event": name, "job": job, "source": job})
        for at, name, job in events
    ]
    path.write_text("\n".join([*lines, '{"timestamp": "20']))
    return DaemonLife(0, path, ended_at)


def test_time_without_a_leader_and_time_without_work_are_found(tmp_path: Path) -> None:
    """They add up over takeovers, and what a daemon could not use, for it was not there or stopped, does not count."""
    one = life(
        tmp_path / "one",
        [(0, "daemon.started", ""), (1, "leader.gained", ""), (2, "job.started", "a"), (4, "job.ended", "a"),
         (10, "job.started", "b")],
        20,
    )  # fmt: skip
    two = life(tmp_path / "two", [(5, "daemon.started", ""), (30, "leader.gained", ""), (41, "job.started", "a")], 50)
    assert leaderless_s([one, two]) == 10  # from 20, when the first was killed, to 30
    assert idle_s([one, two], "a") == 16 + 11  # while the first led, and then while the second did
    assert idle_s([one, two], "b") == 20  # it was at it when it was killed; the second never began
    two.stops = [(22, 27), (31, 36)]
    assert leaderless_s([one, two]) == 5
    assert idle_s([one, two], "a") == 16 + 6


def test_spans() -> None:
    """Spans that touch are one, and pieces are cut out of them."""
    assert union([(3, 4), (0, 1), (1, 2), (0.5, 1.5)]) == [(0, 2), (3, 4)]
    assert minus([(0, 10)], [(2, 3), (9, 12), (-1, 1)]) == [(1, 2), (3, 9)]
