"""The page and a drill's report in a real Chromium: usable by all, at any width, in both colours, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from drd.daemon.model import Overview
from drd.daemon.web.page import content_security_policy, render
from drd.drills.history import RecordedRun
from drd.drills.page import page as drill_page
from tests.support import overviews
from tests.support.browser import chromium, serving, violations

pytestmark = pytest.mark.integration

LONG = "a" * 63
STATES: dict[str, Callable[[], Overview]] = {
    "good": overviews.good,
    "trouble": overviews.trouble,
    "many": lambda: overviews.many(20, 6),
    "new": lambda: overviews.make_overview(overviews.make_view("orders")),
    "long": lambda: overviews.make_overview(
        overviews.make_view(LONG, [overviews.make_head(LONG)]), error=f"cannot reach http://{'x' * 200}/{'y' * 200}"
    ),
}
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


def drill() -> str:
    """Render the report of a run that failed."""
    head = overviews.make_head()
    run = overviews.make_failed_drill(head, overviews.NOW)
    return drill_page(RecordedRun(run.drill, run.id, run, None), home="../")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pages: dict[str, Callable[[], str]] = {
        f"/{name}": lambda make=make: render(make(), overviews.NOW)  # type: ignore[misc]  # bound as it is now
        for name, make in STATES.items()
    }
    with serving({**pages, "/drill": drill}, content_security_policy()) as found:
        yield found


@contextmanager
def opened(
    browser: Browser, url: str, *, size: dict[str, int] = DESK, scheme: str = "light", strict: bool = True
) -> Iterator[Page]:
    """Open a page without scripts; with ``strict=False`` with them, its policy aside, so that it can be examined."""
    context = browser.new_context(
        viewport=size,  # type: ignore[arg-type]  # a width and a height
        color_scheme=scheme,  # type: ignore[arg-type]  # light or dark
        java_script_enabled=not strict,
        bypass_csp=not strict,
    )
    try:
        page = context.new_page()
        page.goto(url)
        yield page
    finally:
        context.close()


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("trouble", DESK, "light"),
        ("trouble", DESK, "dark"),
        ("trouble", PHONE, "light"),
        ("many", PHONE, "dark"),
        ("new", DESK, "dark"),
        ("drill", PHONE, "light"),
        ("drill", DESK, "dark"),
    ],
)
def test_axe_finds_nothing(browser: Browser, address: str, name: str, size: dict[str, int], scheme: str) -> None:
    """Names, roles, order, contrast: axe-core finds nothing wrong, of whatever impact; folded parts opened."""
    with opened(browser, f"{address}/{name}", size=size, scheme=scheme, strict=False) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert violations(page) == []


@pytest.mark.parametrize("name", [*STATES, "drill"])
def test_it_fits_a_phone_and_can_be_read(browser: Browser, address: str, name: str) -> None:
    """From 360 pixels on nothing has to be scrolled sideways, and no letter is below 14 pixels, drawings included."""
    with opened(browser, f"{address}/{name}", size=PHONE, strict=False) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for width in (360, 600, 780, 1024, 1150, 1280):
            page.set_viewport_size({"width": width, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            small = page.evaluate(
                "[...document.querySelectorAll('body *')].filter(e => [...e.childNodes].some(n => n.nodeType == 3 "
                "&& n.textContent.trim()) && parseFloat(getComputedStyle(e).fontSize) < 14).map(e => e.outerHTML)"
            )
            assert small == []


def test_it_works_without_scripts_and_asks_for_nothing(browser: Browser, address: str) -> None:
    """With scripts off and the policy in force it is styled, one request is all it makes, and nothing is refused."""
    with opened(browser, f"{address}/trouble") as page:
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.reload()
        assert asked == [f"{address}/trouble"]
        assert said == []
        assert page.locator("h1").inner_text().split("\n") == ["Could we recover now?", "No, not all of it."]
        assert page.locator(".answer").bounding_box()["height"] > 40  # type: ignore[index]  # it is there


def test_it_is_used_by_keyboard(browser: Browser, address: str) -> None:
    """Tab reaches every fold and link in reading order, each shows that it has the focus, Enter opens a fold."""
    with opened(browser, f"{address}/many") as page:
        reached = []
        for _ in range(8):
            page.keyboard.press("Tab")
            focused = page.locator(":focus-visible")
            top = focused.evaluate("e => e.getBoundingClientRect().top + scrollY")
            reached.append((round(top), focused.evaluate("e => getComputedStyle(e).outlineStyle")))
        assert reached == sorted(reached)
        assert {style for _, style in reached} == {"solid"}
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("details").first.get_attribute("open") is not None


def test_a_command_is_selected_by_one_click(browser: Browser, address: str) -> None:
    """A click selects a whole command, and what is copied is the command alone, on one line, however it is wrapped."""
    for size in (DESK, PHONE):
        with opened(browser, f"{address}/good", size=size, strict=False) as page:
            page.locator("pre").first.click()
            chosen = page.evaluate("getSelection().toString()")
            assert chosen.strip() == "drd restore --at '2026-11-22 18:14:55 UTC'"


def test_paper_shows_what_is_folded(browser: Browser, address: str, tmp_path: Path) -> None:
    """In print, folded parts are laid out as well, within A4, in black on white whatever the system's setting."""
    a4 = {"width": 718, "height": 1000}
    with opened(browser, f"{address}/many", size=a4, scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.get_by_text("tenant-000-orders").first.is_visible()
        assert page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("document.documentElement.scrollWidth") <= a4["width"]
        page.pdf(path=tmp_path / "page.pdf")
        assert (tmp_path / "page.pdf").stat().st_size > 10_000
