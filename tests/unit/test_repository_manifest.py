"""The manifest: what is written is read, and nothing else is."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.errors import IntegrityError
from drd.model import Artifact, Backup, Part
from drd.repository import layout
from drd.repository.manifest import _digest_of, from_json, to_document, to_json
from tests.support.backups import ID, describe, with_parts

PARENT = "20261121T181455Z-aaaaaa"
KEY = layout.manifest_key("src", ID)


def part(index: int = 0, *, owner: str = ID, encrypted: bool = True) -> Part:
    key = layout.part_key("src", owner, "data/t", index, encrypted=encrypted)
    return Part(key, 100 + index, 60, f"{index:064x}", "ab" * 32)


def sample() -> Backup:
    raw = Artifact("clickhouse/.backup", (Part(f"{layout.direct_prefix('src', ID)}.backup", 5, 5, "", ""),), raw=True)
    artifacts = (Artifact("data/t", (part(0, owner=PARENT), part(1))), Artifact("empty", ()), raw)
    backup = describe(artifacts, recipients=("age1abc",), parent=PARENT, facts={"x": [1, None, 2.5, {"y": "ü\n"}]})
    return dataclasses.replace(backup, window_start=backup.recovery_point - timedelta(hours=1), rows=None)


def forge(change: dict[str, Any] | Any, backup: Backup | None = None) -> bytes:
    """Change the document and sign it anew, as an attacker or a buggy writer would."""
    document: dict[str, Any] = copy.deepcopy(to_document(backup or sample()))
    if callable(change):
        change(document)
    else:
        document.update(change)
    return json.dumps({"digest": _digest_of(document), **document}).encode()


def test_round_trip_and_stability() -> None:
    """The same backup gives the same bytes, which give the same backup; each part has a line."""
    data = to_json(sample())
    assert from_json(data, key=KEY) == sample()
    assert data == to_json(from_json(data, key=KEY))
    assert sum(b'"plain_sha256"' in line for line in data.splitlines()) == 3
    assert json.loads(data).keys() - {"digest"} == to_document(sample()).keys()


@settings(max_examples=40, deadline=None)
@given(
    offset=st.integers(-14 * 60, 14 * 60),
    micro=st.integers(0, 999_999),
    facts=st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists)),
    count=st.integers(0, 5),
)
def test_round_trip_of_anything(offset: int, micro: int, facts: dict[str, Any], count: int) -> None:
    """Any time zone, facts and number of parts come back equal."""
    at = datetime(2026, 3, 29, 1, 30, 0, micro, timezone(timedelta(minutes=offset)))
    artifacts = (Artifact("a", tuple(part(n, encrypted=False) for n in range(count))),)
    backup = dataclasses.replace(describe(artifacts, recovery_point=at), facts=facts)
    try:
        data = to_json(backup)
    except IntegrityError:
        json.dumps(facts, ensure_ascii=False).encode("utf-8", "surrogatepass")  # only lone surrogates may be refused
        return
    read = from_json(data, key=KEY)
    assert read == backup
    assert read.recovery_point.tzinfo == UTC


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_random_damage_never_passes_and_never_crashes(seed: int) -> None:
    """Flipped bits, cuts, repeated and inserted bytes: the same backup, or an integrity error."""
    generator = random.Random(seed)
    data = bytearray(to_json(sample()))
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(data))
        match generator.randrange(4):
            case 0:
                data[at] ^= 1 << generator.randrange(8)
            case 1:
                del data[at:]
                data += b" "
            case 2:
                data[at:at] = data[at : at + generator.randint(1, 50)]
            case _:
                data[at : at + 1] = generator.choice([b'"', b"{", b"]", b"NaN", b"-1", b"1e999", b"null", b"\\ud800"])
    try:
        read = from_json(bytes(data), key=KEY)
    except IntegrityError as raised:
        error = raised
    else:
        assert read == sample()
        return
    assert "\n" not in error.message
    assert error.hint


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        found += _paths(child, (*path, name))
    return found


_PATHS = [path for path in _paths(to_document(sample())) if path[0] != "facts"]
_JUNK: list[Any] = [
    None,
    True,
    -1,
    1 << 70,
    1.5,
    "",
    "../x",
    "x" * 3000,
    "\x1b[2J",
    [],
    {},
    [[]],
    {"a": 1},
    ["\n"],
    float("1e308"),
]


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(_PATHS), junk=st.sampled_from(_JUNK), action=st.sampled_from(["set", "delete", "add"]))
def test_forged_fields_never_crash(path: tuple[Any, ...], junk: Any, action: str) -> None:
    """Any value in any place, signed again, is read as a whole backup that can be written, or refused."""

    def change(document: Any) -> None:
        place = document
        for step in path[:-1]:
            place = place[step]
        if action == "set":
            place[path[-1]] = junk
        elif action == "delete":
            del place[path[-1]]
        elif isinstance(place, dict):
            place["surprise"] = junk

    data = forge(change)
    try:
        read = from_json(data, key=KEY)
    except IntegrityError:
        return
    assert from_json(to_json(read), key=KEY) == read


def test_a_future_version_is_refused_by_name_whatever_else_it_holds() -> None:
    """A newer manifest is not guessed at, even without a digest that this version understands."""
    with pytest.raises(IntegrityError, match="schema version 7") as caught:
        from_json(b'{"schema_version": 7, "digest": "blake3:1", "all": "new"}', key=KEY)
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "20261122T181455Z-zzzzzz"}, "belongs elsewhere"),
        ({"source": "other"}, "belongs elsewhere"),
        ({"source": "../x"}, "no usable id"),
        ({"parent": "20261199T181455Z-aaaaaa"}, "parent"),
        ({"parent": "20261123T181455Z-aaaaaa"}, "parent"),
        ({"parent": ID}, "parent"),
        ({"parent": None}, "incremental without a parent"),
        ({"encryption": "none"}, "recipients"),
        ({"recipients": []}, "to nobody"),
        ({"compression": "gzip"}, "compression"),
        ({"plain_bytes": -1}, "plain_bytes"),
        ({"rows": True}, "rows"),
        ({"started_at": "2026-11-22T18:14:55Z"}, "started_at"),
        ({"started_at": "2026-02-30T18:14:55.000000Z"}, "started_at"),
        ({"extra": 1}, "unknown field"),
        ({"schema_version": True}, "no schema version"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], says: str) -> None:
    """Each field that cannot be is refused, and the message says which."""
    with pytest.raises(IntegrityError, match=says):
        from_json(forge(change), key=KEY)


@pytest.mark.parametrize(
    "key",
    [
        "backups/other/20261122T181455Z-k3f9qa/data/t/000000.zst.age",
        "backups/src/../other/000000.zst.age",
        "backups/src/20261122T181455Z-k3f9qa/../x.zst.age",
        "/etc/passwd",
        "backups/src/20261122T181455Z-k3f9qa/manifest.json",
        "backups/src/20261123T181455Z-aaaaaa/data/t/000000.zst.age",
        "backups/src/not-an-id/data/t/000000.zst.age",
        "backups/src/20261122T181455Z-k3f9qa/data/t/000000.zst",
        "leases/source-src/0000000001.json",
        "drd.json",
    ],
)
def test_parts_cannot_lie_elsewhere(key: str) -> None:
    """A part outside the source's own folder, of a later backup, or in the clear, is refused."""

    def change(document: Any) -> None:
        document["artifacts"][0]["parts"][0]["key"] = key

    with pytest.raises(IntegrityError, match="refers to"):
        from_json(forge(change), key=KEY)


