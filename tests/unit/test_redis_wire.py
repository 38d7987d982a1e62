"""The replication handshake from both ends, the spool, settings and slots, against scripted peers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.cancel import CancelToken
from drd.engines.redis.primary import ActingPrimary
from drd.engines.redis.psync import full_sync
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.spool import Spool, through_spool
from drd.engines.redis.topology import Layout, Shard, key_slot
from drd.errors import Cancelled, ConfigError, IntegrityError, SourceRefused, SourceUnreachable, TargetError
from drd.model import Secret

MARK = b"m" * 40
PAYLOAD = bytes(range(256)) * 700


@contextmanager
def scripted(answers: list[bytes], tail: bytes = b"", piece: int = 1 << 16) -> Iterator[RedisSettings]:
    """Serve one connection: one answer for each command, then ``tail`` in pieces, then close."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            try:
                for answer in answers:
                    connection.recv(4096)
                    connection.sendall(answer)
                for start in range(0, len(tail), piece):
                    connection.sendall(tail[start : start + piece])
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield RedisSettings(url=f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout_s=2)
    finally:
        thread.join()
        listener.close()


def pull(config: RedisSettings, cancel: CancelToken | None = None):
    """Return the payload and the handshake's result."""
    with full_sync(
        config, config.address, "source", cancel=cancel or CancelToken(), now=lambda: datetime.now(UTC)
    ) as sync:
        return b"".join(sync.chunks()), sync


OK = [b"+OK\r\n", b"+OK\r\n"]
FULL = b"\n\n+FULLRESYNC " + b"a" * 40 + b" 77\r\n\n\n"


@pytest.mark.parametrize("piece", [1 << 16, 4096, 7])
@pytest.mark.parametrize("after", [b"", b"\n", b"\n\n"])
def test_the_mark_ends_the_snapshot(piece, after):
    """A mark-delimited snapshot is whole however it is cut, with keepalives before and stray newlines after it."""
    payload = PAYLOAD[: 2000 if piece < 10 else None]
    with scripted([*OK, FULL + b"$EOF:" + MARK + b"\r\n"], payload + MARK + after, piece) as config:
        data, sync = pull(config)
    assert data == payload
    assert (sync.rdb_only, sync.offset, sync.size_bytes) == (True, 77, None)


def test_the_length_ends_the_snapshot():
    """A length-prefixed snapshot is read to its length; a server that does not know rdb-only is noticed."""
    answers = [b"+OK\r\n", b"-ERR Unrecognized REPLCONF option: rdb-only\r\n", FULL + b"$%d\r\n" % len(PAYLOAD)]
    with scripted(answers, PAYLOAD + b"*1\r\n$4\r\nPING\r\n") as config:
        data, sync = pull(config)
    assert data == PAYLOAD
    assert (sync.rdb_only, sync.size_bytes) == (False, len(PAYLOAD))


@pytest.mark.parametrize("header", [b"$EOF:" + MARK, b"$%d" % (len(PAYLOAD) + 1)])
def test_a_stream_that_ends_early_is_no_snapshot(header):
    """A connection that closes before the mark or the length raises something to try again."""
    with scripted([*OK, FULL + header + b"\r\n"], PAYLOAD) as config, pytest.raises(SourceUnreachable) as caught:
        pull(config)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        ([b"-NOAUTH Authentication required.\r\n"], SourceRefused, "wants a password"),
        (
            [*OK, b"-NOPERM this user has no permissions to run the 'psync' command\r\n"],
            SourceRefused,
            "may not run PSYNC",
        ),
        ([*OK, b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n"], SourceUnreachable, "NOMASTERLINK"),
        ([*OK, b"-LOADING Redis is loading the dataset in memory\r\n"], SourceUnreachable, "LOADING"),
        ([*OK, b"-ERR unknown command 'PSYNC'\r\n"], SourceRefused, "does not offer PSYNC"),
        ([*OK, b"+CONTINUE\r\n"], SourceRefused, "answered PSYNC"),
        ([*OK, FULL + b"-ERR Unable to perform background save\r\n"], SourceUnreachable, "could not make a snapshot"),
        ([*OK, FULL + b"$EOF:short\r\n"], SourceRefused, "announced its snapshot"),
        ([b"HTTP/1.1 400 " + b"x" * 70000], SourceRefused, "does not speak"),
    ],
)
def test_refusals_are_told_apart(answers, kind, message):
    """Each refusal of the handshake becomes an error of the right kind with words for people."""
    with scripted(answers) as config, pytest.raises(kind, match=message):
        pull(config)


