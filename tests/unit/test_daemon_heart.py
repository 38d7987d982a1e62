"""The heartbeat: a store without conditions is named, lateness is told once and again, an outage is no end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from drd.daemon.heart import Heart
from drd.daemon.lateness import AGAIN, LateAlerts, late_because
from drd.daemon.model import Overview, SourceView
from drd.errors import StoreRefused, StoreUnavailable
from drd.events import Delivery, Event, PeerResult
from drd.model import CheckItem, Notice
from drd.ops.coverage import Coverage
from drd.ops.status import SourceStatus
from drd.repository import layout
from drd.repository.repository import Repository
from drd.stores.checking import check_store
from drd.stores.memory import MemoryStore

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Unconditional(MemoryStore):
    """A store that ignores the condition of a put."""

    def put(self, key: str, data: Any, *, if_absent: bool = False) -> None:
        super().put(key, data)

    def check(self) -> Sequence[CheckItem]:
        return check_store(self)


class Ears:
    """A leader, a desk, a listener and a notifier that note what they are told."""

    def __init__(self) -> None:
        self.notices: list[Any] = []
        self.events: list[list[Event]] = []
        self.works = True
        self.leads_: bool | Exception = True
        self.problem = ""
        self.beats = 0
        self.planning = False
        self.why = ""
        self.folder: Notice | None = None

    def look(self) -> bool:
        self.beats += 1
        if isinstance(self.leads_, Exception):
            raise self.leads_
        return self.leads_

    def notify(self, events: Sequence[Event]) -> Delivery:
        self.events.append(list(events))
        return Delivery(len(events), (PeerResult("a", "ok" if self.works else "failed"),))

    def notice(self, code: str, found: Any) -> None:
        self.notices = [notice for notice in self.notices if notice.code != code] + [found] * (found is not None)

    def board(self) -> Any:
        return SimpleNamespace(started_at=NOW)

    def nothing(self, *_: Any, **__: Any) -> None: ...

    def lead(self) -> None:
        self.planning = True

    def step_down(self, why: str) -> None:
        self.planning = False
        self.why = why

    flush = store_answered = told = nothing


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def beating(ears: Ears) -> Iterator[Any]:
    """Give a maker of hearts that beat on a store; they stop with the test."""
    hearts: list[Heart] = []

    def make(store: MemoryStore) -> Heart:
        ports = SimpleNamespace(store=store, repository=Repository(store), now=lambda: NOW, monotonic=time.monotonic)
        world: Any = SimpleNamespace(
            ports=ports, heartbeat_s=0.02, lease_ttl_s=5, notifier=ears, look_at_folder=lambda: ears.folder
        )
        stands_for: Any = ears
        heart = Heart(world, stands_for, stands_for, listener=stands_for, refresh=lambda: Overview(at=NOW, sources=()))
        hearts.append(heart)
        heart.start()
        return heart

    yield make
    for heart in hearts:
        heart.stop()


def wait(found: Any) -> None:
    ends = time.monotonic() + 10
    while not found():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_a_store_without_conditional_writes_is_for_one_replica(ears: Ears, beating: Any) -> None:
    """It is tried once, by doing, and said on the board; a store that keeps two apart is not mentioned."""
    beating(Unconditional())
    wait(lambda: ears.beats > 4)
    assert [notice.code for notice in ears.notices] == ["one-replica-only"]
    assert "run one daemon only" in ears.notices[0].message
    ears.notices.clear()
    beating(MemoryStore())
    wait(lambda: ears.beats > 12)
    assert ears.notices == []


def test_a_folder_that_cannot_be_used_is_shown_while_that_is_so(ears: Ears, beating: Any) -> None:
    """The notice comes and goes with the fault, also while the store is away."""
    ears.leads_ = StoreUnavailable("no connection")
    ears.folder = Notice("state-dir", "full")
    beating(MemoryStore())
    wait(lambda: ears.notices == [ears.folder])
    ears.folder = Notice("state-dir", "read-only")
    wait(lambda: ears.notices == [ears.folder])
    ears.folder = None
    wait(lambda: ears.notices == [])


def test_an_outage_is_logged_once(ears: Ears, beating: Any) -> None:
    """However long it lasts, and however its reason is worded by the beat; another kind of fault is news."""
    with capture_logs() as logs:
        ears.leads_ = StoreUnavailable("tried 4 times")
        heart = beating(MemoryStore())
        wait(lambda: heart.store_error == "tried 4 times")
        ears.leads_ = StoreUnavailable("tried 5 times")
        wait(lambda: heart.store_error == "tried 5 times")
        ears.leads_ = StoreRefused("no right")
        wait(lambda: heart.store_error == "no right")
    assert [log["reason"] for log in logs if log["event"] == "store.away"] == ["tried 4 times", "no right"]


def test_a_store_that_is_away_is_asked_again(ears: Ears, beating: Any) -> None:
    """The reason is kept while it lasts, and the heart goes on beating."""
    ears.leads_ = StoreUnavailable("no connection")
    heart = beating(MemoryStore())
    wait(lambda: ears.beats > 2)
    assert (heart.store_error, heart.silent_s) == ("no connection", None)
    ears.leads_ = True
    wait(lambda: heart.silent_s is not None)
    assert heart.store_error == ""


def view(
    age_h: float | None, *, rpo_h: float | None = None, gap_h: float | None = 1.0, unknown: str = ""
) -> SourceView:
    newest: Any = None if age_h is None else SimpleNamespace(recovery_point=NOW - age_h * HOUR, id="b")
    status = SourceStatus(
        source="a",
        configured=True,
        backups=1,
        damaged=0,
        newest=newest,
        oldest=None,
        age_s=None if age_h is None else age_h * 3600,
        rpo_s=None if rpo_h is None else rpo_h * 3600,
        unfinished=0,
        coverage=Coverage("a", 0, 0, None, 0, unknown),
    )
    return SourceView(name="a", engine="redis", status=status, longest_gap_s=None if gap_h is None else gap_h * 3600)


@pytest.mark.parametrize(
    ("seen", "since_h", "late"),
    [
        (view(0.9), 9, False),
        (view(1.4), 9, False),  # half as much again
        (view(1.6), 9, True),
        (view(25.0, gap_h=24), 9, False),
        (view(25.1, gap_h=24), 9, True),  # an hour at most
        (view(2.0, rpo_h=3), 9, False),  # the RPO is what counts
        (view(2.0, rpo_h=1.9, gap_h=24), 9, True),
        (view(None), 9, True),
        (view(None), 1, False),  # the daemon has only just begun
        (view(900.0, gap_h=None), 9, False),  # nobody asked for any
        (view(None, gap_h=None, rpo_h=1), 9, True),
    ],
)
def test_who_is_late(seen: SourceView, since_h: float, late: bool) -> None:
    """The table: by RPO, else by the schedule; a source that has none, by how long the daemon runs."""
    assert bool(late_because(seen, NOW, NOW - since_h * HOUR)) == late


def test_what_cannot_be_read_is_not_called_late() -> None:
    """Not to know is no alarm of a missing backup: other alerts tell of the store."""
    assert late_because(view(None, unknown="it could not be read"), NOW, NOW - 9 * HOUR) is None


def test_lateness_is_told_on_change_and_hourly_while_it_lasts(ears: Ears) -> None:
    """Told at first, when it changes, and again for receivers that forget; what nobody heard is told anew."""
    alerts = LateAlerts(lambda _: None)
    notifier: Any = ears

    def look(seen: SourceView, at: datetime) -> list[str]:
        return alerts.look(Overview(at=at, sources=(seen,)), NOW - 9 * HOUR, at, notifier)

    assert look(view(9.0), NOW) == ["a"]
    look(view(9.0), NOW + timedelta(minutes=1))
    look(view(9.0), NOW + AGAIN)
    assert [[event.firing for event in events] for events in ears.events] == [[True], [True]]
    ears.works = False
    assert look(view(0.1), NOW + AGAIN) == []
    ears.works = True
    look(view(0.1), NOW + AGAIN)
    look(view(0.1), NOW + 5 * AGAIN - 4 * HOUR)
    assert [events[0].firing for events in ears.events[2:]] == [False, False]


def test_a_repository_that_vanishes_stops_all_plans_until_it_is_back(ears: Ears, beating: Any) -> None:
    """An unmounted disk leaves an empty folder: nothing is planned into it, and who reads it learns why."""
    store = MemoryStore()
    Repository(store).open_or_create(NOW)
    kept = store.get(layout.REPOSITORY_KEY)
    heart = beating(store)
    wait(lambda: ears.planning)
    store.delete([layout.REPOSITORY_KEY])
    wait(lambda: not ears.planning)
    assert "not there any more" in ears.why
    wait(lambda: "not there any more" in heart.store_error)
    Repository(store).open_or_create(NOW)  # a stranger, or a backup by hand, made another one there
    wait(lambda: "another one now" in heart.store_error)
    assert not ears.planning
    store.put(layout.REPOSITORY_KEY, kept)
    wait(lambda: ears.planning and not heart.store_error)


def test_an_empty_place_may_become_a_repository(ears: Ears, beating: Any) -> None:
    """The first backup of a new daemon makes it."""
    store = MemoryStore()
    heart = beating(store)
    wait(lambda: ears.planning)
    Repository(store).open_or_create(NOW)
    before = ears.beats
    wait(lambda: ears.beats > before + 2)
    assert ears.planning
    assert heart.store_error == ""