def test_other_json_is_refused() -> None:
    """Not JSON, not an object, a key twice, absurd nesting and absurd numbers are integrity errors."""
    data = to_json(sample())
    for bad in (data.replace(b"2.5", b"1e999"), b'{"a": NaN}', b'{"a": "\\ud800"}'):
        with pytest.raises(IntegrityError, match="not valid JSON"):
            from_json(bad, key=KEY)
    for bad in (b"", b"[]", b"\xff", b"{", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"):
        with pytest.raises(IntegrityError):
            from_json(bad, key=KEY)
    with pytest.raises(IntegrityError):
        from_json(data.replace(b'"rows": null', b'"rows": null, "rows": null'), key=KEY)


def test_what_could_not_be_read_is_not_written() -> None:
    """A backup that the reader would refuse cannot become a manifest."""
    good = sample()
    for bad in (
        dataclasses.replace(good, facts={"x": float("nan")}),
        dataclasses.replace(good, facts={"x": object()}),  # type: ignore[dict-item]
        dataclasses.replace(good, engine_version="15\n8"),
        dataclasses.replace(good, started_at=datetime(2026, 1, 1)),  # noqa: DTZ001
        with_parts(good, plain_sha256="short"),
    ):
        with pytest.raises(IntegrityError):
            to_json(bad)


def test_no_depth_of_nesting_gets_past_the_refusals() -> None:
    """Forged facts of any depth, with a good digest, are read or refused: never a failure of another kind."""
    mark = '"deep": 0'
    text = json.dumps(to_document(dataclasses.replace(sample(), facts={"deep": 0})), sort_keys=True)
    compact = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    refused = 0
    depths = [1, 10, *range(700, 1100), 200_000]  # about Python's limit, where writing it ends before reading does
    for depth in depths:
        nested = "[" * depth + "]" * depth
        digest = hashlib.sha256(compact.replace('"deep":0', f'"deep":{nested}').encode()).hexdigest()
        forged = text.replace(mark, f'"deep": {nested}').replace("{", f'{{"digest": "sha256:{digest}", ', 1)
        try:
            found = from_json(forged.encode(), key=KEY)
        except IntegrityError:
            refused += 1
        else:
            assert found.facts != {}
    assert 0 < refused < len(depths)
