"""Signatures on manifests: what they bind, whom they let in, and what a writer of the bucket cannot do."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drd.errors import ConfigError, IntegrityError
from drd.model import Artifact, Backup, Part, Secret, Signature
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.ports import Ports, Source
from drd.ops.prune import prune
from drd.ops.runbook import FolderLocation, runbook
from drd.ops.status import status
from drd.ops.verify import verify
from drd.repository import layout, manifest
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec, generate_identity
from drd.repository.retention import Policy
from drd.repository.sealing import Sealing
from drd.repository.signing import Signing, Trust, generate_signing_key, is_public_key
from drd.stores.memory import MemoryStore
from tests.support.backups import ID, describe, store_backup
from tests.support.engine import DictEngine, DictFormat
from tests.support.ports import make_ports

OURS, OUR_KEY = generate_signing_key()
THEIRS, THEIR_KEY = generate_signing_key()
IDENTITY, RECIPIENT = generate_identity()
TRUST = Trust((OUR_KEY,))
GOOD = {"orders": b"1\tbuy\n" * 50}
FORGED = {"orders": b"9\tgive it all to me\n" * 50}


def signing(key: Secret | None = OURS, trust: Trust | None = TRUST) -> Signing:
    return Signing(None if key is None else lambda: key, trust)


@pytest.fixture
def ports_of(tmp_path: Path) -> Callable[..., Ports]:
    def make(store: MemoryStore, how: Signing, *, codec: Codec | None = None) -> Ports:
        ports = make_ports(store, tmp_path, codec=codec or Codec(1, (RECIPIENT,), (IDENTITY,)))
        return dataclasses.replace(ports, catalog=Catalog(store, how))

    return make


def take(ports: Ports, tables: dict[str, bytes], *, days_ago: int = 0) -> Backup:
    at = ports.now() - timedelta(days=days_ago)
    report = back_up(ports, [Source("shop", DictEngine(tables, at=at), 60.0)])
    assert report.outcome == "ok", report.sources[0].error
    assert report.sources[0].backup is not None
    return report.sources[0].backup


def restore(ports: Ports) -> tuple[DictEngine, restoring.RestoreReport]:
    target, at = DictEngine(), ports.now() + timedelta(seconds=1)
    planned = restoring.plan(ports, at, ["shop"], lambda _s, _b: Source("shop", target, 60.0))
    return target, restoring.restore(ports, at, planned)


def rewrite(store: MemoryStore, backup: Backup) -> None:
    """Put another manifest in the place of one, well-formed, as a writer of the bucket can."""
    key = layout.manifest_key(backup.source, backup.id)
    store.delete([key])
    store.put(key, manifest.to_json(backup))


def test_signed_backups_round_trip(ports_of: Callable[..., Ports]) -> None:
    """A signed backup is read back equal, verifies, restores; its manifest is of version 2 and names the key."""
    ports = ports_of(MemoryStore(), signing())
    backup = take(ports, GOOD)
    assert ports.catalog.get(backup.id) == backup
    assert (backup.schema_version, backup.signature and backup.signature.key) == (2, OUR_KEY)
    assert verify(ports, [], deep=True).outcome == "ok"
    target, report = restore(ports)
    assert (target.tables, report.outcome, report.restores[0].notices) == (GOOD, "ok", ())


def test_a_planted_backup_is_not_restored(ports_of: Callable[..., Ports]) -> None:
    """A whole forged backup, encrypted to our recipient, unsigned or signed by another: passed over, never counted."""
    store = MemoryStore()
    ours = ports_of(store, signing())
    good = take(ours, GOOD, days_ago=1)
    planted = [
        take(ports_of(store, Signing()), FORGED),
        take(ports_of(store, signing(THEIRS, None)), FORGED),
        take(ports_of(store, Signing(), codec=Codec(1)), FORGED),
    ]
    target, report = restore(ours)
    assert (target.tables, report.restores[0].backup) == (GOOD, good)
    assert {found for found, _ in report.restores[0].passed_over} == {backup.id for backup in planted}
    assert any(f"signed by {THEIR_KEY}" in reason for _, reason in report.restores[0].passed_over)
    found = {item.id: item for item in verify(ours, [], deep=True).backups}
    assert {key: item.outcome for key, item in found.items()} == {
        good.id: "ok",
        **{backup.id: "damaged" for backup in planted},
    }
    state = status(ours, [("shop", None)]).sources[0]
    assert (state.newest, state.backups, state.untrusted, state.damaged) == (good, 1, 3, 0)
    for backup in planted:
        with pytest.raises(IntegrityError, match=backup.id) as caught:
            ours.catalog.get(backup.id)
        assert caught.value.exit_code == 20
        assert f"drd show {backup.id}" in caught.value.hint


def test_without_another_backup_the_forged_one_is_named(ports_of: Callable[..., Ports]) -> None:
    """Where nothing else reaches the time, the refusal is about trust (20), not about a missing backup (10)."""
    store = MemoryStore()
    forged = take(ports_of(store, Signing()), FORGED)
    with pytest.raises(IntegrityError, match=f"{forged.id} is not signed") as caught:
        restore(ports_of(store, signing(None)))
    assert "signing.public_keys" in caught.value.hint


def test_planted_backups_do_not_push_good_ones_out(ports_of: Callable[..., Ports]) -> None:
    """Retention counts none of them, and removes none: a person should look."""
    store = MemoryStore()
    ours = ports_of(store, signing())
    good = take(ours, GOOD, days_ago=1)
    planted = [take(ports_of(store, Signing()), FORGED) for _ in range(3)]
    decision = prune(ours, {"shop": Policy(keep_last=1)}, apply=True).sources[0].decision
    assert not decision.remove
    assert {kept.id for kept in decision.keep} == {good.id, *(backup.id for backup in planted)}
    assert any("last 1 of 1" in kept.reasons for kept in decision.keep if kept.id == good.id)


def _altered() -> list[Any]:
    def part(backup: Backup, **changes: Any) -> Backup:
        first = backup.artifacts[0]
        changed = dataclasses.replace(first.parts[0], **changes)
        artifacts = (dataclasses.replace(first, parts=(changed, *first.parts[1:])), *backup.artifacts[1:])
        return dataclasses.replace(backup, artifacts=artifacts)

    later = timedelta(hours=1)
    return [
        pytest.param(lambda b: dataclasses.replace(b, recovery_point=b.recovery_point + later), id="time"),
        pytest.param(lambda b: dataclasses.replace(b, repository_id="another"), id="repository"),
        pytest.param(lambda b: dataclasses.replace(b, facts={"x": 1}), id="facts"),
        pytest.param(lambda b: dataclasses.replace(b, rows=10**6), id="rows"),
        pytest.param(lambda b: part(b, stored_sha256="0" * 64), id="stored digest"),
        pytest.param(lambda b: part(b, plain_sha256="0" * 64), id="plain digest"),
        pytest.param(lambda b: dataclasses.replace(b, artifacts=b.artifacts[::-1]), id="order of artifacts"),
        pytest.param(lambda b: dataclasses.replace(b, artifacts=b.artifacts[1:]), id="an artifact less"),
    ]


@pytest.mark.parametrize("change", _altered())
def test_everything_in_a_manifest_is_bound(ports_of: Callable[..., Ports], change: Callable[[Backup], Backup]) -> None:
    """A manifest whose signature is kept and anything else is changed does not count."""
    store = MemoryStore()
    ours = ports_of(store, signing())
    backup = take(ours, GOOD)
    rewrite(store, change(backup))
    entry = ours.catalog.entry(backup.id)
    assert entry.backup is None
    assert "not of this manifest" in (entry.problem or "")


def test_a_signature_is_not_moved_to_another_id_or_source(ports_of: Callable[..., Ports]) -> None:
    """A signed manifest copied to another place, its id or source adapted, does not count there."""
    store = MemoryStore()
    ours = ports_of(store, signing())
    backup = take(ours, GOOD)
    for copy in (
        dataclasses.replace(backup, id=f"{backup.id[:-6]}zzzzzz"),
        dataclasses.replace(backup, source="other", artifacts=()),
    ):
        rewrite(store, copy)
        entries = {(entry.source, entry.id): entry for entry in ours.catalog.entries()}
        assert entries[copy.source, copy.id].backup is None
    assert ours.catalog.get(backup.id) == backup  # not hidden behind the copy of the same id


def test_stripping_the_signature_is_no_way_in(ports_of: Callable[..., Ports]) -> None:
    """Back to version 1 without a signature: unsigned, so it does not count."""
    store = MemoryStore()
    ours = ports_of(store, signing())
    backup = take(ours, GOOD)
    rewrite(store, dataclasses.replace(backup, schema_version=1, signature=None))
    assert ours.catalog.entry(backup.id).problem == "is not signed"


@pytest.mark.parametrize(
    "signature",
    [
        Signature(OUR_KEY, ""),
        Signature(OUR_KEY, "!"),
        Signature(OUR_KEY, base64.b64encode(bytes(64)).decode()),
        Signature(OUR_KEY, base64.b64encode(bytes(63)).decode()),
        Signature(OUR_KEY[8:], base64.b64encode(bytes(64)).decode()),
        Signature("ed25519:" + base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes(64)).decode()),
    ],
    ids=["empty", "junk", "zeros", "short", "no prefix", "zero key"],
)
def test_junk_signatures_never_crash(signature: Signature) -> None:
    """Whatever stands in the field is a doubt in words, also where the junk key itself is configured."""
    backup = dataclasses.replace(describe(), schema_version=2, signature=signature)
    assert signing().doubt(backup, lambda: None)
    if signature.key == OUR_KEY:
        assert "not of this manifest" in signing().doubt(backup, lambda: None)


def test_unsigned_ones_count_by_explicit_choice(ports_of: Callable[..., Ports]) -> None:
    """``accept_unsigned_before`` wants an older id and an older time of the store."""
    store = MemoryStore()
    old = take(ports_of(store, Signing()), GOOD)
    limit = datetime.now(UTC) + timedelta(minutes=1)
    accepting = dataclasses.replace(TRUST, accept_unsigned_before=limit)
    target, report = restore(ports_of(store, signing(None, accepting)))
    assert target.tables == GOOD
    assert [notice.code for notice in report.restores[0].notices] == ["not-signed"]
    judge = signing(None, accepting)
    assert "at an unknown time" in judge.doubt(old, lambda: None)
    assert "was put into the store" in judge.doubt(old, lambda: limit)
    later = dataclasses.replace(old, id=f"{limit + timedelta(days=1):%Y%m%dT%H%M%SZ}-abcdef")
    assert "accept_unsigned_before" in judge.doubt(later, lambda: old.started_at)


def test_a_signed_backup_in_the_clear_does_not_count(ports_of: Callable[..., Ports]) -> None:
    """Where backups are encrypted, a valid signature does not make up for it: such a host is found out."""
    store = MemoryStore()
    good = take(ports_of(store, signing()), GOOD, days_ago=1)
    clear = take(ports_of(store, signing(), codec=Codec(1)), FORGED)
    sealed = ports_of(store, Signing(lambda: OURS, TRUST, Sealing()))
    target, report = restore(sealed)
    assert (target.tables, report.restores[0].backup) == (GOOD, good)
    found = {item.id: item for item in verify(sealed, [], deep=True).backups}
    assert (found[good.id].outcome, found[clear.id].outcome) == ("ok", "damaged")
    assert "is not encrypted, though" in found[clear.id].problems[0].message
    with pytest.raises(IntegrityError, match=clear.id) as caught:
        sealed.catalog.get(clear.id)
    assert "encryption.accept_clear_before" in caught.value.hint
    taken = take(sealed, GOOD)
    assert taken.parent is None or taken.parent == good.id


@pytest.mark.parametrize("trust", [None, TRUST])
def test_clear_ones_from_before_encryption_count_by_choice(ports_of: Callable[..., Ports], trust: Trust | None) -> None:
    """``accept_clear_before`` wants an older id and an older time of the store, whether only heads are read or all."""
    store = MemoryStore()
    old = take(ports_of(store, signing(), codec=Codec(1)), GOOD)
    limit = datetime.now(UTC) + timedelta(minutes=1)
    accepting = ports_of(store, Signing(lambda: OURS, trust, Sealing(limit)))
    (entry,) = accepting.catalog.survey("shop").entries
    assert entry.problem is None
    target, report = restore(accepting)
    assert target.tables == GOOD
    assert [notice.code for notice in report.restores[0].notices] == ["not-encrypted"]
    (entry,) = ports_of(store, Signing(lambda: OURS, trust, Sealing(old.started_at))).catalog.survey("shop").entries
    assert "count only from before" in (entry.problem or "")
    judge = Sealing(limit)
    assert "at an unknown time" in judge.doubt(old, lambda: None)
    assert "was put into the store at" in judge.doubt(old, lambda: limit)


def test_objects_that_a_server_writes_count_where_that_was_chosen() -> None:
    """Mode direct writes in the clear and is chosen by name: for another source such objects are a downgrade."""
    raw = Artifact("clickhouse/.backup", (Part(f"backups/src/{ID}/clickhouse/.backup", 9, 9, "", ""),), raw=True)
    backup = dataclasses.replace(describe((raw,)), encryption="age", recipients=(RECIPIENT,), engine="clickhouse")
    assert "holds objects that are not encrypted" in Sealing(sources=frozenset({"src"})).doubt(backup, lambda: None)
    assert not Sealing(sources=frozenset({"other"})).doubt(backup, lambda: None)
    assert "not encrypted" in Sealing().doubt(dataclasses.replace(backup, engine="postgres"), lambda: None)


def test_one_key_for_several_repositories_is_told_apart(ports_of: Callable[..., Ports]) -> None:
    """With ``signing.repository``, a backup that the same key signed for another repository does not count."""
    store = MemoryStore()
    backup = take(ports_of(store, signing()), GOOD)
    here = dataclasses.replace(TRUST, repository_id=backup.repository_id)
    assert not signing(None, here).doubt(backup, lambda: None)
    elsewhere = dataclasses.replace(TRUST, repository_id="8a0c9d52-8b5f-4a7e-9f0e-0d4f1f1d2c3b")
    assert f"is of the repository {backup.repository_id}" in signing(None, elsewhere).doubt(backup, lambda: None)


@pytest.mark.parametrize("how", [signing(None), signing(THEIRS)], ids=["no key", "another key"])
def test_a_backup_that_would_be_refused_is_not_begun(ports_of: Callable[..., Ports], how: Signing) -> None:
    """A host that checks signatures and cannot make the right one is told so before anything is dumped."""
    store, engine = MemoryStore(), DictEngine(GOOD)
    with pytest.raises(ConfigError, match="would refuse the backup it makes"):
        back_up(ports_of(store, how), [Source("shop", engine, 60.0)])
    assert not list(store.list(""))


@pytest.mark.parametrize("pem", ["", "x", IDENTITY.reveal(), OURS.reveal().replace("M", "N", 1)], ids=range(4))
def test_a_bad_private_key_is_a_configuration_error(ports_of: Callable[..., Ports], pem: str) -> None:
    """Junk, an age identity, a damaged file: refused before the dump, and never quoted."""
    with pytest.raises(ConfigError, match="not an Ed25519 key") as caught:
        back_up(ports_of(MemoryStore(), signing(Secret(pem))), [Source("shop", DictEngine(GOOD), 60.0)])
    assert len(pem) < 3 or pem not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_runbooks_say_what_the_signature_is_worth() -> None:
    """Signed and checked, signed and not checked, not signed: the head of the script tells which."""
    backup = store_backup(MemoryStore(), Codec(1), {"fingerprint.json": [b"{}"]})
    signed = signing().signed(backup)
    head = {
        (name, checked): runbook(value, FolderLocation("/b"), DictFormat(), signature_checked=checked)[:2500]
        for name, value in (("plain", backup), ("signed", signed))
        for checked in (False, True)
    }
    assert "# Not signed" in head["plain", False]
    assert f"# Signed by {OUR_KEY}" in head["signed", True]
    assert "was checked when this script was printed" in head["signed", True]
    assert "was NOT checked" in head["signed", False]


def test_openssl_agrees(tmp_path: Path) -> None:
    """The key is one that stock openssl reads, and its own verification accepts the signature."""
    signed = signing().signed(describe())
    assert signed.signature is not None
    (tmp_path / "key.pem").write_text(OURS.reveal())
    (tmp_path / "value").write_bytes(base64.b64decode(signed.signature.value))
    document = manifest.to_document(dataclasses.replace(signed, signature=None))
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    (tmp_path / "manifest").write_bytes(text)
    script = """
        openssl pkey -in key.pem -pubout -out public.pem
        printf 'drd manifest signature 1\\nsha256:%s\\n' "$(sha256sum < manifest | cut -d ' ' -f 1)" > message
        openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in message -sigfile value
    """
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in done.stdout, done.stderr


def test_public_keys_have_one_spelling() -> None:
    """A key with other bytes, length, prefix or spelling of its base64 is none."""
    assert is_public_key(OUR_KEY)
    raw = OUR_KEY.removeprefix("ed25519:")
    for text in ("", raw, "ed25519:", f"{OUR_KEY} ", OUR_KEY[:-1], f"ed25519:{raw[:-2]}//=", "ed25519:" + "A" * 44):
        assert not is_public_key(text), text
