"""The drill runs that a bucket remembers: one report each, written once, with a detached signature beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeAlias

from drd.drills import report
from drd.drills.report import DrillRun
from drd.errors import IntegrityError, NoSuchBackup, ObjectMissing
from drd.protocols import Store
from drd.repository import layout
from drd.repository.abbreviation import meant_by
from drd.repository.signing import Signing

_READERS = 8
_MAX_BYTES = 4 << 20
_SIGNATURE_ENDING = ".sig"

Place: TypeAlias = tuple[str, str]
"""Where a run is: its drill and its id."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A report as it lies in the store: what it says, or the ``problem`` with it. Exactly one of both is set.

    ``signer`` is the known key that signed it, None when nobody known did; ``signed`` whether there is a signature;
    ``believed`` whether it is proof: signed by a trusted key, where there are any.
    """

    drill: str
    id: str
    run: DrillRun | None
    problem: str | None
    signer: str | None = None
    signed: bool = False
    believed: bool = True


class History:
    """Writes and reads the reports of a repository. Remembers none; thread-safe.

    With ``signing`` that signs, each report gets a signature; with keys to trust, only signed ones are proof.
    """

    def __init__(self, store: Store, signing: Signing) -> None:
        self._store = store
        self._signing = signing

    def record(self, run: DrillRun) -> None:
        """Keep a report; raises store errors, and ConfigError when the signing key is no good."""
        data, key = report.dump(run), layout.drill_key(run.drill, run.id)
        signature = self._signing.detached(data)
        if signature is not None:  # first: a report is never there without it
            self._store.put(key + _SIGNATURE_ENDING, signature)
        self._store.put(key, data, if_absent=True)

    def remove(self, drill: str, run_id: str) -> None:
        """Remove a report, then its signature: a report is never there without it. What is gone already is fine."""
        key = layout.drill_key(drill, run_id)
        self._store.delete([key])
        self._store.delete([key + _SIGNATURE_ENDING])

    def locked_until(self, drill: str, run_id: str) -> datetime | None:
        """Return until when the store's object lock holds a report; raises ObjectMissing."""
        return self._store.stat(layout.drill_key(drill, run_id)).locked_until

    def newest_first(self, drill: str | None = None) -> Iterator[RecordedRun]:
        """Yield the runs of one drill or of all, newest first; read as they are asked for, a few ahead."""
        return self.read_all(self.places(drill))

    def places(self, drill: str | None = None, *, day: date | None = None) -> list[Place]:
        """Return drill and id of each run there is, newest first; of one drill, ``day`` (UTC) lists that day's alone.

        Without a ``drill`` those of all are listed.
        """
        prefix = layout.drills_prefix() if drill is None else layout.drill_prefix(drill, day)
        places = (layout.drill_of_key(info.key) for info in self._store.list(prefix))
        return sorted((place for place in places if place is not None), key=lambda p: (p[1], p[0]), reverse=True)

    def read_all(self, places: Sequence[Place]) -> Iterator[RecordedRun]:
        """Yield the runs at ``places``, in that order, as they are asked for, a few ahead; not those that are gone."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="drd-history") as pool:
            for start in range(0, len(places), _READERS):
                found = pool.map(lambda place: self._read(*place), places[start : start + _READERS])
                yield from (item for item in found if item is not None)

    def find(self, run_id: str) -> RecordedRun:
        """Find a run by its id, or by a beginning or end of it that only one has; raises NoSuchBackup."""
        matching = meant_by(run_id, self.places(), lambda place: place[1])
        if len(matching) != 1:
            what = "means several drill runs" if matching else "is no drill run"
            raise NoSuchBackup(f"{run_id!r} {what}", subject=run_id, hint="drd drill list shows the runs there are")
        found = self._read(*matching[0])
        if found is None:
            raise NoSuchBackup(f"{run_id!r} has just been removed", subject=run_id, hint="drd drill list")
        return found

    def proven(self, source: str) -> set[str]:
        """Return the ids of the backups of a source that passed a drill, by reports that are believed."""
        return {
            found.run.backup
            for found in self.newest_first()
            if found.run is not None
            and found.run.source == source
            and found.run.verdict == "passed"
            and found.run.backup is not None
            and self.is_believed(found)
        }

    def last_of(self, sources: Iterable[str]) -> dict[str, DrillRun]:
        """Return the newest run of each source that is believed; reads no older ones than it must."""
        missing = set(sources)
        out: dict[str, DrillRun] = {}
        if not missing:
            return out
        for found in self.newest_first():
            if found.run is not None and found.run.source in missing and self.is_believed(found):
                out[found.run.source] = found.run
                missing.discard(found.run.source)
                if not missing:
                    break
        return out

    def is_believed(self, found: RecordedRun) -> bool:
        """Whether a report is proof: signed by a trusted key, where there are any."""
        return found.believed

    def _read(self, drill: str, run_id: str) -> RecordedRun | None:
        key = layout.drill_key(drill, run_id)
        try:
            data = self._store.get(key, length=_MAX_BYTES + 1)
        except ObjectMissing:
            return None
        if len(data) > _MAX_BYTES:
            return RecordedRun(drill, run_id, None, f"{key} is larger than any report")
        try:
            run = report.parse(data, key)
        except IntegrityError as error:
            return RecordedRun(drill, run_id, None, error.message)
        if (run.drill, run.id) != (drill, run_id):
            return RecordedRun(drill, run_id, None, f"{key} is the report of {run.drill}/{run.id}")
        signature = self._signature(key)
        signer = None if signature is None else self._signing.signer_of(data, signature)
        believed = self._signing.trust is None or signer in self._signing.trust.public_keys
        return RecordedRun(drill, run_id, run, None, signer, signature is not None, believed)

    def _signature(self, key: str) -> bytes | None:
        """Return the signature beside a report; not looked for where nobody could judge it."""
        if self._signing.trust is None and not self._signing.signs:
            return None
        try:
            return self._store.get(key + _SIGNATURE_ENDING, length=1024)
        except ObjectMissing:
            return None
