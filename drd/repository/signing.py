"""Signed manifests: proof of who wrote a backup, for a bucket that others may write to.

What is signed is the SHA-256 of the whole manifest, in canonical JSON and without signature and digest: so id, source,
repository, parent, times and the digest of every part. The keys are Ed25519 (RFC 8032): the private one a PEM file as
``openssl genpkey -algorithm ed25519`` writes it (PKCS #8, RFC 8410), the public one a line of text. The library is
imported when a key is first used.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from drd.errors import ConfigError, IntegrityError
from drd.model import Backup, BackupHead, Secret, Signature
from drd.repository.facts import schema_version_of
from drd.repository.layout import backup_time
from drd.repository.manifest import content_digest
from drd.repository.sealing import Sealing, clear_hint
from drd.wording import when

PUBLIC_KEY_PREFIX = "ed25519:"
PUBLIC_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_CONTEXT = "drd manifest signature 1"
_KEY_HINT = "make a pair with: drd keygen --signing"


@dataclass(frozen=True, slots=True)
class Trust:
    """Which backups count: those signed by one of ``public_keys`` (``ed25519:…``).

    ``accept_unsigned_before``: an unsigned one counts too when both its id and the store's own time of its manifest
    are earlier. ``repository_id``, if given, is the only repository whose backups count, so that one key may sign for
    several.
    """

    public_keys: tuple[str, ...]
    accept_unsigned_before: datetime | None = None
    repository_id: str | None = None


class Signing:
    """Signs manifests on their way out and judges them on their way in; without keys it does neither. Thread-safe.

    Args:
        private_key: reads the PEM text of the private key, when the first backup is to be signed.
        trust: whom to believe; None believes every manifest that is well-formed.
        sealing: what backups in the clear count, where backups are encrypted; None asks nothing of that.
    """

    def __init__(
        self,
        private_key: Callable[[], Secret] | None = None,
        trust: Trust | None = None,
        sealing: Sealing | None = None,
    ) -> None:
        self._read_private_key = private_key
        self.trust = trust
        self.sealing = sealing

    @property
    def signs(self) -> bool:
        """Whether new backups are signed."""
        return self._read_private_key is not None

    @cached_property
    def public_key(self) -> str:
        """The public half of the private key; raises ConfigError when there is none, or it is not one."""
        return _public_text(self._private_key)

    def require_key(self) -> None:
        """Raise ConfigError when a backup could not be signed, or would not be believed by this configuration."""
        if not self.signs:
            if self.trust is not None:
                raise ConfigError(
                    "signing.public_keys is configured and signing.private_key is not: this configuration would refuse"
                    " the backup it makes",
                    hint="give this host signing.private_key, or take signing.public_keys out of its configuration",
                )
            return
        if self.trust is not None and self.public_key not in self.trust.public_keys:
            raise ConfigError(
                "signing.private_key belongs to none of signing.public_keys: this configuration would refuse the backup"
                " it makes",
                hint=f"add its public key: {self.public_key}",
            )

    def signed(self, backup: Backup) -> Backup:
        """Return ``backup`` in the version that it needs, with a signature where backups are signed.

        The same one each time.
        """
        if not self.signs:
            return replace(backup, schema_version=schema_version_of(backup, signed=backup.signature is not None))
        backup = replace(backup, schema_version=schema_version_of(backup, signed=True), signature=None)
        value = self._private_key.sign(_message(backup))
        return replace(backup, signature=Signature(self.public_key, base64.b64encode(value).decode("ascii")))

    def doubt(self, backup: Backup, stored_at: Callable[[], datetime | None]) -> str:
        """Return why a backup read from a store does not count, or nothing when it does.

        Args:
            backup: what the manifest says.
            stored_at: asks the store when it got the manifest; called for an unsigned one and one in the clear alone.
        """
        return self._doubt_of_signature(backup, stored_at) or self.doubt_of_clear(backup, stored_at)

    def doubt_of_clear(self, head: BackupHead, stored_at: Callable[[], datetime | None]) -> str:
        """Return why a backup in the clear does not count, or nothing when it does: known by its head."""
        return self.sealing.doubt(head, stored_at) if self.sealing is not None else ""

    def _doubt_of_signature(self, backup: Backup, stored_at: Callable[[], datetime | None]) -> str:
        trust = self.trust
        if trust is None:
            return ""
        if backup.signature is None:
            return _doubt_of_unsigned(backup, trust, stored_at)
        if backup.signature.key not in trust.public_keys:
            return f"is signed by {backup.signature.key}, which is none of signing.public_keys"
        if not _is_valid(backup.signature, _message(backup)):
            return "has a signature that is not of this manifest: it was altered, or the signature was"
        if trust.repository_id not in {None, backup.repository_id}:
            return f"is of the repository {backup.repository_id}, not of {trust.repository_id} (signing.repository)"
        return ""

    def proves(self, backup: Backup) -> bool:
        """Whether a backup read whole is signed by a key that is trusted here, or by the own one."""
        return backup.signature is not None and self.knows(_message(backup), backup.signature)

    def knows(self, message: bytes, signature: Signature) -> bool:
        """Whether a message was signed by a key that is trusted here, or by the own one."""
        return signature.key in self._known_keys() and _is_valid(signature, message)

    def vouched(self, head: BackupHead) -> bool:
        """Whether a head counts of which somebody who is believed says that the whole manifest's signature is good."""
        trust = self.trust
        if self.doubt_of_clear(head, lambda: None):  # only the store can say since when it is there
            return False
        if trust is None:
            return True
        mine = trust.repository_id in {None, head.repository_id}
        return mine and head.signature is not None and head.signature.key in trust.public_keys

    def believes(self, message: bytes, signature: Signature | None) -> bool:
        """Whether a trusted key signed a message; where none are configured everything is believed."""
        if self.trust is None:
            return True
        return signature is not None and signature.key in self.trust.public_keys and _is_valid(signature, message)

    def sign(self, message: bytes) -> Signature | None:
        """Return the own signature of a message, None where nothing is signed."""
        value = self.detached(message)
        return None if value is None else Signature(self.public_key, base64.b64encode(value).decode("ascii"))

    def detached(self, data: bytes) -> bytes | None:
        """Return the signature (64 bytes, RFC 8032) of a document that is kept beside it; None where nothing is signed.

        A document is a JSON object and so never the message of a manifest's signature.
        """
        return bytes(self._private_key.sign(data)) if self.signs else None

    def signer_of(self, data: bytes, signature: bytes) -> str | None:
        """Return which of the trusted keys, or the own one, signed a document; None when none of them did."""
        value = base64.b64encode(signature).decode("ascii")
        return next((key for key in self._known_keys() if _is_valid(Signature(key, value), data)), None)

    def _known_keys(self) -> list[str]:
        return [*(self.trust.public_keys if self.trust else ()), *([self.public_key] if self.signs else [])]

    @cached_property
    def _private_key(self) -> Any:
        if self._read_private_key is None:
            raise ConfigError("no signing.private_key is configured", hint=_KEY_HINT)
        return _parse_private_key(self._read_private_key())


