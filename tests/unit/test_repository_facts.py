"""Manifests whose artifacts have facts of their engine's: version 3, signed or not; all others are what they were."""

from __future__ import annotations

import dataclasses
import json
import random
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from drd.errors import IntegrityError
from drd.model import MANIFEST_SCHEMA_VERSION, Artifact, Backup, DumpResult, Json, Part
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.ports import Chaining, Source
from drd.ops.verify import verify
from drd.protocols import ArtifactSink, WorkContext
from drd.repository import facts as facts_module
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.index import dump
from drd.repository.manifest import _digest_of, from_json, head_from_json, head_of, to_document, to_json
from drd.repository.signing import Signing, Trust, generate_signing_key
from drd.stores.memory import MemoryStore
from tests.support.backups import AT, ID, describe
from tests.support.engine import DictEngine
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports

KEY = layout.manifest_key("src", ID)
OURS, OUR_KEY = generate_signing_key()
RANGE_BYTES = 400_000
TRUST = Trust((OUR_KEY,))
SIGNING = Signing(lambda: OURS, TRUST)
FACTS: dict[str, Json] = {"pages": 8, "ranges": [[0, 1], [1, None]], "ü": "\n", "artifacts": [{"parts": []}]}


def sample(facts: dict[str, Json] | None = None, backup_id: str = ID) -> Backup:
    part = Part(layout.part_key("src", backup_id, "t", 0, encrypted=False), 100, 60, "0" * 64, "ab" * 32)
    return describe((Artifact("t", (part,), facts=FACTS if facts is None else facts),), backup_id=backup_id)


def published(backup: Backup, signing: Signing | None = None) -> tuple[Backup, bytes]:
    store = MemoryStore()
    backup = Catalog(store, signing).publish(backup)
    return backup, store.get(layout.manifest_key(backup.source, backup.id))


def forged(backup: Backup, **changes: Any) -> bytes:
    """Change fields of a manifest (those of its first artifact by ``artifact``), with a good digest."""
    document: dict[str, Any] = json.loads(json.dumps(to_document(backup)))
    document["artifacts"][0] |= changes.pop("artifact", {})
    document = {name: value for name, value in (document | changes).items() if value is not ...}
    return json.dumps({"digest": _digest_of(document), **document}).encode()


@pytest.mark.parametrize(
    ("facts", "signing", "version"),
    [({}, None, 1), ({}, SIGNING, 2), (FACTS, None, 3), (FACTS, SIGNING, 3)],
    ids=["plain", "signed", "facts", "facts, signed"],
)
def test_the_version_is_the_lowest_that_can_say_it(
    facts: dict[str, Json], signing: Signing | None, version: int
) -> None:
    """Facts make a manifest version 3, a signature alone version 2; what is written is read, whole and by its head."""
    backup, data = published(sample(facts), signing)
    assert (backup.schema_version, backup.signature is not None) == (version, signing is not None)
    assert json.loads(data)["schema_version"] == version
    assert (b'"facts": {"pages"' in data) == (version == 3)
    assert from_json(data, key=KEY) == backup
    assert to_json(from_json(data, key=KEY)) == data
    assert head_from_json(data, key=KEY) == head_of(backup)
    assert head_from_json(data[: data.index(b'"artifacts": [\n') + 15], key=KEY) == head_of(backup)


