"""What devstack raises on purpose."""

from __future__ import annotations


class DevstackError(Exception):
    """A server could not be started, stopped or used; the message is for people and may carry a log's tail."""


class ServiceMissing(DevstackError):
    """The program of a service is not here and could not be obtained; the message says what to type."""
