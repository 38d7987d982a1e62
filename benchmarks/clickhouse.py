"""Measure ClickHouse backups beside the bare BACKUP statement to the same store, in one run.

``python benchmarks/clickhouse.py [--scale 8] [--rounds 3]``

All end with the database in the same SeaweedFS: written by the server alone (the floor), by the server on drd's behalf
(direct), and by way of drd, which verifies, packs, compresses, encrypts and digests it (gateway). Scale 10 is about
120 MB. drd's figures are whole processes, from the start of the interpreter to its end.
"""

from __future__ import annotations

import argparse
import tempfile
import uuid
from pathlib import Path
from typing import Any

from measuring import MIB, Drd, Way, headline, take_turns

from devstack.clickhouse import ClickHouse
from devstack.load import load_clickhouse
from devstack.s3 import SeaweedS3
from devstack.trading import CLICKHOUSE_DATABASE
from devstack.workspace import Workspace
from drd.repository.codec import generate_identity

TARGETS = {"direct": 1.1, "gateway": 1.5}


def main() -> None:
    """Load, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with Workspace.create() as workspace, tempfile.TemporaryDirectory(prefix="drd-bench-") as folder:
        server, s3 = ClickHouse(workspace).start(), SeaweedS3(workspace).start()
        rows = load_clickhouse(server, scale=args.scale)
        measure(server, s3, Path(folder), sum(rows.values()), args.rounds)


def measure(server: ClickHouse, s3: SeaweedS3, folder: Path, rows: int, rounds: int) -> None:
    """Run the three in turns."""
    bucket, key, secret = s3.fresh_bucket("bench"), s3.admin.access_key_id, s3.admin.secret_access_key

    def bare() -> None:
        where = f"S3('{s3.url}/{bucket}/{uuid.uuid4().hex}', '{key}', '{secret}')"
        server.query(f"BACKUP DATABASE {CLICKHOUSE_DATABASE} TO {where}")

    drds = {mode: Drd(folder / mode, config(server, s3, mode), environment(server, s3)) for mode in TARGETS}
    held = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = "
    size = int(server.query(f"{held}'{CLICKHOUSE_DATABASE}'"))
    headline(f"ClickHouse: {size / MIB:.0f} MiB in the server, {rows:,} rows; best and median of {rounds}")
    ways = [Way("BACKUP … TO S3, bare", bare)]
    ways += [
        Way(f"drd backup now, {mode}", lambda mode=mode: drds[mode]("backup", "now", "--kind", "full"), target=target)  # type: ignore[misc]
        for mode, target in TARGETS.items()
    ]
    take_turns(ways, rounds, [server.pid, s3.pid])
    for mode, drd in drds.items():
        done = [run.document["backups"][0] for run in drd.runs]
        inside = min(item["duration_s"] for item in done)
        print(
            f"  {mode}: the backup itself, without start and end, {inside:.2f} s "
            f"({inside / min(ways[0].seconds):.2f} x); stored {done[-1]['stored_bytes'] / MIB:.0f} MiB; {drd.peaks()}"
        )


def config(server: ClickHouse, s3: SeaweedS3, mode: str) -> dict[str, Any]:
    """Return drd's configuration for a mode; direct cannot be encrypted by drd."""
    _, recipient = generate_identity()
    source = {
        "type": "clickhouse",
        "url": server.url,
        "password": {"env": "BENCH_PASSWORD"},
        "databases": [CLICKHOUSE_DATABASE],
        "mode": mode,
    }
    store = {
        "type": "s3",
        "bucket": s3.fresh_bucket("bench"),
        "prefix": mode,
        "endpoint_url": s3.url,
        "access_key_id": {"env": "BENCH_KEY"},
        "secret_access_key": {"env": "BENCH_SECRET"},
    }
    return {"store": store, "encryption": {"recipients": [recipient]}, "sources": {"market-data": source}}


def environment(server: ClickHouse, s3: SeaweedS3) -> dict[str, str]:
    """Return the secrets that the configuration refers to."""
    return {
        "BENCH_PASSWORD": server.password,
        "BENCH_KEY": s3.admin.access_key_id,
        "BENCH_SECRET": s3.admin.secret_access_key,
    }


if __name__ == "__main__":
    main()
