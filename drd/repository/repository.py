"""The repository as a whole: the object ``drd.json`` that says what lies in this place, and in which format."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from drd.errors import CatalogError, ConfigError, IntegrityError, ObjectExists, ObjectMissing, StoreForbidden
from drd.model import REPOSITORY_FORMAT_VERSION
from drd.protocols import Store
from drd.repository import layout
from drd.repository.fields import Fields, Malformed, parse_strictly, text_of_time, written

_MAX_BYTES = 64 << 10
UNREAD_ID = "unread"
"""Stands in manifests for the repository's id where the role that wrote them may not read it."""


@dataclass(frozen=True, slots=True)
class RepositoryInfo:
    """What ``drd.json`` says. ``id`` is repeated in every manifest."""

    id: str
    format_version: int
    created_at: datetime


class NewerFormat(IntegrityError):
    """A newer drd made this repository; nothing in it is guessed at."""


class Repository:
    """Opens or makes the repository in a store. Thread-safe.

    ``known_id`` is its id as the configuration knows it (``signing.repository``): backups of any other do not count.
    """

    def __init__(self, store: Store, known_id: str | None = None) -> None:
        self._store = store
        self._known_id = known_id

    @property
    def known_id(self) -> str | None:
        """Return the id that the configuration demands, None when any will do."""
        return self._known_id

    def peek(self) -> RepositoryInfo | None:
        """Return what is there, None when there is no ``drd.json``.

        Raises IntegrityError when it is damaged or of a newer format.
        """
        try:
            data = self._store.get(layout.REPOSITORY_KEY, length=_MAX_BYTES + 1)
        except ObjectMissing:
            return None
        return _parse(data)

    def open(self) -> RepositoryInfo:
        """Return what is there; raises CatalogError when there is no repository, and what :meth:`peek` raises."""
        try:
            return _parse(self._store.get(layout.REPOSITORY_KEY, length=_MAX_BYTES + 1))
        except ObjectMissing as error:
            raise CatalogError(
                f"there is no drd repository in this store: {error.message}",
                subject=layout.REPOSITORY_KEY,
                hint="is the disk or share mounted? is store.path, or store.bucket and store.prefix, right? "
                "The first drd backup now makes a repository",
            ) from error

    def open_or_create(self, now: datetime) -> RepositoryInfo:
        """Return what is there, or make a repository in an empty place; of several at once, one makes it.

        Raises ConfigError when foreign objects lie there or it is not the repository that the configuration knows,
        and what :meth:`peek` raises. Backups without a ``drd.json`` (it was lost) get a new one, with the known id if
        there is one: a backup stands by its own manifest.
        """
        try:
            found = self.peek()
        except StoreForbidden:
            found = self._unread(now)
        if found is not None:
            return self._as_known(found)
        self._refuse_foreign_objects()
        info = RepositoryInfo(self._known_id or str(uuid.uuid4()), REPOSITORY_FORMAT_VERSION, now)
        try:
            self._store.put(layout.REPOSITORY_KEY, _dump(info), if_absent=True)
        except ObjectExists:
            return self._as_known(self.open())
        return info

    def _as_known(self, found: RepositoryInfo) -> RepositoryInfo:
        if self._known_id not in (None, found.id):
            raise ConfigError(
                f"the store holds the repository {found.id}, and by signing.repository only backups of"
                f" {self._known_id} count; nothing was written",
                hint="check store.bucket and store.prefix (or store.path), or correct signing.repository",
            )
        return found

    def _unread(self, now: datetime) -> RepositoryInfo | None:
        """Return what a role that may list and not read can know: that there is a repository, or None."""
        if not any(info.key == layout.REPOSITORY_KEY for info in self._store.list(layout.REPOSITORY_KEY)):
            return None
        return RepositoryInfo(self._known_id or UNREAD_ID, REPOSITORY_FORMAT_VERSION, now)

    def _refuse_foreign_objects(self) -> None:
        for info in islice(self._store.list("", delimiter="/"), 1000):
            if not layout.is_own_key(info.key):
                raise ConfigError(
                    f"the store holds objects that are not drd's, such as {info.key[:120]!r}; nothing was written",
                    hint="give drd an empty bucket, or a place of its own with store.prefix",
                )


def _dump(info: RepositoryInfo) -> bytes:
    document = {
        "kind": "drd-repository",
        "format_version": info.format_version,
        "id": info.id,
        "created_at": text_of_time(info.created_at),
    }
    return written(document)


def _parse(data: bytes) -> RepositoryInfo:
    try:
        fields = Fields(parse_strictly(data), "object")
        fields.choice("kind", ("drd-repository",))
        version = fields.count("format_version")
        if version > REPOSITORY_FORMAT_VERSION:
            raise NewerFormat(
                f"the repository has format version {version}; this drd knows versions up to"
                f" {REPOSITORY_FORMAT_VERSION}",
                subject=layout.REPOSITORY_KEY,
                hint="upgrade drd: a newer one made this repository",
            )
        info = RepositoryInfo(fields.text("id"), version, fields.time("created_at"))
        fields.require_nothing_else()
    except Malformed as error:
        raise IntegrityError(
            f"{layout.REPOSITORY_KEY} {error}",
            subject=layout.REPOSITORY_KEY,
            hint="backups do not depend on it: move the object away, and the next backup writes a new one",
        ) from error
    return info
