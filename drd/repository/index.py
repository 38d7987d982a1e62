"""The index of a source: the heads of its manifests in one object, so that a catalog of 10,000 is read at once.

It is a cache and no evidence: whoever lists holds it against the folders that are there, and whoever acts on a backup
reads its manifest. It may be missing, old, or damaged: then manifests are read instead. Its first line says whose it
is, the SHA-256 of what follows, and who signed both; a line a head follows, in JSON, and all of it is one zstd frame::

    {"kind": "drd-heads", "version": 1, "source": …, "sha256": …, "signature": null or {"key": …, "value": …}}
    {"alike": [
    {"engine": …, "engine_version": …},
    …
    ],
    "heads": [
    {"like": 0, "id": …},
    …
    ]}

What most backups of a source have alike stands in ``alike`` once, and each head says which of these it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from drd.errors import IntegrityError
from drd.model import BackupHead, Json, Signature
from drd.repository import manifest
from drd.repository.codec import Codec
from drd.repository.fields import Fields, Malformed, parse_strictly
from drd.repository.signing import Signing

VERSION = 1
MAX_STORED_BYTES = 64 << 20
_MAX_PLAIN_BYTES = 512 << 20
"""Half a million heads."""
_LEVEL = 3
_LINES = ",\n"
_KIND = "drd-heads"
_MESSAGE = "drd heads 1"


class Unusable(Exception):
    """Why an index is not believed; whoever reads it goes on without it."""


class NewerIndex(Unusable):
    """A newer drd wrote it: it is neither believed nor replaced."""


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says: heads by id, ascending; whether it is ``signed``, and by a key known here (``proven``)."""

    heads: dict[str, BackupHead]
    signed: bool
    proven: bool


def dump(source: str, heads: Iterable[BackupHead], signing: Signing) -> bytes:
    """Return the index as it is stored, signed where backups are."""
    numbers: dict[str, int] = {}
    lines: list[str] = []
    for head in heads:
        alike, own = manifest.split_document(head)
        number = numbers.setdefault(_dumps(alike), len(numbers))
        lines.append(_dumps({"like": number, **own}))
    body = f'{{"alike": [\n{_LINES.join(numbers)}\n],\n"heads": [\n{_LINES.join(lines)}\n]}}\n'.encode()
    digest = hashlib.sha256(body).hexdigest()
    signature = signing.sign(_message(source, digest))
    header: dict[str, Json] = {
        "kind": _KIND,
        "version": VERSION,
        "source": source,
        "sha256": digest,
        "signature": None if signature is None else {"key": signature.key, "value": signature.value},
    }
    return Codec(_LEVEL).compress(json.dumps(header, ensure_ascii=True).encode("ascii") + b"\n" + body)


def parse(data: bytes, source: str, signing: Signing) -> Index:
    """Return what an index of this source says; raises :class:`Unusable` for one that is not to be believed.

    Where keys are trusted, one of them must have signed it, and of its heads only those count whose manifests were
    signed by one of them: whoever signs an index has checked the signatures of the manifests in it.
    """
    try:
        header, _, body = _plain(data).partition(b"\n")
        signature, message = _header(Fields(parse_strictly(header), "first line"), source, body)
        heads = _heads(body, source) if signing.believes(message, signature) else None
    except (Malformed, IntegrityError) as error:
        raise Unusable(f"the index of {source} {error}") from error
    if heads is None:
        raise Unusable(f"the index of {source} is not signed by any of signing.public_keys")
    ids = [head.id for head in heads]
    if ids != sorted(set(ids)):
        raise Unusable(f"the index of {source} is in no order")
    counted = {head.id: head for head in heads if signing.vouched(head)}
    return Index(counted, signature is not None, signature is not None and signing.knows(message, signature))


def _header(fields: Fields, source: str, body: bytes) -> tuple[Signature | None, bytes]:
    """Return who signed and what was signed, of an index that is whole and of this source."""
    fields.choice("kind", (_KIND,))
    version = fields.count("version")
    if version > VERSION:
        raise NewerIndex(f"the index of {source} has version {version}; this drd knows versions up to {VERSION}")
    fields.choice("source", (source,))
    digest = hashlib.sha256(body).hexdigest()
    fields.choice("sha256", (digest,))
    found = fields.optional_map("signature")
    fields.require_nothing_else()
    signature = None
    if found is not None:
        inner = Fields(found, "signature")
        signature = Signature(inner.text("key"), inner.text("value"))
        inner.require_nothing_else()
    return signature, _message(source, digest)


def _message(source: str, digest: str) -> bytes:
    return f"{_MESSAGE}\n{source}\n{digest}\n".encode("ascii")


def _heads(body: bytes, source: str) -> list[BackupHead]:
    fields = Fields(parse_strictly(body), "index")
    alike = [manifest.alike_of_document(item) for item in fields.objects("alike")]
    listed = fields.array("heads")
    fields.require_nothing_else()
    heads: list[BackupHead] = []
    for own in listed:
        number = own.pop("like", None) if isinstance(own, dict) else None
        if not isinstance(own, dict) or type(number) is not int or not 0 <= number < len(alike):
            raise Malformed("holds a head that is like none")
        heads.append(manifest.head_of_split(own, alike[number], source))
    return heads


def _dumps(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(data: bytes) -> bytes:
    import zstandard  # noqa: PLC0415

    if len(data) > MAX_STORED_BYTES:
        raise Malformed("is too large")
    try:
        declared = zstandard.get_frame_parameters(data).content_size
    except zstandard.ZstdError as error:
        raise Malformed(f"is no zstd frame: {error}") from error
    if declared > _MAX_PLAIN_BYTES:  # an unknown size is the largest number
        raise Malformed("is too large")
    return Codec(_LEVEL).decode(data, plain_bytes=declared, encrypted=False)
