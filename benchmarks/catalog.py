"""Measure the verbs that look at the whole catalog, with 10,000 backups in a folder or (``--s3``) in SeaweedFS.

``python benchmarks/catalog.py [--backups 10000] [--sources 20] [--rounds 3] [--signed] [--without-index] [--s3]``.
Target: 2 s each, from a cold cache (dropped before every run where this process may do so, which needs root; it says
whether it did). Manifests are as large as real ones, with some 280 parts each, and a tenth of that with ``--signed``,
where each has a signature of its own and lists demand it, and with ``--s3``, where each is put by itself. The parts
themselves are not there, since none of these verbs looks at them. The index of heads is what the repository's own
backups would have made; ``--without-index`` takes it away.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from measuring import Way, as_installed, headline, take_turns

from devstack.s3 import SeaweedS3
from devstack.workspace import Workspace
from drd.model import Artifact, Backup, Part
from drd.repository import layout, manifest
from drd.repository.catalog import Catalog
from drd.repository.fields import text_of_time
from drd.repository.remembered import MOST_AT_ONCE
from drd.repository.repository import Repository
from drd.repository.signing import Signing, generate_signing_key
from drd.stores.local import LocalStore

EVERY = timedelta(minutes=15)
TARGET_S = 2.0


def made(source: str, at: datetime, generator: random.Random, tables: int = 50) -> Backup:
    """Return a backup with as many artifacts and parts as one of a real database has."""
    backup_id = layout.new_backup_id(at)
    digest = f"{generator.getrandbits(256):064x}"
    counts = {f"db-0/{number}.dat": generator.randint(1, 10) for number in range(generator.randint(tables, tables + 2))}
    artifacts = tuple(
        Artifact(name, tuple(_part(source, backup_id, name, index, digest) for index in range(count)))
        for name, count in counts.items()
    )
    return Backup(
        id=backup_id,
        source=source,
        engine="postgres",
        engine_version="17.2 (Debian 17.2-1)",
        kind="full",
        parent=None,
        started_at=at,
        finished_at=at + timedelta(seconds=40),
        recovery_point=at,
        window_start=None,
        artifacts=artifacts,
        compression="zstd",
        encryption="age",
        recipients=("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",),
        plain_bytes=sum(artifact.plain_bytes for artifact in artifacts),
        stored_bytes=sum(artifact.stored_bytes for artifact in artifacts),
        rows=3_000_086,
        lease_generation=7,
        repository_id="8a0c9d52-8b5f-4a7e-9f0e-0d4f1f1d2c3b",
        tools={"pg_dump": "17.2", "drd": "1.0.0"},
        facts={"encoding": "UTF8", "tables": 40},
    )


def _part(source: str, backup_id: str, name: str, index: int, digest: str) -> Part:
    key = layout.part_key(source, backup_id, name, index, encrypted=True)
    return Part(key, 8 << 20, 3 << 20, digest, digest[::-1])


def fill(folder: Path, backups: int, sources: list[str], signing: Signing, tables: int) -> float:
    """Make the repository; return how many parts a manifest has on average."""
    store = LocalStore(folder)
    start = datetime.now(UTC).replace(microsecond=0) - EVERY * (backups // len(sources) + 1)
    Repository(store).open_or_create(start)
    generator, parts = random.Random(1), 0
    patterns = [made("pattern", start, generator, tables) for _ in range(20)]
    texts = [(pattern.id.encode(), manifest.to_json(pattern)) for pattern in patterns]
    for number in range(backups):
        source, at = sources[number % len(sources)], start + EVERY * (number // len(sources))
        if signing.signs or number >= backups - len(sources):
            backup = signing.signed(made(source, at, generator, tables))
            backup_id, text = backup.id, manifest.to_json(backup)
            parts += sum(len(artifact.parts) for artifact in backup.artifacts)
        else:  # their digests do not fit: these verbs look at those of the newest alone
            backup_id, (old_id, text) = layout.new_backup_id(at), texts[number % len(texts)]
            text = text.replace(old_id, backup_id.encode()).replace(b"pattern", source.encode())
            text = text.replace(text_of_time(start)[:19].encode(), text_of_time(at)[:19].encode())
            parts += sum(len(artifact.parts) for artifact in patterns[number % len(texts)].artifacts)
        path = folder / layout.manifest_key(source, backup_id)
        path.parent.mkdir(parents=True)
        path.write_bytes(text)  # not through the store: 10,000 syncs are not what is measured
    catalog = Catalog(store, signing)
    for source in sources:
        for _ in range(backups // len(sources) // MOST_AT_ONCE + 1):
            catalog.renew_index(source)
    return parts / backups


def forget_pages() -> bool:
    """Drop the system's page cache; return whether that was allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backups", type=int, default=10_000)
    parser.add_argument("--sources", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--signed", action="store_true", help="backups are signed, and lists demand it")
    parser.add_argument("--s3", action="store_true", help="in SeaweedFS, not in a folder")
    parser.add_argument("--without-index", action="store_true", help="read the head of each manifest")
    args = parser.parse_args()
    sources = [f"postgres-{number:02d}" for number in range(args.sources)]
    with tempfile.TemporaryDirectory(prefix="drd-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        secret, public = generate_signing_key()
        tables = 5 if args.signed or args.s3 else 50
        parts = fill(
            folder / "store", args.backups, sources, Signing(lambda: secret) if args.signed else Signing(), tables
        )
        if args.without_index:
            shutil.rmtree(folder / "store/heads")
        store: dict[str, Any] = {"type": "local", "path": str(folder / "store")}
        if args.s3:
            store = put_all(SeaweedS3(stack.enter_context(Workspace.create())).start(), folder / "store")
        cold = "cold page cache" if forget_pages() else "warm page cache: only root may drop it"
        how = (
            ("on S3, " if args.s3 else "")
            + ("signed, " if args.signed else "")
            + ("without an index, " if args.without_index else "")
        )
        what = f"{args.backups} backups of {args.sources} sources, {parts:.0f} parts each, {how}{cold}"
        headline(f"{what} (target: {TARGET_S:g} s)")
        measure(folder, store, sources, public if args.signed else None, args.rounds)


def put_all(s3: SeaweedS3, folder: Path) -> dict[str, Any]:
    """Put every file of a folder into a fresh bucket; return the configuration of that store."""
    bucket, client = s3.fresh_bucket("bench"), s3.client()

    def put(path: Path) -> None:
        client.put_object(Bucket=bucket, Key=str(path.relative_to(folder)), Body=path.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, (path for path in folder.rglob("*") if path.is_file())))
    keys = {"access_key_id": s3.admin.access_key_id, "secret_access_key": s3.admin.secret_access_key}
    return {"type": "s3", "bucket": bucket, "endpoint_url": s3.url, **keys}


def measure(folder: Path, store: dict[str, Any], sources: list[str], public: str | None, rounds: int) -> None:
    """Run every verb in turns."""
    config = folder / "drd.yaml"
    env = {"env": "NO_SUCH_SECRET"}
    source = {"type": "postgres", "url": "postgresql://admin@127.0.0.1:1/trading", "password": env}
    document = {"store": store, "sources": dict.fromkeys(sources, source)}
    config.touch(mode=0o600)
    config.write_text(yaml.safe_dump(document | ({"signing": {"public_keys": [public]}} if public else {})))
    environment = as_installed(folder / "installed") | {"DRD_CONFIG": str(config)}
    newest = max(path.name for path in (folder / "store/backups" / sources[0]).iterdir())

    def verb(*words: str) -> Callable[[], object]:
        argv = [sys.executable, "-m", "drd", *words]
        return lambda: subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)

    to = str(folder / "export")
    wanted = {
        "drd --help": ("--help",),
        "drd list": ("list",),
        "drd list --json": ("list", "--json"),
        "drd show": ("show", newest[-6:]),
        "drd status": ("status",),
        "drd prune": ("prune",),
        "drd restore --dry-run": ("restore", "--at", "now", "--source", sources[0], "--into", to, "--dry-run"),
    }
    take_turns([Way(name, verb(*words), forget_pages) for name, words in wanted.items()], rounds)


if __name__ == "__main__":
    main()
