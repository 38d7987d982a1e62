"""Restoring into a directory: who can read it, what may be there already, two at once, one of several failing."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from drd.cli.main import main
from drd.errors import TargetError, TargetNotEmpty
from drd.ops.export import export
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.stores.local import LocalStore
from tests.support.backups import store_backup
from tests.unit.test_review_core_publishing import ports_of

CONTENT = {"db-0/1.dat": [b"rows\n" * 50], "fingerprint.json": [b"{}"]}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with a backup of each of two sources, and configure it for this process."""
    store = LocalStore(tmp_path / "store")
    for source in ("one", "two"):
        Catalog(store).publish(store_backup(store, Codec(1), CONTENT, source=source))
    (tmp_path / "drd.yaml").write_text("store: {type: local, path: store}\n")
    monkeypatch.setenv("DRD_CONFIG", str(tmp_path / "drd.yaml"))
    return tmp_path


def restore(into: Path | str, *more: str) -> int:
    return main(
        ["restore", "--at", "2026-11-22T18:15:00Z", "--source", "one", "--source", "two", "--into", str(into), *more]
    )


def test_the_files_are_their_owners_alone(site: Path) -> None:
    """What was decrypted lies in a folder that nobody else can enter."""
    assert restore(site / "out") == 0
    assert (site / "out/one").stat().st_mode & 0o777 == 0o700
    assert (site / "out/two/db-0/1.dat").read_bytes() == b"rows\n" * 50


def test_a_folder_that_exists_refuses_all_before_anything_is_written(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second source's folder is taken: nothing of the first is written, and a dry run says so."""
    (site / "out/two").mkdir(parents=True)
    assert restore(site / "out") == 14
    assert [path.name for path in (site / "out").iterdir()] == ["two"]
    capsys.readouterr()
    assert restore(site / "out", "--dry-run") == 0
    assert "would be refused" in capsys.readouterr().out


def test_one_source_that_fails_does_not_hide_the_other(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged backup of the first source: the second is written, exit 3, and the document says which is which."""
    part = next((site / "store/backups/one").rglob("000000.zst"))
    part.write_bytes(part.read_bytes()[:-1])
    assert restore(site / "out", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert [(item["source"], item["outcome"]) for item in document["restores"]] == [("one", "failed"), ("two", "ok")]
    assert document["restores"][0]["error"]["code"] == "integrity"
    assert [path.name for path in (site / "out").iterdir()] == ["two"]


def test_a_newer_damaged_backup_is_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newer backup that could not be used is named, in words and in the document; a later one is of no interest."""
    for damaged in ("20261122T181458Z-abcdef", "20261123T000000Z-abcdef"):
        folder = site / "store/backups/one" / damaged
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
    assert restore(site / "out", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)["restores"][0]["passed_over"]
    assert [item["id"] for item in told] == ["20261122T181458Z-abcdef"]
    assert restore(site / "out") == 0
    assert "20261122T181458Z-abcdef is newer but cannot be used" in capsys.readouterr().out


@pytest.mark.parametrize("more", [("--password-env", "X"), ("--password-file", "x"), ("--no-compare",)])
def test_flags_without_effect_are_refused(site: Path, more: tuple[str, ...]) -> None:
    """What only a server could need is an error with a directory, and so is an empty --into."""
    assert restore(site / "out", *more) == 2
    assert restore("") == 2
    assert not (site / "out").exists()


def test_two_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    """While one export writes, another into the same directory is refused and takes nothing from the first."""
    store = LocalStore(tmp_path / "store")
    backup = store_backup(store, Codec(1), CONTENT)
    ports = ports_of(store, tmp_path, "host")
    refused: list[Exception] = []
    (tmp_path / "out/.src.partial/left").mkdir(parents=True)  # by an export that was killed

    def export_again() -> None:
        try:
            export(ports_of(store, tmp_path, "other"), backup, tmp_path / "out")
        except TargetError as error:
            refused.append(error)

    def second(_step: object) -> None:
        thread = threading.Thread(target=export_again)
        thread.start()
        thread.join()

    object.__setattr__(ports, "progress", second)
    assert export(ports, backup, tmp_path / "out") == tmp_path / "out/src"
    assert refused
    assert "another drd" in str(refused[0])
    assert sorted(path.name for path in (tmp_path / "out/src").rglob("*")) == ["1.dat", "db-0", "fingerprint.json"]
    export_again()
    assert isinstance(refused[-1], TargetNotEmpty)


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """Neither the unfinished folder nor the final one may be a link to somewhere else."""
    store = LocalStore(tmp_path / "store")
    backup = store_backup(store, Codec(1), CONTENT)
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/.src.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetError):
        export(ports_of(store, tmp_path, "host"), backup, tmp_path / "out")
    (tmp_path / "out/.src.partial").unlink()
    (tmp_path / "out/src").symlink_to(tmp_path / "nowhere")
    with pytest.raises(TargetNotEmpty):
        export(ports_of(store, tmp_path, "host"), backup, tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []
