"""Measure the pipeline against ``zstd -1 -T2 | age`` on the same data, in one run.

``python benchmarks/pipeline.py [--mib 512] [--workers 2] [--rounds 3]``

The data looks like COPY output of the trading schema: uuids, decimals, times, words. drd does more than its peer:
SHA-256 of the plain and of the stored bytes, and it verifies both on the way back. Both write to memory
(/dev/null or a store that forgets), so that what is measured is the work and not the disk. Each figure is the best of
the rounds; rounds alternate, as other work on the machine disturbs both.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from drd.cancel import CancelToken
from drd.model import Backup, Secret
from drd.protocols import BytesLike
from drd.repository.codec import Codec, generate_identity
from drd.repository.pipeline import PartReader, PartSink
from drd.stores.memory import MemoryStore

MIB = 1 << 20
WRITE_BYTES = 256 * 1024  # what an engine writes at once
BACKUP_ID = "20261122T181455Z-benchm"


class ForgetfulStore(MemoryStore):
    """Accepts puts and keeps nothing: a store of infinite speed."""

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Forget the data."""


def rows(seed: int, size: int) -> bytes:
    """Return about ``size`` bytes of rows with realistic entropy."""
    rng = random.Random(seed)
    lines: list[str] = []
    length = 0
    while length < size:
        line = (
            f"{uuid.UUID(int=rng.getrandbits(128))}\t{uuid.UUID(int=rng.getrandbits(128))}\tbinance\t"
            f"{rng.choice(('BTCUSDT', 'ETHUSDT', 'SOLUSDT'))}\t{rng.choice(('buy', 'sell'))}\tlimit\t"
            f"{rng.randrange(10**10) / 1e8:.8f}\t{rng.randrange(10**12) / 1e8:.8f}\tfilled\t"
            f"2026-11-{rng.randrange(1, 23):02d} {rng.randrange(24):02d}:{rng.randrange(60):02d}:"
            f"{rng.randrange(60):02d}.{rng.randrange(10**6):06d}+00\t"
            f'{{"window": {rng.randrange(200)}, "threshold": {rng.random():.4f}}}\n'
        )
        lines.append(line)
        length += len(line)
    return "".join(lines).encode()


def pieces(block: bytes, total_bytes: int) -> Iterator[memoryview]:
    """Yield ``total_bytes`` of the block, over and over; it is larger than any zstd window at level 1."""
    view, done = memoryview(block), 0
    while done < total_bytes:
        for at in range(0, len(block), WRITE_BYTES):
            piece = view[at : at + WRITE_BYTES][: total_bytes - done]
            yield piece
            done += len(piece)
            if done >= total_bytes:
                return


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds (children included) of one call."""
    before = os.times()
    started = time.perf_counter()
    work()
    wall_s = time.perf_counter() - started
    after = os.times()
    return wall_s, sum(after[:4]) - sum(before[:4])


def fill(sink: PartSink, block: bytes, total_bytes: int) -> None:
    """Write the data as one artifact."""
    writer = sink.open("rows")
    for piece in pieces(block, total_bytes):
        writer.write(piece)
    writer.close()


def stored_backup(store: MemoryStore, codec: Codec, block: bytes, total_bytes: int, workers: int) -> Backup:
    """Put the data into a store that keeps it, and describe it, to be read back."""
    with PartSink(store, codec, source="bench", backup_id=BACKUP_ID, workers=workers, cancel=CancelToken()) as sink:
        fill(sink, block, total_bytes)
        artifacts = sink.finish()
    now = datetime.now(UTC)
    return Backup(
        id=BACKUP_ID,
        source="bench",
        engine="postgres",
        engine_version="",
        kind="full",
        parent=None,
        started_at=now,
        finished_at=now,
        recovery_point=now,
        window_start=None,
        artifacts=artifacts,
        compression="zstd",
        encryption="age",
        recipients=codec.recipients,
        plain_bytes=total_bytes,
        stored_bytes=sink.bytes_stored,
        rows=None,
        lease_generation=1,
        repository_id="bench",
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not (shutil.which("zstd") and shutil.which("age")):
        raise SystemExit("the peer needs the commands zstd and age (apt-get install zstd age)")
    total_bytes = args.mib * MIB
    identity, recipient = generate_identity()
    codec = Codec(1, (recipient,), (identity,))
    block = rows(1, min(total_bytes, 64 * MIB))
    with tempfile.TemporaryDirectory(prefix="drd-bench-") as folder:
        measure(Path(folder), codec, identity, block, total_bytes, args)


def measure(
    folder: Path, codec: Codec, identity: Secret, block: bytes, total_bytes: int, args: argparse.Namespace
) -> None:
    """Run both ways side by side and print the ratios."""
    plain, sealed, key = folder / "plain", folder / "sealed", folder / "key"
    key.touch(mode=0o600)
    key.write_text(identity.reveal())
    with plain.open("wb") as out:
        for piece in pieces(block, total_bytes):
            out.write(piece)
    encode = f"zstd -1 -T2 -q -c {plain} | age -r {codec.recipients[0]}"
    subprocess.run(f"{encode} > {sealed}", shell=True, check=True)
    store = MemoryStore()
    backup = stored_backup(store, codec, block, total_bytes, args.workers)

    def peer_in() -> None:
        subprocess.run(f"{encode} > /dev/null", shell=True, check=True)

    def peer_out() -> None:
        subprocess.run(f"age -d -i {key} {sealed} | zstd -dc > /dev/null", shell=True, check=True)

    def ours_in() -> None:
        workers, store = args.workers, ForgetfulStore()
        with PartSink(store, codec, source="bench", backup_id=BACKUP_ID, workers=workers, cancel=CancelToken()) as sink:
            fill(sink, block, total_bytes)
            sink.finish()

    def ours_out() -> None:
        with PartReader(store, codec, backup, workers=args.workers, cancel=CancelToken()) as reader:
            got = sum(len(chunk) for chunk in reader.open("rows").chunks())
        assert got == total_bytes  # noqa: S101 - a benchmark of something else would be a lie

    print(f"{args.mib} MiB of rows, {args.workers} workers on {os.cpu_count()} cores, best of {args.rounds}")
    for name, ours, peer in (("backup ", ours_in, peer_in), ("restore", ours_out, peer_out)):
        runs = [(timed(ours), timed(peer)) for _ in range(args.rounds)]
        mine, its = (min(run[side][0] for run in runs) for side in (0, 1))
        mine_cpu, its_cpu = (min(run[side][1] for run in runs) for side in (0, 1))
        print(
            f"{name}  drd {total_bytes / mine / 1e6:6.0f} MB/s ({mine_cpu:5.2f} cpu s)"
            f"   zstd|age {total_bytes / its / 1e6:6.0f} MB/s ({its_cpu:5.2f} cpu s)"
            f"   time {mine / its:.2f} x   cpu {mine_cpu / its_cpu:.2f} x"
        )
    print(f"size     drd {backup.stored_bytes / total_bytes:.4f}   zstd|age {sealed.stat().st_size / total_bytes:.4f}")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"peak memory, with {len(block) >> 20} MiB of input and all stored parts in it: {peak_mib} MiB")


if __name__ == "__main__":
    main()