def test_a_silent_server_is_given_up():
    """A server that accepts and says nothing is unreachable after the timeout; cancelling is quicker."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = RedisSettings(url=f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3)
    with listener:
        with pytest.raises(SourceUnreachable, match="sent nothing"):
            pull(config)
        cancel = CancelToken()
        threading.Timer(0.1, cancel.cancel).start()
        patient = RedisSettings(url=config.url, timeout_s=30)
        began = time.monotonic()
        with pytest.raises(Cancelled):
            pull(patient, cancel)
        assert time.monotonic() - began < 5


@settings(max_examples=20, deadline=5000)
@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=30), st.integers(1, 5000))
def test_the_spool_keeps_order_and_bound(tmp_path_factory, chunks, limit):
    """Whatever the sizes, the spool gives back the same bytes and its file never exceeds the limit."""
    spool = Spool(tmp_path_factory.mktemp("spool"), limit)
    filler = threading.Thread(target=spool.fill, args=(iter(chunks),))
    filler.start()
    out = b"".join(spool.drain())
    filler.join()
    assert out == b"".join(chunks)
    spool._file.seek(0, 2)
    assert spool._file.tell() <= limit
    spool.close()


def test_a_full_spool_is_named_when_the_server_gives_up(tmp_path):
    """When the source breaks after the spool was full, the hint says so; the bytes before it still come."""

    def source():
        yield b"x" * 100
        raise SourceUnreachable("closed")

    seen = []

    def consume():
        for piece in through_spool(source(), tmp_path, 10):
            time.sleep(0.01)
            seen.append(piece)

    with pytest.raises(SourceUnreachable) as caught:
        consume()
    assert b"".join(seen) == b"x" * 100
    assert "raise the spool limit" in caught.value.hint


def test_leaving_a_spool_early_frees_the_filler(tmp_path):
    """A consumer that stops does not leave a thread waiting for room."""
    before = threading.active_count()
    pieces = through_spool(iter([b"x" * 50] * 50), tmp_path, 60)
    next(pieces)
    pieces.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


class Replica:
    """A replica by hand."""

    def __init__(self, primary: ActingPrimary) -> None:
        self.socket = socket.create_connection((primary.address.host, primary.address.port), timeout=5)

    def say(self, *words: str) -> None:
        frame = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)
        self.socket.sendall(frame)

    def hear(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self.socket.recv(size - len(data))):
            data += piece
        return data


def acting(pieces, size=None, **options):
    """Make an acting primary that serves ``pieces``."""
    total = sum(map(len, pieces)) if size is None else size
    return ActingPrimary("127.0.0.1", total, lambda: map(memoryview, pieces), lambda _n: None, 5.0, **options)


def test_the_acting_primary_feeds_a_replica():
    """A replica that logs in gets a full synchronisation with a length and pings afterwards, also the second time."""
    pieces = [b"abc", b"defg", b"h"]
    with acting(pieces) as primary:
        for _ in range(2):
            replica = Replica(primary)
            replica.say("PING")
            assert replica.hear(7).startswith(b"-NOAUTH")
            replica.hear(27)
            replica.say("AUTH", "someone", primary.password)
            replica.say("REPLCONF", "listening-port", "1")
            replica.say("REPLCONF", "capa", "eof", "capa", "psync2")
            assert replica.hear(15) == b"+OK\r\n" * 3
            replica.say("PSYNC", "?", "-1")
            expected = b"$8\r\nabcdefgh*1\r\n$4\r\nPING\r\n"
            assert replica.hear(len(b"+FULLRESYNC ") + 40 + 4 + len(expected)).endswith(expected)
            replica.say("REPLCONF", "ACK", "0")
            replica.socket.close()
        assert primary.connected.is_set()
        assert primary.sent.is_set()
        assert primary.error is None


def test_the_acting_primary_refuses_a_wrong_password():
    """A wrong password ends the connection, and nothing of the snapshot is read."""
    opened = []
    primary = ActingPrimary("127.0.0.1", 1, lambda: opened.append(1) or iter([memoryview(b"x")]), lambda _n: None, 5.0)
    with primary:
        replica = Replica(primary)
        replica.say("AUTH", "guess")
        assert replica.hear(4096).startswith(b"-WRONGPASS")
        idle = Replica(primary)
        other = Replica(primary)
        other.say("SYNC")
        assert other.hear(34).startswith(b"-NOAUTH")
        other.socket.close()
        assert idle.socket.fileno() >= 0  # a stranger that says nothing keeps nobody out
    assert idle.hear(1) == b""
    assert opened == []
    assert not primary.connected.is_set()


def test_the_acting_primary_hands_on_what_the_backup_raises():
    """An unreadable backup ends the attempt before a byte too many, and is not tried again."""

    def broken():
        yield memoryview(b"abc")
        raise IntegrityError("part 2 is damaged")

    with ActingPrimary("127.0.0.1", 100, broken, lambda _n: None, 5.0) as primary:
        replica = Replica(primary)
        replica.say("AUTH", primary.password)
        replica.say("SYNC")
        assert replica.hear(4096).endswith(b"$100\r\nabc")
        deadline = time.monotonic() + 5
        while primary.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert isinstance(primary.error, IntegrityError)
    with acting([b"abc"], size=10) as short:
        replica = Replica(short)
        replica.say("AUTH", short.password)
        replica.say("SYNC")
        replica.hear(4096)
        while short.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "before its stated size" in str(short.error)


def test_an_address_that_is_not_ours_cannot_be_listened_on():
    """A wrong holder_listen is named, with what to set."""
    with pytest.raises(TargetError, match=r"cannot listen on 192\.0\.2\.1"):
        ActingPrimary("192.0.2.1", 1, lambda: iter(()), lambda _n: None, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://x"}, "not a Redis URL"),
        ({"url": "redis://u:hunter2@x"}, "holds a password"),
        ({"url": "redis://x/3"}, "database number"),
        ({"url": "redis://x", "topology": "sentinel"}, "sentinel_master"),
        ({"url": "rediss://x", "cert_file": "c"}, "belong together"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    """Each contradiction is named, and no password is repeated."""
    with pytest.raises(ConfigError, match=message) as caught:
        RedisSettings(**options)
    assert "hunter2" not in str(caught.value)


def test_settings_name_the_user_of_the_url():
    """A user in the URL is decoded, another one given wins, and addresses of all forms are read."""
    assert RedisSettings(url="redis://a%40b@h:7000", password=Secret("p")).login.username == "a@b"
    assert RedisSettings(url="redis://a@h", username="c").login.username == "c"
    assert RedisSettings(url="rediss://[::1]:7").address == Address("::1", 7)
    assert str(Address("::1", 7)) == "[::1]:7"
    assert Address.parse("h", 26379) == Address("h", 26379)
    with pytest.raises(ConfigError):
        Address.parse("h:notaport", 1)


def test_slots_are_those_of_the_cluster_specification():
    """Known slots, hash tags, and the shard that owns a key."""
    assert key_slot(b"123456789") == 12739
    assert key_slot(b"foo{hash_tag}bar") == key_slot(b"hash_tag")
    assert key_slot(b"foo{}bar") != key_slot(b"")
    layout = Layout(
        "cluster", (Shard(Address("a", 1), (), ((0, 12000),)), Shard(Address("b", 1), (), ((12001, 16383),)))
    )
    assert layout.shard_of(b"123456789") == 1


def test_a_primary_ends_at_once_though_nobody_came() -> None:
    """The end of a restore does not wait for the listener's patience."""
    with ActingPrimary("127.0.0.1", 1, lambda: iter(()), lambda _n: None, 1.0) as primary:
        primary._listener.settimeout(60.0)
        time.sleep(0.3)  # the wait that began with the former patience is over
        began = time.monotonic()
    assert time.monotonic() - began < 20
