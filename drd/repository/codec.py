"""How one part is compressed and encrypted: one zstd frame, inside one age file when there are recipients.

Both are standard formats (RFC 8878; age-encryption.org/v1) that ``age -d | zstd -d`` reads. The libraries are
imported when first needed: they are not free, and most commands never touch a part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from drd.errors import ConfigError, IntegrityError
from drd.model import Secret
from drd.protocols import BytesLike

if TYPE_CHECKING:
    import zstandard

MIN_LEVEL, MAX_LEVEL = 1, 19
_KEY_HINT = "set encryption.identity to the private key (AGE-SECRET-KEY-1…) of one of these recipients"


class Codec:
    """Encodes and decodes parts; thread-safe (each thread has its own zstd contexts).

    Args:
        level: zstd level, 1 to 19.
        recipients: age X25519 recipients (``age1…``); none means parts are compressed only.
        identities: age X25519 identities (``AGE-SECRET-KEY-1…``), or a function that reads them when the first part
            is to be decrypted; needed only to decode.

    Raises ConfigError for a level, recipient or identity that is not one; an identity is never quoted.
    """

    def __init__(
        self,
        level: int,
        recipients: tuple[str, ...] = (),
        identities: tuple[Secret, ...] | Callable[[], tuple[Secret, ...]] = (),
    ) -> None:
        if not MIN_LEVEL <= level <= MAX_LEVEL:
            raise ConfigError(f"zstd level {level} is out of range", hint=f"choose {MIN_LEVEL} to {MAX_LEVEL}")
        self.level = level
        self.recipients = recipients
        self._given_identities = identities
        self._local = threading.local()
        self._age_recipients = [_parse_recipient(text) for text in recipients]

    @cached_property
    def identities(self) -> tuple[Secret, ...]:
        """The identities, read now if they were not; raises ConfigError when a reference to one is broken."""
        given = self._given_identities
        return given() if callable(given) else given

    @property
    def encrypted(self) -> bool:
        """Whether what it encodes is encrypted."""
        return bool(self.recipients)

    def encode(self, plain: BytesLike) -> bytes:
        """Return ``plain`` as it is to be stored."""
        return self.encrypt(self.compress(plain))

    def compress(self, plain: BytesLike) -> bytes:
        """Return one zstd frame with content size and checksum; the first half of :meth:`encode`."""
        return self._compressor.compress(plain)

    def encrypt(self, frame: bytes) -> bytes:
        """Return ``frame`` in an age file, or as it is without recipients; the second half of :meth:`encode`."""
        if not self._age_recipients:
            return frame
        import pyrage  # noqa: PLC0415

        encrypted: bytes = pyrage.encrypt(frame, self._age_recipients)
        return encrypted

    def decode(self, stored: bytes, *, plain_bytes: int, encrypted: bool) -> bytes:
        """Return the plain bytes of a stored part, which are exactly ``plain_bytes`` long.

        Bounded: no more than that is ever decompressed. Raises ConfigError when no identity opens it, and
        IntegrityError when it is not one whole frame (in one whole age file) of that size.
        """
        frame = self._decrypt(stored) if encrypted else stored
        return self._decompress(frame, plain_bytes)

    def matches_recipients(self, recipients: tuple[str, ...]) -> bool:
        """Whether an identity given here opens what is encrypted to ``recipients``."""
        return any(public in recipients for public in self._own_recipients)

    def require_identity(self, recipients: tuple[str, ...]) -> None:
        """Raise ConfigError, with the recipients by name, when what is encrypted to them cannot be opened here."""
        if not self.matches_recipients(recipients):
            which = "none of the configured identities opens it" if self.identities else "no identity is configured"
            raise ConfigError(f"this backup is encrypted to {', '.join(recipients)}; {which}", hint=_KEY_HINT)

    @cached_property
    def _own_recipients(self) -> frozenset[str]:
        return frozenset(recipient_of(identity) for identity in self.identities)

    @cached_property
    def _age_identities(self) -> list[Any]:
        return [_parse_identity(identity) for identity in self.identities]

    @property
    def _compressor(self) -> zstandard.ZstdCompressor:
        found: zstandard.ZstdCompressor | None = getattr(self._local, "compressor", None)
        if found is None:
            import zstandard  # noqa: PLC0415

            # The checksum costs little and lets stock `zstd -t` find damage without drd's manifest.
            found = zstandard.ZstdCompressor(level=self.level, write_content_size=True, write_checksum=True)
            self._local.compressor = found
        return found

    @property
    def _decompressor(self) -> zstandard.ZstdDecompressor:
        found: zstandard.ZstdDecompressor | None = getattr(self._local, "decompressor", None)
        if found is None:
            import zstandard  # noqa: PLC0415

            found = zstandard.ZstdDecompressor()
            self._local.decompressor = found
        return found

    def _decrypt(self, stored: bytes) -> bytes:
        if not self.identities:
            raise ConfigError("the part is encrypted and no identity is configured", hint=_KEY_HINT)
        import pyrage  # noqa: PLC0415

        try:
            plain: bytes = pyrage.decrypt(stored, self._age_identities)
        except pyrage.DecryptError as error:
            # age cannot tell a foreign key from a damaged header; callers check the digest of `stored` first
            if "No matching keys" in str(error):
                raise ConfigError(
                    "the part is encrypted to a recipient that none of the configured identities matches",
                    hint=_KEY_HINT,
                ) from error
            raise IntegrityError(f"not a whole age file: {error}") from error
        return plain

    def _decompress(self, frame: bytes, plain_bytes: int) -> bytes:
        import zstandard  # noqa: PLC0415

        try:
            # The size in the header decides how much decompress() allocates, so it is checked before.
            declared = zstandard.get_frame_parameters(frame).content_size
            if declared != plain_bytes:
                said = "no size" if declared == zstandard.CONTENTSIZE_UNKNOWN else f"{declared} bytes"
                raise IntegrityError(f"the zstd frame declares {said}, expected {plain_bytes} bytes")
            plain = self._decompressor.decompress(frame, max_output_size=plain_bytes, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"not one whole zstd frame: {error}") from error
        if len(plain) != plain_bytes:
            raise IntegrityError(f"decompressed to {len(plain)} bytes, expected {plain_bytes}")
        return plain


def generate_identity() -> tuple[Secret, str]:
    """Make a new age X25519 key pair: the identity (private) and its recipient (public)."""
    import pyrage  # noqa: PLC0415

    identity = pyrage.x25519.Identity.generate()
    return Secret(str(identity)), str(identity.to_public())


def recipient_of(identity: Secret) -> str:
    """Return the public recipient of an identity; raises ConfigError when it is not one, without quoting it."""
    return str(_parse_identity(identity).to_public())


def _parse_identity(identity: Secret) -> Any:
    import pyrage  # noqa: PLC0415

    try:
        return pyrage.x25519.Identity.from_str(identity.reveal().strip())
    except pyrage.IdentityError:
        raise ConfigError(
            "encryption.identity is not an age identity", hint="it begins with AGE-SECRET-KEY-1; make one: drd keygen"
        ) from None  # the cause might quote the secret


def _parse_recipient(text: str) -> Any:
    import pyrage  # noqa: PLC0415

    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        shown = "a private key" if text.upper().startswith("AGE-SECRET") else repr(text[:80])
        raise ConfigError(
            f"encryption.recipients holds {shown}, which is not an age recipient",
            hint="it begins with age1; make one: drd keygen",
        ) from error
