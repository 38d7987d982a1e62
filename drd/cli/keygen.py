"""``drd keygen``: make an age key pair for encrypted backups."""

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
        help="make an age key pair",
        parents=[common],
        description="Write a new age identity to a file that only its owner can read, and print its recipient.",
    )
    parser.add_argument("--output", metavar="FILE", default="drd-identity.txt", help="file to write (drd-identity.txt)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Write the identity; refuses to overwrite a file: an identity lost is every backup lost."""
    from drd.repository.codec import generate_identity

    identity, recipient = generate_identity()
    path = Path(args.output)
    about = "# age identity of drd; keep it off the backup host and print a copy"
    text = f"{about}\n# public key: {recipient}\n{identity.reveal()}\n"
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
    if session.as_json:
        documents.emit({"recipient": recipient, "identity_file": str(path)})
    else:
        print(
            f"Identity written to {path} (mode 600). Without it no encrypted backup can be read: keep a copy elsewhere."
        )
        print(f"encryption: {{recipients: [{recipient}], identity: {{file: {path}}}}}")
    return 0
