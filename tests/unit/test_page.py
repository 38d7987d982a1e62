"""The daemon's page as a pure function: every fact it has to show, in words that a parser finds."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from drd import __version__
from drd.daemon.model import Overview
from drd.daemon.web.page import content_security_policy, render
from drd.drills.look import style_source
from tests.support.overviews import (
    NOW,
    good,
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
