"""Judge what a restored database answers against what a suite expects."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from drd.cancel import CancelToken
from drd.drills.suite import Expectation, Objectives, Suite, SuiteCheck
from drd.errors import ConfigError, DrdError, IntegrityError, QuestionError
from drd.model import Answer, Cell, Difference, Finding, Question
from drd.protocols import ScratchServer
from drd.wording import when

MAX_TEXT = 240
MAX_NAMED = 5
_QUOTE = re.compile("[\"'`]")
_WORDS = {
    "equals": "equal to",
    "not_equals": "not equal to",
    "at_least": "at least",
    "at_most": "at most",
    "above": "above",
    "below": "below",
}


def short(value: object, limit: int = MAX_TEXT) -> str:
    """Return a value as one printable line of bounded length."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def without_data(text: str, asked: Sequence[str]) -> str:
    """Return a server's complaint without what it quotes, unless the question has it: the rest may come from a row.

    From the first such quotation to the last mark of its kind, since what is quoted may hold that mark itself.
    """
    known = " ".join(asked)
    out, at = [], 0
    while (opening := _QUOTE.search(text, at)) is not None:
        mark, start = opening[0], opening.start()
        end = text.find(mark, start + 1)
        if end >= 0 and (inner := text[start + 1 : end]) and inner in known:
            out.append(text[at : end + 1])
            at = end + 1
            continue
        last = text.rfind(mark)
        out += [text[at:start], f"{mark}…{mark}"]
        at = (last if last > start else len(text)) + 1
    return "".join([*out, text[at:]])


def fingerprint_finding(name: str, differences: Sequence[Difference], held: str) -> Finding:
    """Say whether what was restored equals the fingerprint; ``held`` is what was compared, in words."""
    if not differences:
        return Finding(name, "passed", f"equal to the fingerprint taken at backup time: {held}")
    named = "; ".join(_difference(d) for d in differences[:MAX_NAMED])
    more = f"; and {len(differences) - MAX_NAMED} more" if len(differences) > MAX_NAMED else ""
    first = differences[0]
    return Finding(
        name,
        "failed",
        short(f"{len(differences)} differ: {named}{more}", 600),
        expected=short(f"{first.name} {first.fact}: {first.expected}"),
        found=short(f"{first.name} {first.fact}: {first.found}"),
    )


def _difference(d: Difference) -> str:
    if d.fact == "exists":
        return f"{d.name} is {'missing' if d.expected else 'there, and was not in the backup'}"
    return f"{d.name}: {d.fact} expected {short(d.expected, 24)}, found {short(d.found, 24)}"


