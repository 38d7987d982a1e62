"""``drd verify``: are the stored bytes right?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, measuring, render, telling
from drd.cli.session import Session
from drd.errors import ConfigError, IntegrityError, PartialError

if TYPE_CHECKING:  # pulls in the repository
    from drd.ops.sampling import Budget
    from drd.ops.verify import VerifyReport


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "verify",
        help="verify stored backups",
        parents=[common],
        description="Check that every object a backup needs is there and of the right size (exit 20 when not).",
    )
    parser.add_argument("names", nargs="*", metavar="BACKUP|SOURCE", help="what to verify (everything)")
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read every byte: digests, decryption, decompression, and the database's own format",
    )
    parser.add_argument(
        "--sample",
        metavar="AMOUNT",
        help="also read a share (5%%), a size (10GiB) or for a time (15m), least recently read first; "
        "run after run everything is read, and the store remembers what was",
    )
    measuring.add(parser, "verify")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Verify and print; exit 20 on any problem, 3 where some backups could not be opened."""
    from drd.ops.verify import verify

    if args.sample and args.deep:
        raise ConfigError("--deep reads everything already", op="verify", hint="leave out --sample")
    sample = _budget(args.sample) if args.sample else None
    with session.show_progress("verify"):
        report = verify(session.services.ports, args.names, deep=args.deep, sample=sample)
    telling.verified(session, report)
    code = {"ok": 0, "damaged": IntegrityError.exit_code, "partial": PartialError.exit_code}[report.outcome]
    if session.as_json:
        documents.emit(documents.verify_report(report))
    else:
        _print(report)
    return code


def _budget(text: str) -> Budget:
    """Return what ``5%``, ``10GiB`` or ``15m`` means; raises ConfigError for anything else."""
    from drd.config_values import parse_amount
    from drd.ops.sampling import Budget

    try:
        kind, amount = parse_amount(text)
    except ValueError:
        pass
    else:
        if kind == "bytes":
            return Budget(bytes=int(amount))
        return Budget(share=amount) if kind == "share" else Budget(seconds=amount)
    raise ConfigError(
        f"--sample {text!r} is no amount",
        op="verify",
        hint="a share such as 5%, a size such as 10GiB, or a time such as 15m",
    )


def _print(report: VerifyReport) -> None:
    from drd.ops.coverage import coverage_words

    for item in report.backups:
        print(f"{render.mark('warning' if item.sealed else item.outcome)} {item.source}  {item.id}")
        if item.sealed:
            print(f"    not read, there and of the right size: {item.sealed.message}")
        for problem in item.problems:
            print(f"    {problem.subject}: {problem.message.removeprefix(f'{problem.subject} ')}")
            if problem.effect:
                print(f"    → {problem.effect}")
    for left in report.leftovers:
        held = f"{render.plural(left.objects, 'object')}, {render.size(left.bytes)}"
        what = "unfinished or running" if left.may_run else "unfinished; the next backup or drd prune --apply sweeps it"
        print(f"{render.mark('warning')} {left.source}: {left.id} is no backup but {what} ({held})")
    for notice in report.notices:
        print(f"{render.mark('warning')} {notice.message}")
    for covered in report.coverage:
        if report.deep or report.sample:
            print(f"  {covered.source}: {coverage_words(covered)}")
    bad = sum(item.outcome != "ok" for item in report.backups)
    how = "every byte read" if report.deep else "presence and sizes; read everything with --deep"
    if any(item.sealed for item in report.backups):
        how = "every byte read of those that an identity here opens"
    if report.sample:
        read = f"{render.plural(report.sample.objects, 'object')}, {render.size(report.sample.bytes)}"
        how = f"presence and sizes; {read} read"
    good = len(report.backups) - bad
    mark = render.mark("warning" if report.outcome == "partial" else report.outcome)
    print(f"{mark} {good} of {render.plural(len(report.backups), 'backup')} verified ({how})")