def test_without_facts_not_a_byte_is_another() -> None:
    """What an artifact without facts looks like is what drds of before wrote and read."""
    _, data = published(sample({}))
    line = data.splitlines()[-3]
    assert line == b' {"name": "t", "raw": false, "parts": ['
    assert data.count(b'"facts":') == 1  # those of the backup as a whole


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": 1}, "unknown field in its artifacts: 'facts'"),
        ({"artifact": {"facts": {}}}, "empty facts"),
        ({"artifact": {"facts": []}}, "bad facts in its artifacts"),
        ({"artifact": {"facts": None}}, "bad facts in its artifacts"),
        ({"artifact": {"facts": "x"}}, "bad facts in its artifacts"),
        ({"artifact": {"facts": {"x": "y" * 1000}}}, "more than 1000 bytes of facts"),
        ({"artifact": {"more": {}}}, "unknown field in its artifacts"),
        ({"schema_version": 2}, "no field signature"),
        ({"signature": None}, "bad signature"),
        ({"signature": {}}, "no field key"),
        ({"schema_version": MANIFEST_SCHEMA_VERSION + 1}, "reads versions up to 3"),
    ],
)
def test_nothing_else_is_read(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str) -> None:
    """Facts in a version that has none, of another type, empty or too large; a signature that is none."""
    monkeypatch.setattr(facts_module, "MAX_FACTS_BYTES", 1000)
    good, _ = published(sample())
    assert from_json(forged(good), key=KEY) == good
    with pytest.raises(IntegrityError, match=says) as caught:
        from_json(forged(good, **changes), key=KEY)
    assert caught.value.hint


def test_versions_1_and_2_have_no_facts() -> None:
    """A signed manifest of version 2 with facts is refused; and none is ever written in a version that has none."""
    signed, _ = published(sample({}), SIGNING)
    with pytest.raises(IntegrityError, match="unknown field"):
        from_json(forged(signed, artifact={"facts": {"x": 1}}), key=KEY)
    for version, signature in ((1, None), (2, signed.signature)):
        to_json(dataclasses.replace(sample({}), schema_version=version, signature=signature))
        with pytest.raises(IntegrityError, match="unknown field in its artifacts: 'facts'"):
            to_json(dataclasses.replace(sample(), schema_version=version, signature=signature))


def test_damage_to_facts_is_found() -> None:
    """The digest covers them."""
    _, data = published(sample())
    assert data.count(b'"pages": 8') == 1
    with pytest.raises(IntegrityError, match="altered since"):
        from_json(data.replace(b'"pages": 8', b'"pages": 9'), key=KEY)


def test_facts_are_signed_and_a_stripped_signature_does_not_count() -> None:
    """Other facts, none, or a manifest without the signature: none of them counts where keys are trusted."""
    good, data = published(sample(), SIGNING)
    bare = dataclasses.replace(good, signature=None)
    for changed, says in (
        (good, ""),
        (bare, "is not signed"),
        (dataclasses.replace(good, artifacts=sample({"pages": 9}).artifacts), "not of this manifest"),
        (dataclasses.replace(good, artifacts=sample({}).artifacts), "not of this manifest"),
        (dataclasses.replace(good, schema_version=2, artifacts=sample({}).artifacts), "not of this manifest"),
        (dataclasses.replace(bare, schema_version=1, artifacts=sample({}).artifacts), "is not signed"),
    ):
        store = MemoryStore()
        store.put(KEY, to_json(changed))
        entry = Catalog(store, Signing(None, TRUST)).entry(ID)
        assert says in (entry.problem or "")
        assert (entry.backup is None) == bool(says)
        (head,) = Catalog(store, Signing(None, TRUST)).survey("src").entries
        assert (head.backup is None) == bool(says)
        assert SIGNING.vouched(head_of(changed)) == (changed.signature is not None)
    assert from_json(data, key=KEY) == good


