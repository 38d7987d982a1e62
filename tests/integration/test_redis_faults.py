"""What goes wrong with a real Redis: each in one clear line, nothing half-made, nothing left changed on the servers."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from drd.cancel import CancelToken
from drd.engines.redis.replicate import CannotConnectBack
from drd.errors import (
    Cancelled,
    DrdError,
    IntegrityError,
    SourceRefused,
    SourceUnreachable,
    StoreUnavailable,
    TargetError,
)
from drd.model import Secret, compare_fingerprints
from tests.support.artifacts import MemoryReader, MemorySink, MemoryStream, work_context
from tests.support.redis_world import Taken, digest, engine, fill

pytestmark = pytest.mark.integration
DEBUG = {"enable-debug-command": "local"}


@pytest.fixture
def source(start_redis):
    return start_redis(name="src", append_only=False, options=DEBUG)


@pytest.fixture
def target(start_redis):
    return start_redis(name="dst", options=DEBUG)


class CallbackSink(MemorySink):
    """Runs something once when enough bytes were written."""

    def __init__(self, after_bytes, action):
        super().__init__()
        self.after, self.action = after_bytes, action

    def before_write(self, name, size):
        super().before_write(name, size)
        if self.action and self.written >= self.after:
            action, self.action = self.action, None
            action()


class TroubledReader(MemoryReader):
    """Serves artifacts slowly, or fails or calls something after some bytes."""

    def __init__(self, artifacts, *, delay_s=0.0, after_bytes=0, action=None, piece=1 << 20):
        super().__init__(artifacts)
        self.delay_s, self.after, self.action, self.piece = delay_s, after_bytes, action, piece

    def open(self, name, *, start=0, length=None):
        inner = super().open(name, start=start, length=length)
        outer = self

        class Stream(MemoryStream):
            def chunks(self):
                time.sleep(outer.delay_s)
                done = 0
                while piece := inner.read(outer.piece):
                    done += len(piece)
                    if outer.action and done >= outer.after:
                        outer.action()
                    yield memoryview(piece)

        return Stream(b"") if length is None else inner


def assert_free(server):
    """The server is its own primary with its own settings."""
    with server.client() as client:
        assert client.info("replication")["role"] == "master"
        assert client.config_get("masterauth")["masterauth"] == server.password
        assert client.config_get("repl-timeout")["repl-timeout"] == "60"


def failure(kind, work):
    """Run ``work``, which must raise ``kind``, and return what a person sees."""
    with pytest.raises(kind) as caught:
        work()
    return f"{caught.value.message} {caught.value.hint}"


def test_wrong_and_missing_password(source, tmp_path):
    """A wrong password and none at all are refused in clear words that do not repeat the password."""
    said = failure(SourceRefused, lambda: Taken(engine(source, password=Secret("hunter2-wrong")), tmp_path))
    assert "password" in said
    assert "hunter2" not in said
    assert "wants a password" in failure(SourceRefused, lambda: Taken(engine(source, password=None), tmp_path))
    items = engine(source, password=Secret("hunter2-wrong")).check()
    assert [i.outcome for i in items] == ["failed"]
    assert "hunter2" not in str(items)


def test_server_down(source, tmp_path):
    """A server that is down is unreachable, which may be tried again."""
    source.stop()
    with pytest.raises(SourceUnreachable) as caught:
        Taken(engine(source), tmp_path)
    assert caught.value.retryable
    assert engine(source).check()[0].outcome == "failed"


def test_a_user_with_the_least_rights_can_back_up(source, target, tmp_path):
    """A user that may only PSYNC and REPLCONF makes a complete backup; what it cannot read is named in notices."""
    fill(source, keys=30)
    with source.client() as client:
        client.execute_command("ACL", "SETUSER", "backup", "on", ">pass-of-backup", "+psync", "+replconf", "+ping")
    weak = engine(source, username="backup", password=Secret("pass-of-backup"))
    taken = Taken(weak, tmp_path)
    assert set(taken.artifacts) == {"dump.rdb"}
    assert {n.code for n in taken.result.notices} == {"acl_not_saved", "config_not_saved"}
    engine(target).restore(taken.backup, taken.reader, taken.context)
    assert digest(target) == digest(source)


def test_a_user_without_psync_is_told_the_rule(source, tmp_path):
    """A Redis that refuses PSYNC is named with the ACL rule to add, by check too."""
    with source.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pass-of-reader", "+@read", "+info", "+acl|whoami")
        client.execute_command("ACL", "SETUSER", "reader", "+acl|dryrun", "+ping", "+time")
    weak = engine(source, username="reader", password=Secret("pass-of-reader"))
    said = failure(SourceRefused, lambda: Taken(weak, tmp_path))
    assert "ACL SETUSER reader +psync +replconf" in said
    rights = next(i for i in weak.check() if i.name == "rights")
    assert (rights.outcome, rights.hint) == ("failed", "ACL SETUSER reader +psync +replconf")


def test_secrets_stay_out_of_what_is_saved(source, tmp_path):
    """The settings artifact holds no password, and users' artifact holds only hashes."""
    taken = Taken(engine(source), tmp_path)
    assert source.password.encode() not in taken.artifacts["config.json"] + taken.artifacts["acl.txt"]
    assert b'"maxmemory"' in taken.artifacts["config.json"]


