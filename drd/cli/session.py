"""What a verb works with: the configuration and the wired services, made only when asked for."""

from __future__ import annotations

import contextlib
import sys
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from drd.cli.measuring import Done

if TYPE_CHECKING:  # heavy: the command line must start in a quarter of a second
    from drd.cancel import CancelToken
    from drd.cli.progress import ProgressDisplay
    from drd.config import Config
    from drd.counts import StoreCounts
    from drd.logs import Format
    from drd.model import Progress
    from drd.protocols import Notifier
    from drd.wiring import Services

RETRY_TOLD_EVERY_S = 15.0


class Log(Protocol):
    """Where events go, each with its name and facts."""

    def info(self, event: str, **facts: Any) -> Any:
        """Say what happened."""

    def warning(self, event: str, **facts: Any) -> Any:
        """Say what happened and may need a person."""

    def error(self, event: str, **facts: Any) -> Any:
        """Say what failed."""


class Silence:
    """The log of a verb that was not asked for one: it writes for people."""

    def info(self, event: str, **facts: Any) -> None:
        """Say nothing."""

    warning = error = info


class Session:
    """One run of one verb."""

    def __init__(
        self, config_path: str | None, *, as_json: bool, cancel: CancelToken, log_format: Format | None = None
    ) -> None:
        self.config_path = config_path
        self.log_format = log_format
        self.done = Done()
        self.counts: StoreCounts | None = None
        self.as_json = as_json
        self.cancel = cancel
        self.display: ProgressDisplay | None = None
        self._retry_told_until = 0.0

    @cached_property
    def config(self) -> Config:
        """The validated configuration; its warnings go to standard error once."""
        from drd import config

        loaded = config.load(config.find_config_file(self.config_path))
        if self.log_format is not None:
            from drd.wiring_logs import mask_secrets

            mask_secrets(loaded)
        with contextlib.suppress(BrokenPipeError):  # who does not listen misses a warning, and no work
            for warning in loaded.warnings:
                if self.log_format is None:
                    print(f"drd: warning: {warning}", file=sys.stderr)
                else:
                    self.log.warning("config.warning", message=warning)
        return loaded

    @cached_property
    def log(self) -> Log:
        """The log, in the format asked for; silent where none was."""
        if self.log_format is None:
            return Silence()
        import structlog

        from drd import logs

        logs.configure(self.log_format)
        log: Log = structlog.get_logger("drd")
        return log

    @cached_property
    def services(self) -> Services:
        """The adapters and ports that the configuration asks for."""
        import logging

        from drd.wiring import Services

        logging.getLogger().addHandler(logging.NullHandler())  # what a library logs, it raises as well
        return Services(
            self.config, cancel=self.cancel, progress=self._progress, on_retry=self._retrying, counts=self.counts
        )

    @cached_property
    def notifier(self) -> Notifier:
        """Who is told how it went; needs neither store nor sources."""
        from drd.wiring_notify import notifier_of

        return notifier_of(self.config, self.cancel)

    def show_progress(self, verb: str) -> ProgressDisplay:
        """Return a context manager that shows progress on standard error while the work runs."""
        from drd.cli.progress import ProgressDisplay

        self.display = ProgressDisplay(verb, sys.stderr, quiet=self.as_json)
        return self.display

    def _retrying(self, text: str) -> None:
        """Say, now and then, why nothing moves: a person must not wonder for the whole patience of the store."""
        if time.monotonic() >= self._retry_told_until:
            self._retry_told_until = time.monotonic() + RETRY_TOLD_EVERY_S
            if self.log_format is None:
                print(f"drd: {text}", file=sys.stderr, flush=True)
            else:
                self.log.warning("store.retried", message=text)

    def _progress(self, step: Progress) -> None:
        if self.display is not None:
            self.display.update(step)

    def close(self) -> None:
        """Release what was opened."""
        if "services" in self.__dict__:
            self.services.close()
