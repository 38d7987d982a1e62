"""Measure a Redis backup beside ``redis-cli --rdb`` and an upload of the file, in one run.

``python benchmarks/redis_keys.py [--keys 1000000] [--rounds 3]``

Both take a full synchronisation from the same server (``repl-diskless-sync-delay 0``) and end with the snapshot in
the same SeaweedFS. The peer's upload is boto3's ``upload_file``: in parts, by several threads, what the aws command
does. drd also compresses, encrypts, digests, and checks the snapshot (CRC64, structure, keys).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from measuring import MIB, Drd, Way, headline, require_programs, shell, size_of, take_turns

from devstack.load import load_redis
from devstack.redis import Redis
from devstack.s3 import SeaweedS3
from devstack.sizes import Sizes
from devstack.workspace import Workspace
from drd.repository.codec import generate_identity

TARGET = 1.3


def main() -> None:
    """Load, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    require_programs("redis-cli")
    with Workspace.create() as workspace, tempfile.TemporaryDirectory(prefix="drd-bench-") as folder:
        server, s3 = Redis(workspace, append_only=False).start(), SeaweedS3(workspace).start()
        with server.client() as client:
            keys = load_redis(client, scale=args.keys / Sizes.of(1).redis_keys)
        measure(server, s3, Path(folder), keys, args.rounds)


def measure(server: Redis, s3: SeaweedS3, folder: Path, keys: int, rounds: int) -> None:
    """Run both in turns."""
    bucket, client, rdb = s3.fresh_bucket("bench"), s3.client(), folder / "dump.rdb"
    _, recipient = generate_identity()
    secrets = {
        "REDISCLI_AUTH": server.password,
        "BENCH_KEY": s3.admin.access_key_id,
        "BENCH_SECRET": s3.admin.secret_access_key,
    }
    config = {
        "store": {
            "type": "s3",
            "bucket": s3.fresh_bucket("bench"),
            "endpoint_url": s3.url,
            "access_key_id": {"env": "BENCH_KEY"},
            "secret_access_key": {"env": "BENCH_SECRET"},
        },
        "encryption": {"recipients": [recipient]},
        "sources": {"keys": {"type": "redis", "url": server.url, "password": {"env": "REDISCLI_AUTH"}}},
    }
    drd = Drd(folder / "drd", config, secrets)

    def snapshot() -> None:
        shell(f"redis-cli -h {server.host} -p {server.port} --rdb {rdb} > /dev/null 2>&1", secrets)

    def peer() -> None:
        snapshot()
        client.upload_file(str(rdb), bucket, "dump.rdb")

    headline(f"Redis: {keys:,} keys; best and median of {rounds}")
    ways = [
        Way("redis-cli --rdb, then upload", peer),
        Way("redis-cli --rdb alone", snapshot),
        Way("drd backup now, to SeaweedFS", lambda: drd("backup", "now"), target=TARGET),
    ]
    take_turns(ways, rounds, [server.pid, s3.pid])
    done = [run.document["backups"][0] for run in drd.runs]
    print(
        f"  of which the backup itself, without start and end: {min(item['duration_s'] for item in done):.2f} s", end=""
    )
    print(f" ({min(item['duration_s'] for item in done) / min(ways[0].seconds):.2f} x the peer's)")
    stored, plain = done[-1]["stored_bytes"], size_of(rdb)
    print(f"  stored {stored / MIB:.0f} MiB, the peer {plain / MIB:.0f} MiB ({stored / plain:.2f}); drd: {drd.peaks()}")


if __name__ == "__main__":
    main()
