"""The daemon's page as a pure function: every fact it has to show, in words that a parser finds."""

from __future__ import annotations

import dataclasses
import re
import shlex
import time
from datetime import timedelta
from functools import cache
from html.parser import HTMLParser

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drd import __version__
from drd.daemon.model import JobRun, Overview, SourceView
from drd.daemon.overview import NOT_YET
from drd.daemon.web.kept import KeptRows
from drd.daemon.web.page import content_security_policy, render
from drd.drills.look import style_source
from drd.model import Notice
from tests.support.overviews import (
    DAY,
    HOUR,
    NOW,
    good,
    make_board,
    make_drill,
    make_failed_drill,
    make_head,
    make_job,
    make_overview,
    make_run,
    make_series,
    make_unverified_drill,
    make_view,
    many,
    trouble,
)

_VOID = {"meta", "br", "use", "path", "rect", "circle"}


class Page(HTMLParser):
    """The page as a reader sees it: text in reading order, and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.pres: list[str] = []
        self.styles: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "pre":
            self.pres.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.styles.append(data)
        else:
            self.pieces.append(data)
        if "pre" in self.open:
            self.pres[-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.pieces))

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for key, value in attrs.items() if key == name]


def shown(overview: Overview, **options: object) -> Page:
    page = Page(render(overview, NOW, **options))  # type: ignore[arg-type]  # passed on
    assert page.open == []
    return page


def test_all_is_well() -> None:
    """The first line says yes; then to when, in how long, and when that was proven; nothing is said to be wrong."""
    text = shown(good()).text
    assert "Could we recover now? Yes. All 3 sources can be restored, and did restore in the last drill." in text
    assert "To 2026-11-22 01:30:12 UTC 16 h 58 min ago" in text
    assert "In about 1 min 51 s" in text
    assert "Proven 14 h 28 min ago" in text
    assert text.index("Could we") < text.index("Sources") < text.index("The last 30 days") < text.index("Jobs")
    assert "What is wrong" not in text
    assert f"by drd {__version__}" in text


def test_nothing_but_the_page_is_loaded_and_nothing_runs() -> None:
    """No script, no external address, no style attribute; the policy allows exactly the one style sheet by its hash."""
    for overview in (good(), trouble()):
        page = shown(overview)
        assert {"script", "link", "img", "iframe", "form", "object"}.isdisjoint(tag for tag, _ in page.tags)
        assert not [name for _, attrs in page.tags for name in attrs if name == "style" or name.startswith("on")]
        assert all(re.match(r"#|drills/", href) for href in page.attributes("href"))
        assert style_source("".join(page.styles)) in content_security_policy()
        assert "url(" not in "".join(page.styles)
        assert "@import" not in "".join(page.styles)
    assert "default-src 'none'" in content_security_policy()


def test_a_bad_day() -> None:
    """The most urgent comes first and alone is set off; each has what to do next; a failed attempt explains an RPO."""
    page = shown(trouble())
    text = page.text
    assert "No, not all of it. 3 of 4 sources can be restored; there is no backup of sessions." in text
    wrong = text[text.index("What is wrong") : text.index("Sources Source")]
    order = [
        "sessions has no backup to restore. drd backup now sessions",
        "market-data: its last drill failed: ticks: 3 of 101 parts differ.",
        "market-data: 1 damaged backup. drd verify market-data",
        (
            "market-data is past its RPO of 12 h since 2026-11-22 13:30:12 UTC (4 h 58 min ago). "
            "The last attempt failed: ClickHouse cannot reach http://10.1.2.3:9444 (gateway): connection refused. "
            "Set sources.market-data.gateway.address"
        ),
        "The newest configuration was not taken, and the one before is in force: /etc/drd/drd.yaml: schedules.hourly",
        "old-orders is in the store but not in the configuration",
    ]
    assert sorted(map(wrong.index, order)) == list(map(wrong.index, order))
    assert [attrs["class"] for tag, attrs in page.tags if (attrs.get("class") or "").startswith("first")] == ["first"]


def test_what_is_said_of_a_source() -> None:
    """Engine, age against the RPO, size, next run, last drill; what runs is shown running, what fails with why."""
    text = shown(trouble()).text
    rows = text[text.index("Sources Source") : text.index("The last 30 days")]
    order = [
        "sessions Redis",
        "market-data ClickHouse",
        "old-orders PostgreSQL, only in the store",
        "trading-postgres",
    ]
    assert sorted(map(rows.index, order)) == list(map(rows.index, order))
    assert "✗ over 12 h by 4 h 58 min" in rows
    assert "16 h 58 min ago 2026-11-22 01:30:12 UTC" in rows
    assert "in 8 min tried again, as it failed ✗ failed 14 h 28 min ago" in rows
    assert "✓ within 1 h 5 min 595 MiB 232 MiB stored" in rows
    assert "running 71 % dump, for 41 s" in rows
    assert "14 min 8 s ago" in rows
    jobs = text[text.rindex("Jobs ") :]
    assert jobs.index("backup/nightly/market-data") < jobs.index("backup/hourly/trading-postgres")
    assert "exit 13, 3 times in a row ClickHouse cannot reach" in jobs
    assert "never ran" in jobs


def test_each_source_has_its_command() -> None:
    """One command brings the newest of all, one each source, quoted; what only the store knows goes into a folder."""
    whole, *each = (shlex.split(command) for command in shown(good()).pres)
    assert whole == ["drd", "restore", "--at", "2026-11-22 18:14:55 UTC"]
    assert ["drd", "restore", "--at", "2026-11-22 01:30:12 UTC", "--source", "market-data"] in each
    assert len(each) == 3
    commands = [shlex.split(command) for command in shown(trouble()).pres]
    assert [command[-1] for command in commands if "--into" in command] == ["./old-orders"]
    assert all("--source" in command for command in commands), "without a backup of each there is no command for all"
    fraction = make_head(at=NOW.replace(microsecond=1) - HOUR)
    assert "17:29:04" in shown(make_overview(make_view("orders", [fraction]))).pres[0], "asking for it must reach it"


def test_drills_link_to_their_reports() -> None:
    """A run links to its report, says what it found against its objectives, and why it did not pass."""
    head = make_head()
    runs = [
        make_failed_drill(head, NOW - HOUR, "orders: 3 rows are missing"),
        make_drill(head, NOW - DAY, phases={"restore": 2000.0}),
        make_unverified_drill(NOW - DAY * 2),
    ]
    page = shown(make_overview(make_view("orders", [head], drills=runs)))
    assert [href for href in page.attributes("href") if href.startswith("drills/")] == [f"drills/{r.id}" for r in runs]
    assert (
        "Yes, with a doubt. The one source can be restored by what is stored, but the last drill of orders failed."
        in page.text
    )
    for words in (
        "✗ failed",
        "orders: 3 rows are missing",
        "! 33 min 20 s over 30 min",
        "? unverified",
        "docker is not",
    ):
        assert words in page.text
    assert [attrs["class"] for tag, attrs in page.tags if tag == "use" and "now" in (attrs.get("class") or "")] == [
        "failed now"
    ]


def test_a_source_may_be_new_alone_or_forgotten() -> None:
    """No backup, no drill, no schedule, no RPO, nothing configured: each is said in plain words, with what to type."""
    nothing = shown(make_overview()).text
    assert "Nothing to recover. No source is configured, and the store holds no backup." in nothing
    assert "Nothing is scheduled." in nothing
    new = shown(make_overview(make_view("orders", engine="redis")))
    assert "No. There is no backup of orders to restore." in new.text
    assert "orders has no backup to restore. drd backup now orders" in new.text
    assert new.pres == []
    plain = shown(make_overview(make_view("orders", [make_head()], gap=None, rpo_s=None), board=make_board())).text
    assert "Yes, but unproven. The one source can be restored by what is stored. No drill has shown it yet." in plain
    assert "No drill has proven that orders can be restored. drd drill now" in plain
    for words in ("not set", "not scheduled", "! never", "Proven never", "In not known"):
        assert words in plain
    forgotten = shown(make_overview(make_view("orders", [make_head()], configured=False))).text
    assert "Not by this configuration. No source is configured. The store holds backups of 1 source." in forgotten
    half = make_overview(
        make_view("a", [make_head("a")], drills=[make_drill(make_head("a"), NOW - HOUR)]),
        make_view("b", [make_head("b")]),
    )
    assert "Yes, partly unproven." in shown(half).text
    assert "Proven 1 of 2 last drills passed, the latest" in shown(half).text


def test_a_store_that_does_not_answer() -> None:
    """Nothing old is passed off as true: the answer is not known; what it was has its age; the error is first."""
    overview = dataclasses.replace(good(), at=NOW - HOUR, error="cannot connect to http://127.0.0.1:8333")
    text = shown(overview).text
    assert "Not known. The store does not answer. 1 h ago the answer was: “Yes. All 3 sources can be restored" in text
    assert "could not be read since 2026-11-22 17:29:03 UTC (1 h ago): cannot connect to http://127.0.0.1:8333." in text
    assert "as of 2026-11-22 17:29:03 UTC , 1 h ago" in text
    never = shown(Overview(at=NOW, sources=(), known=False, error="no route", board=make_board())).text
    assert "Not known yet. The store has not been read yet." in never
    assert "✗ The store has not been read yet: no route. drd check" in never
    starting = shown(Overview(at=NOW, sources=(), known=False, board=make_board(state="starting"))).text
    assert "Not known yet. drd is starting" in starting
    assert "✗" not in starting
    assert "nothing read from the store yet" in starting
    assert "No drill yet" not in starting, "nobody knows"
    assert "leader" not in starting
    assert "standby" not in starting
    unread = Overview(at=NOW, sources=(), known=False, error=NOT_YET, board=make_board(state="starting"))
    assert "The store has not been read yet. drd check" in shown(unread).text


def test_the_state_of_the_daemon() -> None:
    """Leader or standby, paused, draining; a configuration that was not taken and a history that cannot be kept."""
    board = make_board(
        [make_job("backup/hourly/orders", next_run_at=None)],
        state="draining",
        leader=False,
        paused=True,
        reload_error="schedules: unknown key",
        history_error="the store refuses to overwrite",
        notices=(Notice("one-replica", "this store cannot elect a leader"),),
        configured_at=NOW - DAY,
    )
    text = shown(make_overview(make_view("orders", [make_head()], jobs=board.jobs), board=board)).text
    for words in (
        "drd is shutting down and starts nothing new as a standby: another replica plans the jobs, paused",
        "and the one before is in force: schedules: unknown key. drd config validate",
        "history of jobs could not be kept in the store: the store refuses to overwrite",
        "The scheduler is paused: nothing is started before it is resumed",
        "This store cannot elect a leader.",
        "Jobs ! paused",
        "Configuration read 2026-11-21 18:29:03 UTC",
    ):
        assert words in text
    assert "runs as the leader" in shown(good()).text
    assert "shows what the store holds" in shown(dataclasses.replace(good(), board=None)).text


def test_what_is_stored_may_be_bad() -> None:
    """Damaged, untrusted, shrunken, from a clock ahead: each is named with what tells more; no repository first."""
    head = make_head(warnings=("fewer-rows",))
    view = make_view("orders", [head], damaged=2, untrusted=1, from_future=3)
    text = shown(
        make_overview(view, notices=(Notice("no-repository", "no drd repository in this store; mounted?"),))
    ).text
    order = [
        "no drd repository in this store; mounted? ",
        "orders: 2 damaged backups. drd verify orders",
        "orders: 1 backup not signed, or not encrypted, as configured, and not counted. drd verify orders",
        "orders: its newest backup holds oddly fewer rows or keys than the one before. drd list orders",
        "orders: 3 backups dated in the future: a clock was wrong",
    ]
    assert sorted(map(text.index, order)) == list(map(text.index, order))
    ahead = make_head(at=NOW + HOUR, id="20261122T192903Z-aaaaaa")
    assert "in 1 h" in shown(make_overview(make_view("orders", [head, ahead], newest=ahead))).text


def test_a_schedule_missed_without_an_rpo_is_named() -> None:
    """Where no RPO says it, the planned interval does; a job that fails is named with its hint once, not twice."""
    late = make_head(at=NOW - HOUR * 5)
    text = shown(make_overview(make_view("orders", [late], rpo_s=None))).text
    assert "orders has had no backup for 5 h, though one is planned every 1 h. drd check orders" in text
    failed = make_run("backup/hourly/orders", NOW - HOUR, outcome="failed", message="no route", hint="plug it in")
    job = make_job("backup/hourly/orders", failures=1, retry=True, runs=(failed,))
    fresh = shown(make_overview(make_view("orders", [make_head()], jobs=[job]))).text
    assert "! backup/hourly/orders failed: no route. Plug it in." in fresh
    past = shown(make_overview(make_view("orders", [late], jobs=[job]))).text
    assert "(3 h 55 min ago). The last attempt failed: no route. Plug it in." in past
    assert "backup/hourly/orders failed" not in past
    ended = dataclasses.replace(job, runs=(dataclasses.replace(failed, message="Connection refused.", hint=""),))
    said = shown(make_overview(make_view("orders", [make_head()], jobs=[ended]))).text
    assert "Connection refused. " in said
    assert ".." not in said


def test_many_sources_are_folded_and_trouble_comes_first() -> None:
    """Of many sources, those in trouble are shown and the others folded away; the same trouble of many is one line."""
    page = shown(many(40, 20))
    assert page.text.index("tenant-017-ledger") < page.text.index("tenant-000-orders")
    assert "39 more sources, where nothing is wrong" in page.text
    assert len(page.pres) == 41, "each has its command"
    outage = [make_view(f"s{n}", [make_head(f"s{n}", NOW - HOUR * 9)]) for n in range(30)]
    text = shown(make_overview(*outage)).text
    assert "✗ 30 sources are past their RPO. Each of the 30" in text
    assert "s29 is past its RPO of 1 h 5 min" in text


def test_rows_that_are_kept_change_nothing_but_the_seconds() -> None:
    """The same page comes of them; what changed of a source is seen at once, its age within a minute and a half."""
    kept, base = KeptRows(), trouble()
    later = NOW + timedelta(seconds=60)
    assert render(base, NOW, kept=kept) == render(base, NOW) == render(base, NOW, kept=kept)
    assert "14 min 8 s ago" in render(base, later, kept=kept)
    assert "running 71 %" in render(base, later, kept=kept)
    assert "for 1 min 41 s" in render(base, later, kept=kept), "of what runs, seconds are told"
    assert "14 min 8 s ago" not in render(base, NOW + timedelta(seconds=95), kept=kept)
    kept = KeptRows()
    for changed in (
        dataclasses.replace(base, board=dataclasses.replace(base.board, paused=True)),  # type: ignore[type-var]
        dataclasses.replace(base, board=dataclasses.replace(base.board, leader=False)),  # type: ignore[type-var]
        dataclasses.replace(base, sources=base.sources[1:]),
        dataclasses.replace(base, sources=good().sources),
        dataclasses.replace(base, sources=tuple(_drilled(view) for view in base.sources)),
    ):
        assert render(changed, NOW, kept=kept) == render(changed, NOW)
        assert render(base, NOW, kept=kept) == render(base, NOW)


def _drilled(view: SourceView) -> SourceView:
    """Give a source a drill that failed just now."""
    run = make_failed_drill(view.backups[-1] if view.backups else None, NOW)
    return dataclasses.replace(view, drills=(run,), status=dataclasses.replace(view.status, last_drill=run))


def test_the_page_of_many_costs_little_where_rows_are_kept() -> None:
    """200 sources with 10,000 backups: a third of a page that is made from nothing."""
    overview = many(200, 50)
    kept = KeptRows()

    def spent(kept: KeptRows | None) -> float:
        started = time.thread_time()
        render(overview, NOW, kept=kept)
        return time.thread_time() - started

    spent(kept)
    assert min(spent(kept) for _ in range(4)) < 0.5 * min(spent(None) for _ in range(4))


def test_the_page_is_quick_and_bounded() -> None:
    """200 sources with 10,000 backups take well under 300 ms of processor time; more backups add next to nothing."""
    overview = many(200, 50)
    assert sum(len(view.backups) for view in overview.sources) == 10_000
    overview = dataclasses.replace(overview, sources=tuple(_with_history(view) for view in overview.sources))
    html = render(overview, NOW)
    assert len(html) < 1_000_000

    def spent() -> float:
        started = time.process_time()
        render(overview, NOW)
        return time.process_time() - started

    assert any(spent() < 0.3 for _ in range(8)), "busy neighbours make it slower, nothing makes it faster"
    few, lots = (
        len(render(make_overview(make_view("s", make_series("s", every=HOUR / n, full_every=7))), NOW)) for n in (1, 20)
    )
    assert abs(lots - few) < 2000


def _with_history(view: SourceView) -> SourceView:
    """Give a source three jobs with all the runs that are remembered."""
    names = [f"{kind}/nightly/{view.name}" for kind in ("backup", "verify", "prune")]
    return dataclasses.replace(view, jobs=tuple(make_job(name, DAY, runs=_remembered()) for name in names))


@cache
def _remembered() -> tuple[JobRun, ...]:
    return tuple(make_run("backup/nightly/s", NOW - HOUR * n) for n in range(1, 201))


hostile = st.text(min_size=1, max_size=60).filter(str.strip) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'--></style></title><svg/onload=alert(1)>",
        "{{ 7 * 7 }}{% raw %}",
        "javascript:alert(1)",
        "\u202egnp.exe\x00\x1b[31m\ud800",
        "a" * 60,
    ]
)


def _filled(text: str) -> Overview:
    """Put a text wherever one from outside can stand."""
    head = make_head(text, engine_version=text, id=text)
    failed = make_run(f"backup/hourly/{text}", NOW - HOUR, outcome="failed", message=text, hint=text, backup=text)
    job = make_job(
        f"backup/hourly/{text}", failures=3, runs=(failed,), running_since=NOW - HOUR, phase=text, progress=0.5
    )
    drills = [make_failed_drill(head, NOW - HOUR, text), make_unverified_drill(NOW - HOUR * 2, text)]
    drills = [dataclasses.replace(run, drill=text, source=text, id=text, backup=text) for run in drills]
    notice = Notice("no-repository", text)
    return make_overview(
        make_view(text, [head], drills=drills, jobs=[job], engine=text),
        make_view(f"{text}2", [make_head(f"{text}2")], configured=False),
        board=make_board([job], reload_error=text, history_error=text, notices=(Notice("x", text),)),
        error=text,
        notices=(notice, Notice("y", text)),
    )


@cache
def _plain() -> Page:
    return Page(render(_filled("word"), NOW, version="word"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile)
def test_no_text_becomes_markup(text: str) -> None:
    """Whatever names and messages hold, the page has the elements and attributes it has with a harmless word."""
    html = render(_filled(text), NOW, version=text)
    html.encode()
    page, plain = Page(html), _plain()
    assert [(tag, sorted(attrs)) for tag, attrs in page.tags] == [(tag, sorted(attrs)) for tag, attrs in plain.tags]
    assert page.styles == plain.styles
    assert all(href.startswith(("#", "drills/")) for href in page.attributes("href"))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
