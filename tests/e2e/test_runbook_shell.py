"""The first half of a runbook, by itself: checks, fetching, digests, decoding, going on after a failure."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyrage
import pytest
import zstandard

from devstack.s3 import SeaweedS3
from drd.model import Artifact, Backup, EngineRunbook, Part, Problem
from drd.ops.runbook import FolderLocation, S3Location, runbook
from drd.protocols import ArtifactReader, WorkContext
from tests.support.backups import describe
from tests.support.bare_shell import BareShell

pytestmark = pytest.mark.e2e

ID = "20261122T181455Z-gqqden"
PARENT = "20261121T181455Z-gqqdep"
SOURCE = "trading-postgres"
SHELL = r"""
check_target() { if [ -n "${TARGET_IS_FULL:-}" ]; then problem "the target is full"; fi; }
restore_target() {
    (cd "$DATA" && find . -type f -exec sha256sum {} + | sort) >"$DRD_WORK/restored"
    say "MARK is $MARK"
}
"""


class NoEngine:
    """An engine's half that only lists what was decoded."""

    kind = "postgres"

    def verify(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> list[Problem]:
        raise NotImplementedError

    def runbook(self, backup: Backup) -> EngineRunbook:
        return EngineRunbook(
            (), (("TARGET_IS_FULL", "(makes it refuse)"),), {"MARK": "it's $(touch oops) `\"\\"}, SHELL
        )


@dataclass
class Made:
    """A made-up backup: what its artifacts hold, and its objects by key."""

    backup: Backup
    contents: dict[str, bytes]
    objects: dict[str, bytes]

    def into(self, folder: Path) -> FolderLocation:
        for key, data in self.objects.items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(data)
        return FolderLocation(str(folder))

    def demand_restored(self, work: Path) -> None:
        """Demand that the second half found every file, and nothing else, with the right bytes."""
        found = dict(reversed(line.split("  ./", 1)) for line in (work / "restored").read_text().splitlines())
        assert found == {name: hashlib.sha256(data).hexdigest() for name, data in self.contents.items()}


def made(
    *, contents: dict[str, Sequence[bytes]] | None = None, recipient: str | None = None, of_parent: Sequence[str] = ()
) -> Made:
    """Make a backup of artifacts given as their parts; those in ``of_parent`` lie in an ancestor's folder."""
    parts_of = contents or {
        "db-0/toc.dat": [b"table of contents"],
        "db-0/3101.dat": [os.urandom(5000) for _ in range(6)],
        "db-0/empty.dat": [],
        "globals.sql": [b"CREATE ROLE x;\n"],
    }
    suffix = ".zst.age" if recipient else ".zst"
    objects: dict[str, bytes] = {}
    artifacts = []
    for name, pieces in parts_of.items():
        parts = []
        for number, piece in enumerate(pieces):
            owner = PARENT if name in of_parent else ID
            stored = zstandard.compress(piece)
            if recipient:
                stored = pyrage.encrypt(stored, [pyrage.x25519.Recipient.from_str(recipient)])
            key = f"backups/{SOURCE}/{owner}/{name}/{number:06d}{suffix}"
            objects[key] = stored
            digests = hashlib.sha256(piece).hexdigest(), hashlib.sha256(stored).hexdigest()
            parts.append(Part(key, len(piece), len(stored), *digests))
        artifacts.append(Artifact(name, tuple(parts)))
    backup = describe(
        tuple(artifacts),
        backup_id=ID,
        source=SOURCE,
        recipients=(recipient,) if recipient else (),
        parent=PARENT if of_parent else None,
    )
    backup = replace(backup, engine_version="15.18 'quoted' $(touch oops)")
    return Made(backup, {name: b"".join(pieces) for name, pieces in parts_of.items()}, objects)


@pytest.fixture
def shell(tmp_path: Path) -> BareShell:
    return BareShell(tmp_path / "bare")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / 'work of $(touch oops) "the" night\'s \\ run'


def test_names_that_need_quotes(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """Folders, versions and values with quotes, spaces, backslashes and commands in them are data, never shell."""
    backup = made()
    location = backup.into(tmp_path / 'a store\'s "path" with $(touch oops) `touch oops` \\ }')
    said = shell.run(runbook(backup.backup, location, NoEngine()), {"DRD_WORK": str(work)}).succeeds()
    backup.demand_restored(work)
    assert "MARK is it's $(touch oops) `\"\\" in said.text
    assert list(tmp_path.rglob("oops")) == []


def test_from_standard_input(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """Piped into bash, no program that it runs eats the rest of the script."""
    backup = made()
    script = runbook(backup.backup, backup.into(tmp_path / "store"), NoEngine())
    shell.run(f"bash <<'EVERYTHING'\n{script}EVERYTHING\n", {"DRD_WORK": str(work)}).succeeds()
    backup.demand_restored(work)


def test_half_a_copy_does_nothing(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """A script that was cut anywhere before its last line runs nothing."""
    backup = made()
    lines = runbook(backup.backup, backup.into(tmp_path / "store"), NoEngine()).splitlines(keepends=True)
    for count in (*range(20, len(lines) - 1, 37), len(lines) - 1):
        shell.run("".join(lines[:count]), {"DRD_WORK": str(work)})
        assert not work.exists()


def test_everything_that_is_missing_is_said_at_once(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """Without variables, and with a full target, all of it is listed, nothing is fetched and the exit code is 1."""
    backup = made(recipient=str(pyrage.x25519.Identity.generate().to_public()))
    script = runbook(backup.backup, backup.into(tmp_path / "store"), NoEngine())
    shell.run(script).fails("DRD_WORK is not set", "Nothing was done")
    env = {"DRD_WORK": str(work), "TARGET_IS_FULL": "yes"}
    shell.run(script, env).fails("DRD_IDENTITY names no file", "the target is full", "2 thing(s)", "Nothing was done")
    assert sorted(path.name for path in work.iterdir()) == ["runbook-of"]
    (shell.bin_dir / "zstd").unlink()
    shell.run(script, env).fails("the program zstd is not on the PATH")


def test_the_work_folder_must_be_empty(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """A folder with anything of somebody else's in it is refused and left as it is; so is one that is too small."""
    backup = made()
    location = backup.into(tmp_path / "store")
    work.mkdir()
    (work / "somebody's").write_text("precious")
    shell.run(runbook(backup.backup, location, NoEngine()), {"DRD_WORK": str(work)}).fails("is not empty")
    assert [path.name for path in work.iterdir()] == ["somebody's"]
    huge = replace(backup.backup.artifacts[0].parts[0], plain_bytes=1 << 60)
    large = replace(backup.backup, artifacts=(Artifact("db-0/toc.dat", (huge,)),))
    env = {"DRD_WORK": str(tmp_path / "small")}
    shell.run(runbook(large, location, NoEngine()), env).fails("MiB free, and this backup needs 10995116")


@pytest.mark.parametrize("fault", ["flipped", "cut", "missing", "swapped"])
def test_a_part_that_is_not_right_is_named(shell: BareShell, work: Path, tmp_path: Path, fault: str) -> None:
    """A part with other bytes stops the script before the second half, with its key; nothing of it was used."""
    backup = made()
    keys = [key for key in backup.objects if "3101" in key]
    location = backup.into(tmp_path / "store")
    victim = tmp_path / "store" / keys[2]
    data = bytearray(victim.read_bytes())
    if fault == "flipped":
        data[len(data) // 2] ^= 1
    victim.write_bytes(data[:-1] if fault == "cut" else data)
    if fault == "missing":
        victim.unlink()
    if fault == "swapped":
        victim.write_bytes(backup.objects[keys[3]])
    said = shell.run(runbook(backup.backup, location, NoEngine()), {"DRD_WORK": str(work)})
    said.fails(keys[2], "is missing" if fault == "missing" else "is damaged", "another backup")
    assert not (work / "restored").exists()
    assert not (work / "data" / "db-0" / "3101.dat").exists()


def test_another_identity_is_found_out_before_anything_is_fetched(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """The wrong age identity stops it at the checks, naming whose is needed; the right one restores."""
    right, wrong = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    backup = made(recipient=str(right.to_public()))
    script = runbook(backup.backup, backup.into(tmp_path / "store"), NoEngine())
    key = tmp_path / "identity"
    key.write_text(f"# a comment\n{wrong}\n")
    env = {"DRD_WORK": str(work), "DRD_IDENTITY": str(key)}
    shell.run(script, env).fails("cannot be decoded", str(right.to_public()), "Nothing was done")
    assert not (work / "data").exists()
    key.write_text(f"{right}\n")
    said = shell.run(script, env).succeeds()
    backup.demand_restored(work)
    assert str(right) not in script + said.text


def test_it_goes_on_where_it_stopped(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """Killed in the middle of decoding and run again, it finishes; files that were complete are not made again."""
    backup = made(contents={"first.dat": [b"1" * 1000] * 3, "second.dat": [b"2" * 1000] * 9})
    script = runbook(backup.backup, backup.into(tmp_path / "store"), NoEngine())
    log, slow = tmp_path / "decoded.log", shell.bin_dir / "zstd"
    real = slow.readlink()
    slow.unlink()
    slow.write_text(f'#!/bin/sh\necho >>"{log}"\n[ $(wc -l <"{log}") -lt 8 ] || sleep 60\nexec "{real}" "$@"\n')
    slow.chmod(0o755)
    process = shell.start(script, {"DRD_WORK": str(work)})
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 8):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (work / "data" / "first.dat").exists()
    assert (work / "data" / "second.dat.partial").exists()
    log.unlink()
    slow.write_text(f'#!/bin/sh\necho >>"{log}"\nexec "{real}" "$@"\n')
    said = shell.run(script, {"DRD_WORK": str(work)}).succeeds()
    assert "going on" in said.text
    assert log.read_text().count("\n") == 1 + 9  # the check, and the file that was not complete
    backup.demand_restored(work)


def test_a_store_that_has_moved(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """The folder may be mounted elsewhere on the night."""
    backup = made()
    backup.into(tmp_path / "elsewhere")
    script = runbook(backup.backup, FolderLocation("/nowhere"), NoEngine())
    shell.run(script, {"DRD_WORK": str(work)}).fails("the store /nowhere is not there", "DRD_STORE_PATH")
    shell.run(script, {"DRD_WORK": str(work), "DRD_STORE_PATH": str(tmp_path / "elsewhere")}).succeeds()
    backup.demand_restored(work)


def test_thirty_thousand_parts(shell: BareShell, work: Path, tmp_path: Path) -> None:
    """A terabyte's list of parts is read in seconds, and the script stays below 10 MB."""
    backup = made(contents={"db-0/toc.dat": [b"x"]})
    part = backup.backup.artifacts[0].parts[0]
    key = f"backups/{SOURCE}/{ID}/db-0/3101.dat/"
    many = tuple(replace(part, key=f"{key}{number:06d}.zst") for number in range(30_000))
    large = replace(backup.backup, artifacts=(*backup.backup.artifacts, Artifact("db-0/3101.dat", many)))
    script = runbook(large, backup.into(tmp_path / "store"), NoEngine())
    assert len(script) < 10_000_000
    work.mkdir()
    (work / "runbook-of").write_text(ID)
    (work / "data" / "db-0").mkdir(parents=True)
    (work / "data" / "db-0" / "3101.dat").write_bytes(b"complete since an earlier run")
    started = time.monotonic()
    shell.run(script, {"DRD_WORK": str(work)}).succeeds()
    assert time.monotonic() - started < 30


class Bucket:
    """A bucket of the session's store, with what a script needs to read it."""

    def __init__(self, s3: SeaweedS3, name: str) -> None:
        self.s3, self.name = s3, name
        self.env = {
            "AWS_ACCESS_KEY_ID": s3.reader.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3.reader.secret_access_key,
        }

    def fill(self, backup: Made, prefix: str = "") -> None:
        for key, data in backup.objects.items():
            self.put(f"{prefix}{key}", data)

    def put(self, key: str, data: bytes) -> None:
        self.s3.client().put_object(Bucket=self.name, Key=key, Body=data)

    def location(self, prefix: str = "") -> S3Location:
        return S3Location(self.name, prefix, self.s3.url, self.s3.region, path_style=True)


@pytest.fixture
def store(s3: SeaweedS3, bucket: str, shell: BareShell, aws_cli: Path) -> Bucket:
    """Give a bucket, and a shell that has the AWS command line."""
    (shell.bin_dir / "aws").symlink_to(aws_cli)
    return Bucket(s3, bucket)


def test_a_chain_in_a_bucket_below_a_strange_prefix(shell: BareShell, work: Path, store: Bucket) -> None:
    """Parts that lie in an ancestor's folder are fetched from there; a prefix with quotes in it is no trouble."""
    prefix = "it's (mine)/tra*ding!"
    backup = made(of_parent=["db-0/3101.dat"])
    store.fill(backup, f"{prefix}/")
    script = runbook(backup.backup, store.location(prefix), NoEngine())
    shell.run(script, {"DRD_WORK": str(work), **store.env}).succeeds()
    backup.demand_restored(work)
    assert not list((work / "stored").rglob("*.zst"))  # removed as soon as decoded


def test_the_ways_a_bucket_can_fail(shell: BareShell, work: Path, store: Bucket, tmp_path: Path) -> None:
    """A wrong key and an absent part are said with the object's name; when the part is back, a second run finishes."""
    backup = made()
    store.fill(backup)
    script = runbook(backup.backup, store.location(), NoEngine())
    wrong = {"DRD_WORK": str(work), "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "Wr0ng-secret-key"}
    said = shell.run(script, wrong).fails("the store did not give", "AWS_ACCESS_KEY_ID", "Nothing was done")
    assert "Wr0ng-secret-key" not in said.text
    lost = next(key for key in backup.objects if key.endswith("3101.dat/000004.zst"))
    store.s3.client().delete_object(Bucket=store.name, Key=lost)
    env = {"DRD_WORK": str(work), **store.env}
    shell.run(script, env).fails(f"the store did not give {lost}")
    store.put(lost, backup.objects[lost][:-1] + b"!")
    shell.run(script, env).fails(f"{lost} is damaged")
    store.put(lost, backup.objects[lost])
    shell.run(script, env).succeeds()
    backup.demand_restored(work)


def test_a_part_that_was_cut_on_its_way_is_fetched_again(shell: BareShell, work: Path, store: Bucket) -> None:
    """What an earlier run left of a part is compared with its digest, and fetched again when it is not right."""
    backup = made(contents={"db-0/3101.dat": [os.urandom(5000) for _ in range(3)]})
    store.fill(backup)
    key = next(key for key in backup.objects if key.endswith("3101.dat/000002.zst"))
    local = work / "stored" / key
    local.parent.mkdir(parents=True)
    local.write_bytes(backup.objects[key][:100])
    (work / "runbook-of").write_text(ID)
    (work / "stored.complete").touch()
    shell.run(runbook(backup.backup, store.location(), NoEngine()), {"DRD_WORK": str(work), **store.env}).succeeds()
    backup.demand_restored(work)


def test_the_shell_is_sound() -> None:
    """Every part of every script parses; the names of its functions are not those of programs it calls."""
    root = Path(__file__).parents[2] / "drd"
    files = sorted(root.rglob("runbook.sh"))
    assert len(files) == 4
    for file in files:
        done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