class SuiteChecks:
    """Makes the checks of a suite against one restored database; ``newest`` is the newest data they found, if any."""

    def __init__(
        self,
        suite: Suite,
        objectives: Objectives,
        ask: Callable[[Question], Answer],
        server: ScratchServer,
        *,
        started_at: datetime,
        cancel: CancelToken,
    ) -> None:
        self._suite = suite
        self._objectives = objectives
        self._ask = ask
        self._server = server
        self._started_at = started_at
        self._cancel = cancel
        self.newest: datetime | None = None

    def make(self, check: SuiteCheck) -> Finding:
        """Make one check; a question that is wrong is ``unverified``, data that are missing or differ ``failed``."""
        try:
            if check.question is None or check.expectation is None:
                return self._command(check)
            answer = self._ask(replace(check.question, limit_rows=max(check.question.limit_rows, 2)))
            return self._judge(check, check.expectation, answer)
        except (QuestionError, ConfigError) as error:
            return Finding(check.name, "unverified", short(f"{self._said(check, error)}{_hint(error.hint)}", 600))
        except IntegrityError as error:
            return Finding(check.name, "failed", short(self._said(check, error), 600))

    def _said(self, check: SuiteCheck, error: DrdError) -> str:
        words = (*check.question.words, check.question.database or "") if check.question else ()
        return error.message if self._suite.show_rows else without_data(error.message, words)

    def _command(self, check: SuiteCheck) -> Finding:
        code, output = self._server.run(check.command, self._cancel)
        said = f": {short(output, 400)}" if self._suite.show_rows and output.strip() else ""
        if code == 0:
            return Finding(check.name, "passed", f"{check.command[0]} ended with 0{said}")
        if code in {126, 127}:
            return Finding(check.name, "unverified", f"{check.command[0]} could not be run (exit code {code})")
        if code < 0 or 128 < code <= 128 + signal.NSIG:  # as shells and containers say it
            name = f"signal {-code if code < 0 else code - 128}"
            return Finding(check.name, "unverified", f"{check.command[0]} was ended by {name} and did not say{said}")
        return Finding(
            check.name, "failed", f"{check.command[0]} ended with {code}{said}", "exit code 0", f"exit code {code}"
        )

    def _judge(self, check: SuiteCheck, wanted: Expectation, answer: Answer) -> Finding:
        if wanted.comparison == "no_rows":
            return self._no_rows(check, answer)
        if wanted.comparison == "rows":
            return self._rows(check, wanted, answer)
        value = _single(answer)
        if wanted.comparison == "within":
            return self._fresh(check, wanted, value)
        expected = f"{_WORDS[wanted.comparison]} {wanted.value}"
        passed = _compare(value, wanted)
        shown = short(value) if self._suite.show_rows or isinstance(value, (int, float, Decimal)) else "another value"
        if passed:
            return Finding(check.name, "passed", f"{shown if shown != 'another value' else 'the value'} is {expected}")
        return Finding(check.name, "failed", f"expected {short(expected)}, found {shown}", short(expected), shown)

    def _no_rows(self, check: SuiteCheck, answer: Answer) -> Finding:
        count = len(answer.rows)
        if not count:
            return Finding(check.name, "passed", "no row, as expected")
        found = f"{'more than ' if answer.more else ''}{count} row{'s' if count > 1 else ''}"
        rows = f": {short(answer.rows[:MAX_NAMED])}" if self._suite.show_rows else ""
        return Finding(check.name, "failed", f"expected no row, found {found}{rows}", "no row", found + rows)

    def _rows(self, check: SuiteCheck, wanted: Expectation, answer: Answer) -> Finding:
        found = [tuple(map(_plain, row)) for row in answer.rows]
        expected = [tuple(map(_plain, row)) for row in wanted.rows]
        if found == expected and not answer.more:
            return Finding(check.name, "passed", f"the {len(expected)} rows expected are there")
        differing = next(
            (n for n, pair in enumerate(zip(expected, found, strict=False), 1) if pair[0] != pair[1]),
            min(len(expected), len(found)) + 1,
        )
        shown = f"{'more than ' if answer.more else ''}{len(found)} rows, row {differing} is another"
        if self._suite.show_rows:
            shown = short(answer.rows)
        detail = f"the rows differ, first in row {differing}"
        return Finding(check.name, "failed", detail, f"{len(expected)} rows", shown)

    def _fresh(self, check: SuiteCheck, wanted: Expectation, value: Cell) -> Finding:
        limit = wanted.value if isinstance(wanted.value, (int, float)) else self._objectives.rpo_s
        newest = _moment(value)
        if limit is None:
            return Finding(check.name, "unverified", "within: rpo, but the drill has no RPO objective")
        if newest is None:
            if value is None:
                return Finding(check.name, "failed", "there is no newest row", f"at most {limit:g} s old", "nothing")
            text = "the answer is no time; allowed: a timestamp, ISO 8601 text, or seconds since 1970"
            return Finding(check.name, "unverified", text)
        if check.newest:
            self.newest = newest if self.newest is None else max(newest, self.newest)
        age_s = (self._started_at - newest).total_seconds()
        detail = f"the newest is of {when(newest)}, {age_s:.0f} s before the drill"
        if age_s <= limit:
            return Finding(check.name, "passed", f"{detail}; allowed {limit:g} s")
        return Finding(check.name, "failed", f"stale: {detail}", f"at most {limit:g} s old", f"{age_s:.0f} s old")


def _hint(hint: str) -> str:
    return f" ({hint})" if hint else ""


def _single(answer: Answer) -> Cell:
    """Return the one value that an answer must be."""
    if not answer.rows:
        return None
    if len(answer.rows) > 1 or answer.more or len(answer.rows[0]) != 1:
        raise QuestionError(
            f"the answer has {'more than ' if answer.more else ''}{len(answer.rows)} rows"
            f" of {len(answer.rows[0])} values",
            hint="ask for one value, or expect no_rows or rows",
        )
    return answer.rows[0][0]


def _number(value: Cell) -> Decimal | None:
    if isinstance(value, bool) or value is None or isinstance(value, datetime):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _plain(value: Cell) -> Cell:
    """Return a value in the one form in which equal things are equal: numbers as numbers, times as UTC text."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    number = None if isinstance(value, str) else _number(value)
    return value if number is None else number


def _compare(value: Cell, wanted: Expectation) -> bool:
    if wanted.comparison in {"equals", "not_equals"}:
        number, expected = _number(value), _number(wanted.value)
        both = number is not None and expected is not None
        same = number == expected if both else _plain(value) == _plain(wanted.value)
        return same == (wanted.comparison == "equals")
    number, limit = _number(value), _number(wanted.value)
    if number is None or limit is None:
        if value is None:
            return False
        raise QuestionError("the answer is no number, so it cannot be compared", hint="ask for a number")
    return {
        "at_least": number >= limit,
        "at_most": number <= limit,
        "above": number > limit,
        "below": number < limit,
    }[wanted.comparison]


def _moment(value: Cell) -> datetime | None:
    """Read a time: aware, naive (UTC), ISO text, or seconds (or milliseconds) since 1970."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    number = _number(value)
    if number is None:
        return None
    seconds = float(number) / 1000 if number > 10**11 else float(number)
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
