"""Every error drd raises on purpose.

The tree, with exit codes::

    DrdError                        1
    ├── ConfigError                 2   usage or configuration
    ├── PartialError                3   some sources done, some not
    ├── CatalogError               10
    │   ├── NoSuchBackup           10
    │   └── NoRecoveryPath         10   nothing reaches the asked time
    ├── LeaseError                 11   another drd works on the same thing
    ├── StoreError                 12
    │   ├── StoreUnavailable       12   retryable: network, 429, 5xx
    │   ├── StoreRefused           12   wrong key, missing bucket, read-only
    │   │   └── StoreForbidden     12   a right that this identity lacks
    │   ├── ObjectMissing          12
    │   └── ObjectExists           12   a put with if_absent lost
    ├── SourceError                13
    │   ├── SourceUnreachable      13   retryable
    │   ├── SourceRefused          13   wrong password, missing right
    │   └── ToolError              13   a client tool is missing, too old, or failed
    ├── TargetError                13   the restore target is unreachable or refused
    │   └── TargetNotEmpty         14
    ├── ScratchError               22   no scratch server can be had: the drill is unverified
    ├── QuestionError              22   a suite asks what the server does not understand: unverified
    ├── IntegrityError             20   bytes are not what the manifest says
    ├── JobError                    1   a job's process of the daemon died or was ended at its deadline
    └── Cancelled                 130

A raiser fills what it knows; an outer layer may fill the rest with :meth:`DrdError.during`.
"""

from __future__ import annotations

from typing import ClassVar, Self

from drd.legible import legible

PROBLEM = "\n  "
"""Begins each problem in the message of a :class:`ConfigError` that has several."""


class DrdError(Exception):
    """Base of all deliberate errors; one line for a person and a code for a machine.

    Args:
        message: what failed and why, one line, no secret.
        op: the verb under way, such as ``backup``.
        subject: what it was done to, such as a source, key or backup id.
        hint: what to do next, one line; may name a command that can be pasted.
    """

    code: ClassVar[str] = "unexpected"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, op: str = "", subject: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = self._shown(message)
        self.op = op
        self.subject = legible(subject)
        self.hint = legible(hint)

    def during(self, op: str, subject: str) -> Self:
        """Fill ``op`` and ``subject`` where the raiser did not know them; return self."""
        self.op = self.op or op
        self.subject = self.subject or legible(subject)
        return self

    def add_hint(self, text: str) -> None:
        """Put ``text`` behind the hint there is, or in the place of none."""
        self.hint = f"{self.hint}; {legible(text)}" if self.hint else legible(text)

    def __str__(self) -> str:
        return self.message

    @staticmethod
    def _shown(message: str) -> str:
        return legible(message)


class ConfigError(DrdError):
    """The command line or the configuration is wrong; nothing was done."""

    code = "config"
    exit_code = 2

    @staticmethod
    def _shown(message: str) -> str:
        return PROBLEM.join(map(legible, message.split(PROBLEM)))  # a document may have several


class PartialError(DrdError):
    """Some of the work succeeded and some did not."""

    code = "partial"
    exit_code = 3


class CatalogError(DrdError):
    """What was asked for is not in the repository."""

    code = "catalog"
    exit_code = 10


class NoSuchBackup(CatalogError):
    """No backup has this id."""

    code = "no_such_backup"


class NoRecoveryPath(CatalogError):
    """No backup reaches the asked time; the message states the recoverable window."""

    code = "no_recovery_path"


class LeaseError(DrdError):
    """Another drd holds the lease; the message says which and since when."""

    code = "lease_held"
    exit_code = 11


class StoreError(DrdError):
    """The object store failed."""

    code = "store"
    exit_code = 12


class StoreUnavailable(StoreError):
    """The store cannot be reached or asks for patience (408, 429, 5xx, broken connection)."""

    code = "store_unavailable"
    retryable = True


class StoreRefused(StoreError):
    """The store answered no: wrong key, missing bucket, missing right, read-only."""

    code = "store_refused"


class StoreForbidden(StoreRefused):
    """The store knows this identity, which lacks the right; another request of it may well be granted."""

    code = "store_forbidden"


class ObjectMissing(StoreError):
    """No object has this key."""

    code = "object_missing"


class ObjectExists(StoreError):
    """A put that demanded absence found an object."""

    code = "object_exists"


class SourceError(DrdError):
    """The database to back up failed."""

    code = "source"
    exit_code = 13


class SourceUnreachable(SourceError):
    """No connection to the database."""

    code = "source_unreachable"
    retryable = True


class SourceRefused(SourceError):
    """The database answered no: wrong password, missing right, unsupported."""

    code = "source_refused"


class ToolError(SourceError):
    """A client tool is missing, too old for the server, or ended with an error."""

    code = "tool"


class TargetError(DrdError):
    """The server to restore into failed, is unreachable or refused."""

    code = "target"
    exit_code = 13


class TargetNotEmpty(TargetError):
    """The restore target holds data; nothing was touched."""

    code = "target_not_empty"
    exit_code = 14


class IntegrityError(DrdError):
    """Stored or restored bytes are not what the manifest says."""

    code = "integrity"
    exit_code = 20


class ScratchError(DrdError):
    """A scratch server cannot be had or was lost, so nothing is known of the backup."""

    code = "scratch"
    exit_code = 22


class QuestionError(DrdError):
    """A drill suite asks something that the server does not understand or may not do; nothing is known of the data."""

    code = "question"
    exit_code = 22


class JobError(DrdError):
    """The process of a job of the daemon could not be started, died, or was ended at its deadline."""

    code = "job"


class Cancelled(DrdError):
    """The work was interrupted by a person or a signal and cleaned up after itself."""

    code = "cancelled"
    exit_code = 130
