"""``drd keygen``: make an age key pair for encrypted backups, or a key pair that signs them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from drd.cli import documents
from drd.cli.session import Session
from drd.errors import ConfigError


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "keygen",
        help="make an age key pair, or with --signing one that signs backups",
        parents=[common],
        description="Write a new private key to a file that only its owner can read, and print its public half: an age "
        "identity and recipient, or an Ed25519 key that signs manifests.",
    )
    parser.add_argument("--signing", action="store_true", help="make a key that signs backups, not one that reads them")
    parser.add_argument(
        "--output", metavar="FILE", help="file to write (drd-identity.txt, or drd-signing-key.pem with --signing)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Make the pair that was asked for."""
    return _signing_pair(args, session) if args.signing else _age_pair(args, session)


def _age_pair(args: argparse.Namespace, session: Session) -> int:
    from drd.repository.codec import generate_identity

    identity, recipient = generate_identity()
    path = Path("drd-identity.txt" if args.output is None else args.output)
    about = "# age identity of drd; keep it off the backup host and print a copy"
    _write(path, f"{about}\n# public key: {recipient}\n{identity.reveal()}\n")
    if session.as_json:
        documents.emit({"recipient": recipient, "identity_file": str(path)})
    else:
        print(
            f"Identity written to {path} (mode 600). Without it no encrypted backup can be read: keep a copy elsewhere."
        )
        print(f"encryption: {{recipients: [{recipient}], identity: {{file: {path}}}}}")
    return 0


def _signing_pair(args: argparse.Namespace, session: Session) -> int:
    from drd.repository.signing import generate_signing_key

    private_key, public_key = generate_signing_key()
    path = Path("drd-signing-key.pem" if args.output is None else args.output)
    _write(path, private_key.reveal())
    if session.as_json:
        documents.emit({"public_key": public_key, "private_key_file": str(path)})
    else:
        print(f"Private key written to {path} (mode 600). A host that only restores gets the public key alone.")
        print(f'signing: {{private_key: {{file: {path}}}, public_keys: ["{public_key}"]}}')
    return 0


def _write(path: Path, text: str) -> None:
    """Write a new private file; refuses to overwrite one: an identity lost is every backup lost."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists already; nothing was written", op="keygen", hint="name another file with --output"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}",
            op="keygen",
            hint="name a file in an existing folder with --output",
        ) from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
