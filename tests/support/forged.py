"""Backups whose stored bytes were changed and whose manifest was changed to fit: what no digest can notice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

from drd.model import Secret
from drd.repository import layout, manifest
from drd.repository.codec import Codec
from drd.repository.parts import fetch_part
from drd.stores.local import LocalStore
from tests.support.drd_site import Site


def forge(
    site: Site, source: str, backup_id: str, artifact: str = "", change: Callable[[bytes], bytes] = bytes, **facts: Any
) -> None:
    """Replace a small artifact's parts by one, ``change`` of its bytes, and ``facts`` of the manifest; sign nothing."""
    store = LocalStore(site.store_dir)
    codec = Codec(1, tuple(site.config["encryption"]["recipients"]), (Secret(site.identity_file.read_text().strip()),))
    key = layout.manifest_key(source, backup_id)
    backup = manifest.from_json(store.get(key), key=key)
    artifacts = []
    for item in backup.artifacts:
        if item.name == artifact:
            part = item.parts[0]  # takes the whole content, and the manifest names it alone
            pieces = [fetch_part(store, codec, piece, encrypted=True, backup_id=backup_id) for piece in item.parts]
            plain = change(b"".join(pieces))
            stored = codec.encode(plain)
            store.put(part.key, stored)
            digests = hashlib.sha256(plain).hexdigest(), hashlib.sha256(stored).hexdigest()
            item = dataclasses.replace(  # noqa: PLW2901 - the changed one takes its place
                item, parts=(dataclasses.replace(part, plain_bytes=len(plain), stored_bytes=len(stored),
                                                 plain_sha256=digests[0], stored_sha256=digests[1]),)
            )  # fmt: skip
        artifacts.append(item)
    changed = dataclasses.replace(
        backup,
        artifacts=tuple(artifacts),
        plain_bytes=sum(a.plain_bytes for a in artifacts),
        stored_bytes=sum(a.stored_bytes for a in artifacts),
        **facts,
    )
    store.put(key, manifest.to_json(changed))
    store.close()