def test_server_killed_while_it_sends(source, tmp_path):
    """A server that dies mid-transfer gives a retryable error and no artifact."""
    fill(source, big_value_bytes=30 << 20)
    sink = CallbackSink(1 << 20, source.kill)
    with pytest.raises(SourceUnreachable, match=r"closed the connection|broke") as caught:
        engine(source).dump(sink, work_context(tmp_path))
    assert caught.value.retryable
    assert sink.artifacts == {}


def test_cancel_while_dumping(source, tmp_path):
    """Cancelling ends the dump quickly, leaves no artifact, and ends the server's fork."""
    fill(source, big_value_bytes=60 << 20)
    cancel = CancelToken()
    sink = CallbackSink(1 << 20, cancel.cancel)
    with pytest.raises(Cancelled):
        engine(source).dump(sink, work_context(tmp_path, cancel=cancel))
    assert sink.artifacts == {}
    deadline = time.monotonic() + 10
    with source.client() as client:
        while client.info("persistence")["rdb_bgsave_in_progress"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert client.info("persistence")["rdb_bgsave_in_progress"] == 0
        assert client.info("replication")["connected_slaves"] == 0


def test_a_failing_store_stops_the_dump(source, tmp_path):
    """What the pipeline raises comes out as it is, and no artifact is left."""
    fill(source, big_value_bytes=8 << 20)
    sink = MemorySink(fail_after_bytes=4 << 20, error=StoreUnavailable("the store is away"))
    with pytest.raises(StoreUnavailable):
        engine(source).dump(sink, work_context(tmp_path))
    assert sink.artifacts == {}


@pytest.mark.parametrize("way", ["replication", "keys"])
def test_cancel_while_restoring(source, target, tmp_path, way):
    """Cancelling a restore leaves the target empty, independent and with its own settings."""
    fill(source, big_value_bytes=20 << 20)
    taken = Taken(engine(source), tmp_path)
    cancel = CancelToken()
    reader = TroubledReader(taken.artifacts, after_bytes=6 << 20, action=cancel.cancel)
    with pytest.raises(Cancelled):
        engine(target, restore_via=way).restore(taken.backup, reader, work_context(tmp_path, cancel=cancel))
    assert_free(target)
    with target.client() as client:
        assert client.info("keyspace") == {}


@pytest.mark.parametrize("way", ["replication", "keys"])
def test_damaged_parts_while_restoring(source, target, tmp_path, way):
    """A part that turns out damaged mid-way fails the restore with that error, and the target stays empty."""
    fill(source, big_value_bytes=12 << 20)
    taken = Taken(engine(source), tmp_path)

    def broken():
        raise IntegrityError("part 7 is not what the manifest says")

    reader = TroubledReader(taken.artifacts, after_bytes=6 << 20, action=broken)
    with pytest.raises(IntegrityError, match="part 7"):
        engine(target, restore_via=way).restore(taken.backup, reader, work_context(tmp_path))
    assert_free(target)
    with target.client() as client:
        assert client.info("keyspace") == {}


def test_a_slow_pipeline_keeps_the_target_patient(source, target, tmp_path):
    """A target whose patience is 2 s waits 5 s for the first byte: keepalives and a lent repl-timeout see to it."""
    fill(source, keys=30)
    taken = Taken(engine(source), tmp_path)
    with target.client() as client:
        client.config_set("repl-timeout", 2)
    engine(target, restore_via="replication").restore(
        taken.backup, TroubledReader(taken.artifacts, delay_s=5.0), taken.context
    )
    assert digest(target) == digest(source)
    with target.client() as client:
        assert client.config_get("repl-timeout")["repl-timeout"] == "2"


def test_a_target_that_cannot_connect_back_is_loaded_key_by_key(source, target, tmp_path, monkeypatch):
    """When the target does not reach drd, the restore goes key by key and says so; asked for replication, it fails."""
    monkeypatch.setattr("drd.engines.redis.replicate.CONNECT_BACK_S", 1.0)
    fill(source)
    taken = Taken(engine(source), tmp_path)
    with pytest.raises(CannotConnectBack, match="did not connect to drd"):
        engine(target, restore_via="replication", holder_advertise="127.0.0.9").restore(
            taken.backup, taken.reader, taken.context
        )
    assert_free(target)
    into = engine(target, holder_advertise="127.0.0.9")
    result = into.restore(taken.backup, taken.reader, taken.context)
    assert "restored_key_by_key" in {n.code for n in result.notices}
    assert digest(target) == digest(source)
    assert_free(target)


def test_a_client_that_writes_during_a_key_by_key_restore_is_not_overwritten(source, target, tmp_path):
    """A key that appears during the restore stops it, and the client's value survives."""
    fill(source, big_value_bytes=4 << 20)
    taken = Taken(engine(source), tmp_path)

    def write():
        with target.client(15) as client:
            client.set("integer", "of a client")
            client.mset({f"other:{n}": 1 for n in range(5000)})

    reader = TroubledReader(taken.artifacts, after_bytes=1, action=write, piece=1 << 16)
    reader_action = reader.action
    reader.action = lambda: (reader_action(), setattr(reader, "action", None))
    with pytest.raises(TargetError, match=r"wrote to|others wrote"):
        engine(target, restore_via="keys").restore(taken.backup, reader, work_context(tmp_path))
    with target.client(15) as client:
        assert client.get("integer") == b"of a client"


def test_a_replica_is_no_target(source, start_redis, tmp_path):
    """A replica is refused as a target, with its primary named."""
    taken = Taken(engine(source), tmp_path)
    replica = start_redis(name="rep", password=source.password, options={"replicaof": f"{source.host} {source.port}"})
    with pytest.raises(TargetError, match=f"replica of {source.host}:{source.port}"):
        engine(replica).inspect(taken.backup, taken.reader)


def test_a_healthy_replica_makes_the_snapshot(source, start_redis, tmp_path):
    """A replica in sync is preferred; one that hangs is passed over with a notice; the primary can be asked for."""
    fill(source, keys=30)
    replica = start_redis(name="rep", password=source.password, options={"replicaof": f"{source.host} {source.port}"})
    with replica.client() as client:
        deadline = time.monotonic() + 20
        while client.info("replication")["master_link_status"] != "up" and time.monotonic() < deadline:
            time.sleep(0.05)
    with source.client() as client:
        while client.info("replication").get("slave0", {}).get("state") != "online" and time.monotonic() < deadline:
            time.sleep(0.05)

    def role(**settings):
        return Taken(engine(source, **settings), tmp_path).result

    assert role().facts["shards"][0]["role"] == "replica"
    assert role(prefer="primary").facts["shards"][0]["role"] == "primary"
    assert compare_fingerprints(role().fingerprint, role(prefer="primary").fingerprint) == []
    replica.pause()
    try:
        fallen_back = role()
    finally:
        replica.resume()
    assert fallen_back.facts["shards"][0]["role"] == "primary"
    assert [n.code for n in fallen_back.notices] == ["replica_unusable"]


def test_a_replica_without_its_primary_is_named(source, start_redis, tmp_path):
    """A replica whose link is down refuses a snapshot, which is told as something to try again."""
    replica = start_redis(name="rep", password=source.password, options={"replicaof": f"{source.host} 1"})
    with pytest.raises(SourceUnreachable, match="NOMASTERLINK"):
        Taken(engine(replica), tmp_path)


def test_strangers_learn_nothing_from_the_acting_primary(source, target, tmp_path):
    """Whoever connects to drd during a restore without its password gets no byte of data."""
    fill(source, keys=30)
    taken = Taken(engine(source), tmp_path)
    heard: list[bytes] = []
    real_create = socket.create_server
    ports: list[int] = []

    def spying(*args, **kwargs):
        listener = real_create(*args, **kwargs)
        ports.append(listener.getsockname()[1])
        stranger = socket.create_connection(("127.0.0.1", ports[0]))
        stranger.sendall(b"PSYNC ? -1\r\nSYNC\r\nAUTH guess\r\n")

        def listen():
            with stranger:
                stranger.settimeout(5)
                try:
                    while piece := stranger.recv(4096):
                        heard.append(piece)
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        return listener

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_server", spying)
        engine(target, restore_via="replication").restore(taken.backup, taken.reader, taken.context)
    assert digest(target) == digest(source)
    assert set(b"".join(heard).split(b"\r\n")) <= {
        b"-NOAUTH Authentication required.",
        b"-WRONGPASS invalid username-password pair or user is disabled.",
        b"",
    }


def test_a_target_that_dies_while_loading(source, target, tmp_path):
    """A target killed mid-restore gives a target error, and after its restart it is empty."""
    fill(source, big_value_bytes=20 << 20)
    taken = Taken(engine(source), tmp_path)
    reader = TroubledReader(taken.artifacts, after_bytes=6 << 20, action=target.kill)
    with pytest.raises(DrdError) as caught:
        engine(target, restore_via="replication").restore(taken.backup, reader, work_context(tmp_path, deadline_s=5))
    assert isinstance(caught.value, TargetError)
    target.start()
    with target.client() as client:
        assert client.info("keyspace") == {}