@pytest.mark.parametrize("signing", [None, SIGNING], ids=["plain", "signed"])
def test_the_index_names_them(signing: Signing | None) -> None:
    """Heads of all three versions stand in the index of a source and are listed from it, without their facts."""
    store = HookedStore()
    catalog = Catalog(store, signing)
    ids = [f"202611{day:02d}T181455Z-aaaaaa" for day in range(1, 11)]
    made = []
    for number, backup_id in enumerate(ids):
        backup = sample({} if number % 2 else FACTS, backup_id)
        store.put(backup.artifacts[0].parts[0].key, b"part")
        made.append(catalog.publish(backup))
    catalog.renew_index("src")
    store.calls.clear()
    entries = Catalog(store, signing).survey("src").entries
    assert [entry.backup for entry in entries] == [head_of(backup) for backup in made]
    assert not [key for method, key in store.calls if method == "get" and key.endswith("manifest.json")]
    assert b"pages" not in dump("src", map(head_of, made), signing or Signing())
    if signing:  # a head whose signature was taken out is not believed, whoever wrote the index
        bare = [dataclasses.replace(head_of(backup), signature=None) for backup in made]
        MemoryStore.delete(store, [layout.heads_key("src")])
        MemoryStore.put(store, layout.heads_key("src"), dump("src", bare, signing))
        store.calls.clear()
        assert all(entry.backup for entry in Catalog(store, signing).survey("src").entries)
        assert len([key for method, key in store.calls if method == "get" and key.endswith("manifest.json")]) == 10


class RangesEngine(DictEngine):
    """Ends a part behind each range of its table, and names the ranges that its parent has without writing them.

    What it notes is how many parts there are behind each range, and what was in it (here: its CRC).
    """

    referred = 0

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        before = ctx.ancestors[-1].backup.artifact("db-0/0.dat") if ctx.ancestors else None
        known: Any = before.facts["ranges"] if before else []
        noted: list[Json] = []
        writer = sink.open("db-0/0.dat", cut="rows")
        for number, begin in enumerate(range(0, len(self.tables["t"]), RANGE_BYTES)):
            data = self.tables["t"][begin : begin + RANGE_BYTES]
            same = before and number < len(known) and known[number][1] == zlib.crc32(data)
            start = known[number - 1][0] if same and number else 0
            parts = before.parts[start : known[number][0]] if before and same else ()
            if parts and all(sink.holds(part.plain_sha256, part.plain_bytes) for part in parts):
                for part in parts:
                    writer.refer(part.plain_sha256, part.plain_bytes)
                self.referred += 1
            else:
                writer.write(data)
            noted.append([writer.end_part(), zlib.crc32(data)])
        writer.note({"ranges": noted})
        writer.close()
        names = sink.open("names.json")
        names.write(b'["t"]')
        names.close()
        return DumpResult(ctx.now(), self._fingerprint(), "15.0")


def test_a_chain_of_backups_with_facts_is_backed_up_verified_and_restored(tmp_path: Path) -> None:
    """By the operations themselves: facts reach the next backup, whose parts are referred to, and all comes back."""
    ports = make_ports(MemoryStore(), tmp_path)
    tuning = dataclasses.replace(ports.tuning, part_size_bytes=512 << 10)  # a range is two parts and more
    at = AT
    ports = dataclasses.replace(ports, tuning=tuning, catalog=Catalog(ports.store, SIGNING), now=lambda: at)
    engine = RangesEngine({"t": random.Random(1).randbytes(1_000_000).hex().encode()})
    made: list[Backup] = []
    for change in (b"", b"changed", b"again"):
        at += timedelta(hours=1)
        table = engine.tables["t"]
        engine.tables["t"] = table[:1_000_000] + change + table[1_000_000 + len(change) :]
        (report,) = back_up(ports, [Source("shop", engine, 60.0, chaining=Chaining(86400.0, 9))]).sources
        assert report.backup is not None, report.error
        made.append(report.backup)
    assert [backup.schema_version for backup in made] == [3, 3, 3]
    assert [backup.parent for backup in made] == [None, made[0].id, made[1].id]
    assert engine.referred == 2 * 4  # of five ranges
    assert all(backup.stored_bytes < made[0].stored_bytes / 3 for backup in made[1:])
    assert verify(ports, [], deep=True).outcome == "ok"
    target = DictEngine()
    planned = restoring.plan(ports, at, ["shop"], lambda _s, _b: Source("shop", target, 60.0))
    assert restoring.restore(ports, at, planned).outcome == "ok"
    assert target.tables == engine.tables
