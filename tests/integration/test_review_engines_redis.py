"""What a stranger found while trying to break the Redis engine on real servers; each was a defect once."""

from __future__ import annotations

from pathlib import Path

import pytest

from drd.errors import TargetError
from tests.conftest import StartRedis
from tests.support.artifacts import work_context
from tests.support.redis_world import Taken, engine


@pytest.mark.parametrize("way", ["auto", "keys"])
def test_a_target_with_fewer_databases_survives(start_redis: StartRedis, tmp_path: Path, way: str) -> None:
    """A replica that receives a database number it does not have exits; drd refuses before that."""
    source = start_redis(options={"databases": "64", "repl-diskless-sync-delay": "0"})
    with source.client(40) as client:
        client.set("x", "1")
    taken = Taken(engine(source), tmp_path)
    target = start_redis(options={"databases": "16"})
    with pytest.raises(TargetError, match="keys in db 40"):
        engine(target, restore_via=way).restore(taken.backup, taken.reader, work_context(tmp_path))
    with target.client() as client:
        assert client.info("replication")["role"] == "master"
    roomy = start_redis(options={"databases": "64"})
    engine(roomy, restore_via=way).restore(taken.backup, taken.reader, work_context(tmp_path))
    with roomy.client(40) as client:
        assert client.get("x") == b"1"
