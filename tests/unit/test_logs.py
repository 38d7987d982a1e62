"""The log: one line an event, every name documented, secrets masked wherever they turn up, libraries heard."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from drd import logs
from drd.logs import EVENTS, Masker

ROOT = Path(__file__).parents[2]
SECRET = "pa ss/w0rd+%"


class Terminal(io.StringIO):
    """A stream that a person watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave logging as it was."""
    before = logging.getLogger().handlers[:]
    monkeypatch.setattr(logs, "masker", Masker())
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.getLogger().handlers[:] = before


def log_to(stream: io.StringIO, style: logs.Format | None = "json") -> structlog.typing.FilteringBoundLogger:
    """Log to a stream and return the log."""
    logs.configure(style, stream)
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger("drd.test")
    return log


def test_an_event_is_one_line_of_json() -> None:
    """Time, level and name come first, then what is bound to the thread and the facts; any text stays in its line."""
    out = io.StringIO()
    log = log_to(out)
    logs.bind(job="backup/hourly/shop")
    log.info("backup.finished", source="shop", rows=3, message="two\nlines\u2028", notices=["a"])
    log.debug("backup.finished")
    found = json.loads(out.getvalue())
    assert list(found)[:3] == ["timestamp", "level", "event"]
    assert found["timestamp"].endswith("Z")
    rest = {name: value for name, value in found.items() if name != "timestamp"}
    assert rest == {
        "level": "info", "event": "backup.finished", "job": "backup/hourly/shop", "source": "shop", "rows": 3,
        "message": "two\nlines\u2028", "notices": ["a"],
    }  # fmt: skip
    assert out.getvalue().count("\n") == 1


def test_a_person_at_a_terminal_gets_words() -> None:
    """Without a format it depends on who watches; what has a space in it is quoted."""
    out, watched = io.StringIO(), Terminal()
    log_to(out, None).info("store.answers")
    assert json.loads(out.getvalue())["event"] == "store.answers"
    log_to(watched, None).warning("store.away", reason="no answer", seconds=3)
    assert re.search(r'Z warning store\.away  reason="no answer"  seconds=3\n$', watched.getvalue())


def test_secrets_are_masked_wherever_they_turn_up() -> None:
    """In names, lists, errors and their tracebacks, in a URL's or basic authentication's spelling, line by line."""
    masker = Masker()
    pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----"
    masker.know([SECRET, pem, "tiny"])
    shapes = [SECRET, f"x{SECRET}y", quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode(),
              "MC4CAQAwBQYDK2VwBCIEIJ"]  # fmt: skip
    for shape in shapes:
        event = {"event": "store.away", "reason": shape, "more": {"deep": [(shape, {shape: 1})]}, "n": 3, "none": None}
        found = masker(None, "info", event)
        assert shape not in str(found)
        assert logs.MASK in found["reason"]
        assert (found["n"], found["none"]) == (3, None)
    assert masker.text("tiny words and -----BEGIN PRIVATE KEY-----") == "tiny words and -----BEGIN PRIVATE KEY-----"
    assert masker.text(f"{SECRET}{SECRET}") == logs.MASK * 2
    deep: dict[str, object] = {"secret": SECRET}
    for _ in range(20):
        deep = {"in": deep}
    assert SECRET not in str(masker(None, "info", {"event": "e", "deep": deep}))
    assert SECRET not in str(masker(None, "info", {"event": "e", "error": ValueError(SECRET)}))


def test_what_a_library_says_is_heard_and_masked() -> None:
    """A warning with its traceback is an event; a library that formats wrongly ends nothing."""
    out = io.StringIO()
    log_to(out)
    logs.masker.know([SECRET])
    try:
        int(SECRET)
    except ValueError:
        logging.getLogger("some.library").exception("failed with %s", SECRET)
    (handler,) = (one for one in logging.getLogger().handlers if isinstance(one, logs._Library))
    handler.emit(logging.LogRecord("some.library", logging.WARNING, "", 1, "%d of %d", ("wrong",), None))
    logging.getLogger("some.library").info("not of interest")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("library.warning", "error", "some.library")
    assert "ValueError" in first["exception"]
    assert SECRET not in out.getvalue()
    assert second["message"] == "%d of %d"


def test_a_reader_that_went_away_ends_no_work() -> None:
    """A closed pipe behind standard error is no reason to stop backing up."""

    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    log_to(Broken()).error("store.away", reason="x")


def test_every_event_is_documented_and_happens() -> None:
    """The names in the code, in the list and in the document are the same."""
    said: set[str] = set()
    for path in (ROOT / "drd").rglob("*.py"):
        said |= set(
            re.findall(
                r'\b(?:say|_?log|session\.log)\.?(?:info|warning|error)?\(\s*"([a-z_]+\.[a-z_]+)"',
                path.read_text("utf-8"),
            )
        )
    said |= {"scheduler.paused", "scheduler.resumed"}  # said by one line
    assert said - EVENTS.keys() == set()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", (ROOT / "docs" / "logs.md").read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == EVENTS
