"""What a restore by replication lends to its target can be taken back after it was killed, on a real Redis."""

from __future__ import annotations

from typing import Any

import pytest

from devstack.redis import Redis
from drd.engines.redis.connect import config_get, open_client
from drd.engines.redis.lent import is_left_behind, put_back, settings_lent, take_back
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.topology import read_info
from drd.errors import TargetError
from drd.model import Secret
from tests.conftest import StartRedis
from tests.faults.subjects import wait_for

pytestmark = pytest.mark.faults


def lent_and_forgotten(server: Redis, masterauth: str) -> tuple[Any, Address]:
    """Set the server up as a killed restore would leave it before REPLICAOF: drd's settings instead of its own."""
    settings = RedisSettings(url=server.url, password=Secret(server.password))
    address = Address(server.host, server.port)
    client = open_client(settings, address, settings.login)
    client.execute_command("CONFIG", "SET", "masterauth", masterauth)
    client.execute_command("CONFIG", "SET", "repl-timeout", "77")
    with settings_lent(client, address):
        forgotten = {name: config_get(client, name) for name in ("masterauth", "repl-timeout")}
    assert (config_get(client, "masterauth"), config_get(client, "repl-timeout")) == (masterauth, "77")
    for name, value in forgotten.items():
        client.execute_command("CONFIG", "SET", name, value)
    return client, address


@pytest.mark.parametrize(("kind", "words"), [("none", ""), ("same", ""), ("other", "masterauth")])
def test_settings_come_back(start_redis: StartRedis, kind: str, words: str) -> None:
    """An empty masterauth, and one equal to the server's password, come back by themselves; another one is named."""
    server = start_redis(append_only=False)
    own = {"none": "", "same": server.password, "other": "of-the-real-primary"}[kind]
    client, _address = lent_and_forgotten(server, own)
    assert own not in (config_get(client, "masterauth") or "") or not own
    assert words in put_back(client)
    assert config_get(client, "masterauth") == ("" if kind == "other" else own)
    assert config_get(client, "repl-timeout") == "77"
    assert put_back(client) == ""


def test_a_target_without_its_drd_is_emptied_and_freed(start_redis: StartRedis) -> None:
    """A replica with drd's settings whose primary is gone becomes an empty primary; any other replica is left alone."""
    server, primary = start_redis(name="left", append_only=False), start_redis(name="alive", append_only=False)
    client, address = lent_and_forgotten(server, "")
    with primary.client() as writer:
        writer.set("half", "made")
        lent = config_get(client, "masterauth")
        writer.config_set("requirepass", lent)  # plays the drd that is still alive
    client.execute_command("REPLICAOF", primary.host, primary.port)
    wait_for("the link", lambda: read_info(client, "replication")["master_link_status"] == "up")
    assert not is_left_behind(read_info(client, "replication"), lent)
    with pytest.raises(TargetError, match="another drd restores into"):
        take_back(client, address)
    primary.kill()
    wait_for("the end of the link", lambda: is_left_behind(read_info(client, "replication"), lent))
    assert int(client.execute_command("DBSIZE")) == 1
    assert "emptied" in take_back(client, address).message
    assert int(client.execute_command("DBSIZE")) == 0
    assert read_info(client, "replication")["role"] == "master"
    assert config_get(client, "masterauth") == ""
    assert not is_left_behind(read_info(client, "replication"), "")
