"""Signed backups on the command line: made, believed, refused, told apart."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from drd.repository.signing import generate_signing_key
from tests.e2e.conftest import MakeSite
from tests.support.drd_site import Site


@pytest.fixture
def signed_site(make_site: MakeSite) -> Site:
    """Give a site that signs and checks, with the pair that ``drd keygen --signing`` made."""
    site = make_site("trading-redis")
    pair = site("keygen", "--signing", "--output", "signing.pem", "--json").succeeds().json
    key = site.folder / pair["private_key_file"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    site.secrets.update(line for line in key.read_text().splitlines() if "KEY" not in line)
    site.config["signing"] = {"private_key": {"file": str(key)}, "public_keys": [pair["public_key"]]}
    return site


def test_keygen_signing_prints_what_to_configure(signed_site: Site) -> None:
    """The private key goes to a file alone, never over another one; what is printed can be pasted."""
    run = signed_site("keygen", "--signing").succeeds()
    written = signed_site.folder / "drd-signing-key.pem"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert written.read_text().splitlines()[1] not in run.text
    assert 'signing: {private_key: {file: drd-signing-key.pem}, public_keys: ["ed25519:' in run.out
    signed_site("keygen", "--signing").fails(2, "drd-signing-key.pem exists already")


def test_a_forged_backup_is_refused_everywhere(signed_site: Site, tmp_path: Path) -> None:
    """Planted beside a good one it is passed over by name; alone, every verb that would use it exits 20."""
    good = signed_site("backup", "now", "--json").succeeds().json["backups"][0]["id"]
    forger = signed_site.at(tmp_path / "forger")
    del forger.config["signing"]
    forged = forger("backup", "now", "--json").succeeds().json["backups"][0]["id"]

    lines = {line["id"]: line for line in signed_site("list", "--json").succeeds().json["backups"]}
    assert (lines[good]["outcome"], lines[forged]["outcome"]) == ("ok", "untrusted")
    assert "is not signed" in lines[forged]["problem"]
    assert "untrusted" in signed_site("list").succeeds().out
    assert "1 backup not signed, or not encrypted" in signed_site("status").succeeds().out
    assert signed_site("status", "--json").json["sources"][0]["untrusted"] == 1

    planned = signed_site("restore", "--at", "now", "--into", "out", "--json", "--dry-run").succeeds().json["restores"]
    assert planned[0]["backup"] == good
    assert [item["id"] for item in planned[0]["passed_over"]] == [forged]
    assert forged in signed_site("restore", "--at", "now", "--into", "out").succeeds().text

    found = signed_site("verify", "--json")
    assert found.rc == 20
    assert {item["id"]: item["outcome"] for item in found.json["backups"]} == {good: "ok", forged: "damaged"}
    signed_site("runbook", forged).fails(20, forged, "is not signed", hint=f"drd show {forged}")
    assert "was checked when this script was printed" in signed_site("runbook", good).succeeds().out
    shown = signed_site("show", forged)
    assert (shown.rc, "does not count" in shown.out) == (20, True)
    assert ", checked" in signed_site("show", good).succeeds().out

    shutil.rmtree(signed_site.store_dir / "backups" / "trading-redis" / good)
    signed_site("restore", "--at", "now", "--into", "again").fails(20, forged, "is not signed", hint="signing.")
    assert not (signed_site.folder / "again").exists()


def test_old_backups_count_by_choice_and_a_new_key_does_not(make_site: MakeSite) -> None:
    """From unsigned to signed by configuration alone; another pair's backups count once its public key is named."""
    site = make_site("trading-redis")
    site("backup", "now").succeeds()
    _, key = generate_signing_key()
    site.config["signing"] = {"public_keys": [key]}
    assert site("verify").rc == 20
    site.config["signing"]["accept_unsigned_before"] = "2999-01-01T00:00:00Z"
    site("verify", "--deep").succeeds()
    site("restore", "--at", "now", "--into", "out").succeeds()
    items = {item["name"]: item for item in site("check", "--json").json["items"]}
    assert items["signing"]["outcome"] == "ok"
    site("backup", "now").fails(2, "signing.private_key is not", hint="signing.private_key")


def test_a_backup_in_the_clear_is_refused_where_encryption_is_configured(signed_site: Site, tmp_path: Path) -> None:
    """Signed and all: a host that lost its recipients is found out; old ones count from before a time, by choice."""
    careless = signed_site.at(tmp_path / "careless")
    del careless.config["encryption"]
    clear = careless("backup", "now", "--json").succeeds().json["backups"][0]["id"]
    lines = signed_site("list", "--json").succeeds().json["backups"]
    assert [(line["id"], line["outcome"]) for line in lines] == [(clear, "untrusted")]
    for verb in (("verify",), ("verify", "--sample", "5%"), ("runbook", clear)):
        assert signed_site(*verb).rc == 20
    signed_site("restore", "--at", "now", "--into", "out").fails(
        20, clear, "is not encrypted, though", hint="encryption.accept_clear_before"
    )
    assert "1 backup not signed, or not encrypted" in signed_site("status").succeeds().out
    assert signed_site("prune", "--apply", "--json").succeeds().json["remove"] == []

    signed_site.config["encryption"]["accept_clear_before"] = "2999-01-01T00:00:00Z"
    signed_site("verify", "--deep").succeeds()
    signed_site("restore", "--at", "now", "--into", "out").succeeds()
    items = {item["name"]: item for item in signed_site("check", "--json").json["items"]}
    assert items["encryption"]["outcome"] == "warning"
    encrypted = signed_site("backup", "now", "--json").succeeds().json["backups"][0]
    del signed_site.config["encryption"]["accept_clear_before"]
    (planned,) = (
        signed_site("restore", "--at", "now", "--into", "o2", "--dry-run", "--json").succeeds().json["restores"]
    )
    assert (planned["backup"], [item["id"] for item in planned["passed_over"]]) == (encrypted["id"], [])


def test_a_repository_that_is_not_the_configured_one(signed_site: Site) -> None:
    """Where signing.repository names another, no backup is taken that would not count, and check says why."""
    signed_site("backup", "now").succeeds()
    signed_site.config["signing"]["repository"] = "8a0c9d52-8b5f-4a7e-9f0e-0d4f1f1d2c3b"
    signed_site("backup", "now").fails(2, "only backups of 8a0c9d52", hint="signing.repository")
    assert len(signed_site("list", "--json").json["backups"]) == 1
    signed_site("restore", "--at", "now", "--into", "out").fails(20, "not of 8a0c9d52")
    items = {item["name"]: item for item in signed_site("check", "--json").json["items"]}
    assert items["repository"]["outcome"] == "failed"
    (signed_site.store_dir / "drd.json").unlink()
    items = {item["name"]: item for item in signed_site("check", "--json").json["items"]}
    assert (items["repository"]["outcome"], "is gone" in items["repository"]["detail"]) == ("warning", True)


def test_an_older_drd_is_told_by_version(signed_site: Site) -> None:
    """A signed manifest has a version of its own, so that a drd which cannot check it refuses it by name."""
    backup = signed_site("backup", "now", "--json").succeeds().json["backups"][0]["id"]
    path = signed_site.store_dir / "backups" / "trading-redis" / backup / "manifest.json"
    assert json.loads(path.read_text())["schema_version"] == 2
