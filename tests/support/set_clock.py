"""Set the wall clock of one process and its children, and of nobody else, with libfaketime.

The kernel's clock is not touched: what is timed by the monotonic clock goes on as ever, and so do the times of files
and the clocks of the servers, as those of a store elsewhere would. A daemon's jobs inherit the environment, so they
live in the same time, as on a machine whose clock is set.
Outside facts: libfaketime 0.9.10, README (FAKETIME_TIMESTAMP_FILE, FAKETIME_NO_CACHE); its ``clock_nanosleep`` takes
a deadline of the monotonic clock, as Python 3.11's ``time.sleep`` has one, for one of the wall clock, and refuses it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.support.drd_site import ROOT
from tests.support.services import do_without

_SLEEP = """
import select, time
time.sleep = lambda seconds: select.select((), (), (), max(seconds, 0)) and None
"""
_LIBRARIES = ("usr/lib/*/faketime/libfaketimeMT.so.1", "usr/lib*/faketime/libfaketimeMT.so.1")


class SetClock:
    """The wall clock of what runs in :attr:`environment`, as far from the real one as was said last."""

    def __init__(self, folder: Path, name: str = "clock") -> None:
        library = next((path for pattern in _LIBRARIES for path in Path("/").glob(pattern)), None)
        if library is None:
            do_without("libfaketime is not installed (Debian: apt install libfaketime)")
        self._folder = folder / f"set-{name}"
        self._folder.mkdir()
        (self._folder / "sitecustomize.py").write_text(_SLEEP)
        self._file = self._folder / "offset"
        self._library = library
        self.ahead_s = 0.0
        self.move(0.0)

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment to live by this clock."""
        return {
            "PYTHONPATH": f"{self._folder}:{ROOT}",
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, seconds: float) -> None:
        """Set it forward by so much, or back."""
        self.ahead_s += seconds
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.ahead_s:+.3f}\n")
        new.replace(self._file)

    def set(self, at: datetime) -> None:
        """Set it to a time."""
        self.move((at - self.now()).total_seconds())

    def now(self) -> datetime:
        """Return what it shows."""
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.ahead_s, UTC)
