"""Signs of life, marks and job ids of ClickHouse work: what is told from them, and what is not."""

from __future__ import annotations

import uuid
from typing import cast

from drd.engines.clickhouse import alive, orphans, unfinished
from drd.engines.clickhouse.client import Server, ServerRefusal
from drd.engines.clickhouse.job import OWNED, new_job_id
from drd.engines.clickhouse.quoting import literal


class Blind:
    """A server that does not let this user see what runs; anything else that is asked of it is a failure."""

    def rows(self, sql: str, parameters: object = None) -> list[dict[str, object]]:
        """Refuse."""
        assert "system.processes" in sql
        raise ServerRefusal(497, f"Not enough privileges {parameters}")


def test_a_user_who_may_not_see_what_runs():
    """Nothing is ended, no owner is named whom others could take for gone, and a notice says what was not looked at."""
    server = cast("Server", Blind())
    assert [notice.code for notice in orphans.end_orphans(server)] == ["orphans-unseen"]
    with alive.sign(server) as owner:
        assert owner is None
    assert not OWNED.fullmatch(new_job_id("20261122T181455Z-k3f9qa", owner))
    found = OWNED.fullmatch(new_job_id("20261122T181455Z-k3f9qa", "0123456789abcdef"))
    assert found
    assert found.group(1) == "0123456789abcdef"


def test_marks_of_unfinished_databases():
    """A mark is read back only for its own database and UUID; a comment of a definition never is a mark."""
    mark = unfinished.Mark("20261122T181455Z-k3f9qa", "0123456789abcdef", "o'neil", "d", str(uuid.uuid4()))
    assert unfinished.parse_mark(mark.comment(), "d", mark.uuid) == mark
    assert unfinished.parse_mark(mark.comment(), "e", mark.uuid) is None
    assert unfinished.parse_mark(mark.comment(), "d", str(uuid.uuid4())) is None
    assert unfinished.parse_mark(mark.comment().replace("0123456789abcdef", "../x"), "d", mark.uuid) is None
    for broken in ("", "mine", mark.comment()[:-1], mark.comment().split("{")[0] + "[" * 100_000):
        assert unfinished.parse_mark(broken, "d", mark.uuid) is None
    made = f"CREATE DATABASE d UUID '{mark.uuid}' ENGINE = Atomic"
    assert unfinished.own_comment(made) == "''"
    assert unfinished.own_comment(f"{made} COMMENT 'it\\'s ENGINE = Atomic'") == "'it\\'s ENGINE = Atomic'"
    assert unfinished.own_comment(f"{made} COMMENT {literal(mark.comment())}") == "''"
    for other in ("", "CREATE DATABASE d ENGINE = Lazy(10)", f"{made} SETTINGS disk = 's3'"):
        assert unfinished.own_comment(other) is None
