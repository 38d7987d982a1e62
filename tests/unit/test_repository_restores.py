"""Records of restores in place: written, found by a part of the id, and believed only when they are well formed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from drd.errors import CatalogError, IntegrityError
from drd.repository import layout
from drd.repository.restores import RestoreRecord, Restores
from drd.stores.memory import MemoryStore

AT = datetime(2026, 11, 22, 18, 14, 55, tzinfo=UTC)
ONE, TWO = "20261122T181455Z-k3f9qa", "20261123T181455Z-xxxxqa"
BACKUP = "20261122T170000Z-aaaaaa"


def record(restore_id: str = ONE, **more: object) -> RestoreRecord:
    return RestoreRecord(restore_id, "shop", "postgres", BACKUP, "staging", AT, AT, **more)  # type: ignore[arg-type]


def test_what_is_written_is_read() -> None:
    """Every field comes back, phases change, and all are listed oldest first."""
    restores = Restores(MemoryStore())
    later = record().now("replaced", AT, kept=BACKUP)
    restores.put(record(TWO))
    restores.put(record())
    restores.put(later)
    assert restores.all() == ([later, record(TWO)], [])
    assert restores.interrupted("shop") == [record(TWO)]
    assert restores.interrupted("other") == []
    assert restores.get(ONE) == later
    assert (record().interrupted, later.interrupted) == (True, False)


def test_an_id_may_be_shortened() -> None:
    """A beginning or an end that only one restore has is enough."""
    restores = Restores(MemoryStore())
    restores.put(record(ONE))
    restores.put(record(TWO))
    assert restores.get("k3f9qa").id == ONE
    assert restores.get("20261123").id == TWO
    for wrong in ("2026112", "qa", "nosuch"):
        with pytest.raises(CatalogError):
            restores.get(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"id": TWO},
        {"kind": "other"},
        {"schema_version": 2},
        {"phase": "dancing"},
        {"source": "../x"},
        {"backup": "x"},
        {"kept": "x"},
        {"started_at": "now"},
        {"extra": 1},
    ],
    ids=str,
)
def test_nothing_malformed_is_believed(change: dict[str, object]) -> None:
    """A field of another kind, an unknown one, a newer version, an id that is not the key's: refused by name."""
    store = MemoryStore()
    Restores(store).put(record())
    key = layout.restore_key(ONE)
    store.put(key, json.dumps(json.loads(store.get(key)) | change).encode())
    with pytest.raises(IntegrityError, match="restores/"):
        Restores(store).get(ONE)
    records, problems = Restores(store).all()
    assert records == []
    assert len(problems) == 1
    assert key in problems[0]
