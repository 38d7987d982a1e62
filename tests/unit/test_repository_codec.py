"""One part: compressed, encrypted and back."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.errors import ConfigError, IntegrityError
from drd.model import Secret
from drd.repository.codec import Codec, generate_identity, recipient_of

IDENTITY, RECIPIENT = generate_identity()
PLAIN = Codec(1)
SEALED = Codec(1, (RECIPIENT,), (IDENTITY,))


@pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])
@settings(max_examples=50, deadline=None)
@given(data=st.binary(min_size=1, max_size=5000))
def test_round_trip(codec: Codec, data: bytes) -> None:
    """What is encoded decodes to the same bytes, from any kind of buffer."""
    for form in (data, bytearray(data), memoryview(data)):
        stored = codec.encode(form)
        assert codec.decode(stored, plain_bytes=len(data), encrypted=codec.encrypted) == data


@pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_any_flipped_bit_is_noticed(codec: Codec) -> None:
    """A flipped bit anywhere, a cut, or bytes added make decoding fail with a drd error, or change nothing."""
    data = bytes(range(256)) * 3
    stored = codec.encode(data)
    damaged = [stored[:n] for n in range(0, len(stored), 7)] + [stored + b"x", stored + stored]
    for n in range(0, len(stored), 3):
        flipped = bytearray(stored)
        flipped[n] ^= 1 << (n % 8)
        damaged.append(bytes(flipped))
    for bad in damaged:
        try:
            result = codec.decode(bad, plain_bytes=len(data), encrypted=codec.encrypted)
        except (IntegrityError, ConfigError):  # a damaged age header looks like a foreign key
            continue
        assert result == data


def test_size_is_checked_before_memory_is_taken() -> None:
    """A frame that declares another size, or none, is refused: no decompression bomb."""
    bomb = zstandard.ZstdCompressor().compress(bytes(50 << 20))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"abc")
    for stored in (bomb, unsized, b"", b"not zstd"):
        with pytest.raises(IntegrityError):
            PLAIN.decode(stored, plain_bytes=3, encrypted=False)


def test_stock_tools_read_it(tmp_path: Path) -> None:
    """`age -d | zstd -d` reads what the codec wrote."""
    data = b"three rows\n" * 1000
    part, key = tmp_path / "000000.zst.age", tmp_path / "identity.txt"
    part.write_bytes(SEALED.encode(data))
    key.write_text(IDENTITY.reveal())
    frame = subprocess.run(["age", "-d", "-i", key, part], check=True, capture_output=True).stdout
    assert subprocess.run(["zstd", "-dc"], input=frame, check=True, capture_output=True).stdout == data


def test_wrong_and_missing_identity_say_so_without_secrets() -> None:
    """A wrong identity and none are a configuration error that names the recipient and quotes no key."""
    other, _ = generate_identity()
    for codec in (Codec(1, (RECIPIENT,)), Codec(1, (RECIPIENT,), (other,))):
        with pytest.raises(ConfigError) as caught:
            codec.decode(SEALED.encode(b"x"), plain_bytes=1, encrypted=True)
        with pytest.raises(ConfigError, match=RECIPIENT) as asked:
            codec.require_identity((RECIPIENT,))
        for error in (caught.value, asked.value):
            assert other.reveal() not in f"{error} {error.hint}"
        assert not codec.matches_recipients((RECIPIENT,))
    assert SEALED.matches_recipients(("age1other", RECIPIENT))


def test_bad_keys_are_refused_without_quoting_a_secret() -> None:
    """Text that is no key, or a private key given as recipient, is refused and never shown."""
    secret = IDENTITY.reveal()
    with pytest.raises(ConfigError) as caught:
        Codec(1, (secret,))
    assert secret not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        recipient_of(Secret(secret[:-1] + ("P" if secret.endswith("Q") else "Q")))
    assert secret[:-1] not in str(caught.value)
    with pytest.raises(ConfigError):
        Codec(1, ("age1nonsense",))
    with pytest.raises(ConfigError):
        Codec(0)
    assert recipient_of(IDENTITY) == RECIPIENT


def test_threads_do_not_share_contexts() -> None:
    """Many threads encode and decode at once without disturbing each other."""
    failures: list[int] = []

    def work(seed: int) -> None:
        data = bytes([seed]) * 300_000
        for _ in range(10):
            if SEALED.decode(SEALED.encode(data), plain_bytes=len(data), encrypted=True) != data:
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
