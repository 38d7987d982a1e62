"""What is known of all jobs: in memory, and in the store as soon as it takes it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from drd.daemon import planning
from drd.daemon.history import History, NewerRecord
from drd.daemon.planning import Record
from drd.daemon.world import World
from drd.errors import Cancelled, DrdError, StoreForbidden
from drd.repository.fields import Malformed

_log = structlog.get_logger("drd.daemon")


class Notebook:
    """Thread-safe. What could not be written stays here and is tried again by :meth:`flush`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._records: dict[str, Record] = {}
        self._unwritten: dict[str, str] = {}
        self._kept: set[str] = set()
        self._foreign: dict[str, str] = {}

    @property
    def problem(self) -> str:
        """Why the history is not in the store as it is here, or empty."""
        with self._lock:
            problems = self._foreign | self._unwritten
        if not problems:
            return ""
        name = min(problems)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"the history of {name}{more}: {problems[name]}"

    def of(self, job: str) -> Record:
        """Return what is known of a job."""
        with self._lock:
            return self._records.get(job, Record())

    def put(self, job: str, record: Record) -> None:
        """Remember it."""
        with self._lock:
            self._records[job] = record

    def read(self, world: World) -> dict[str, Record]:
        """Read the history of every job; raises store errors when there is no answer, and then changes nothing.

        What is damaged begins anew. Where this role may not read, nothing is known, and that is said.
        """
        history = History(world.ports.store)
        records: dict[str, Record] = {}
        foreign: dict[str, str] = {}
        for plan in world.plans:
            name = plan.job.name
            try:
                records[name] = history.of(name)
            except NewerRecord as error:
                foreign[name] = f"{error}; it is left as it is"
            except Malformed as error:
                _log.warning("history.damaged", job=name, reason=str(error))
            except StoreForbidden as error:
                foreign[name] = error.message
        with self._lock:
            self._foreign = foreign
        return records

    def take(self, records: Mapping[str, Record]) -> None:
        """Believe what was read, together with what is known here alone since it was never written."""
        with self._lock:
            kept = {
                name: planning.together(self._records[name], records.get(name, Record()))
                for name in {*self._unwritten, *self._kept}
                if name in self._records
            }
            self._records = dict(records) | kept

    def keep(self, job: str) -> None:
        """Remember that what is known of a job is to be written, if this daemon ever leads again."""
        with self._lock:
            self._kept.add(job)

    def save(self, world: World, job: str) -> None:
        """Write what is known of a job; what fails is told by ``problem``, and tried again."""
        with self._writing:
            record = self.of(job)
            with self._lock:
                if job in self._foreign and "version" in self._foreign[job]:
                    return
            try:
                History(world.ports.store).save(job, record)
            except (DrdError, Cancelled) as error:
                if job not in self._unwritten:
                    _log.warning("history.unwritten", job=job, reason=error.message)
                with self._lock:
                    self._unwritten[job] = error.message
            else:
                with self._lock:
                    self._unwritten.pop(job, None)

    def flush(self, world: World) -> None:
        """Write what could not be written before."""
        with self._lock:
            waiting = [name for name in {*self._unwritten, *self._kept} if world.plan_of(name) is not None]
            self._unwritten = {name: why for name, why in self._unwritten.items() if name in waiting}
            self._kept = set()
        for name in waiting:
            self.save(world, name)