def refusal(backup_id: str, doubt: str) -> IntegrityError:
    """Return the error for a backup that :meth:`Signing.doubt` does not let count."""
    hint = (
        f"somebody may have planted it: look at it with drd show {backup_id}, and use another backup; one that you"
        " know to be yours counts once its key is in signing.public_keys, or by signing.accept_unsigned_before"
    )
    if "not encrypted" in doubt:
        hint = clear_hint(backup_id)
    return IntegrityError(f"backup {backup_id} {doubt}", subject=backup_id, hint=hint)


def generate_signing_key() -> tuple[Secret, str]:
    """Make a new Ed25519 pair: the private key as PEM text, and the public one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Secret(pem.decode("ascii")), _public_text(key)


def is_public_key(text: str) -> bool:
    """Whether ``text`` has the form of a public key: ``ed25519:`` and 32 bytes in base64."""
    return text.startswith(PUBLIC_KEY_PREFIX) and _decoded(text.removeprefix(PUBLIC_KEY_PREFIX)) is not None


def _doubt_of_unsigned(backup: Backup, trust: Trust, stored_at: Callable[[], datetime | None]) -> str:
    limit = trust.accept_unsigned_before
    if limit is None:
        return "is not signed"
    since = f"and unsigned ones count only from before {when(limit)} (signing.accept_unsigned_before)"
    if backup_time(backup.id) >= limit:
        return f"is not signed, {since}"
    stored = stored_at()
    if stored is None or stored >= limit:  # an id can be made up by whoever writes it, the store's time cannot
        put = when(stored, "an unknown time")
        return f"is not signed and was put into the store at {put}, {since}"
    if trust.repository_id not in {None, backup.repository_id}:
        return f"is not signed, and of the repository {backup.repository_id}, not of {trust.repository_id}"
    return ""


def _message(backup: Backup) -> bytes:
    """Return what is signed: short, so that a person can check it with openssl as well."""
    return f"{_CONTEXT}\n{content_digest(backup)}\n".encode("ascii")


def _is_valid(signature: Signature, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    raw = _decoded(signature.key.removeprefix(PUBLIC_KEY_PREFIX))
    value = _decoded(signature.value, _SIGNATURE_BYTES)
    if raw is None or value is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(value, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: str, size: int = PUBLIC_KEY_BYTES) -> bytes | None:
    """Return the bytes of base64 that is written in the one usual way and of that size, else None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size and base64.b64encode(raw).decode("ascii") == text else None


def _public_text(private_key: Any) -> str:
    raw: bytes = private_key.public_key().public_bytes_raw()
    return PUBLIC_KEY_PREFIX + base64.b64encode(raw).decode("ascii")


def _parse_private_key(pem: Secret) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem.reveal().encode("utf-8"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None  # the cause might quote the key
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            "signing.private_key is not an Ed25519 key without a passphrase, in PEM (-----BEGIN PRIVATE KEY-----)",
            hint=_KEY_HINT,
        )
    return key
