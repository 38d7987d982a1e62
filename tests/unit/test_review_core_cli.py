"""The command line in awkward surroundings: readers that leave, closed streams, plain encodings, empty arguments."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drd.cli.backup import _print as print_report
from drd.cli.check import exit_code
from drd.cli.main import main
from drd.config import find_config_file
from drd.config_urls import mask_url
from drd.errors import ConfigError
from drd.model import CheckItem
from drd.ops.backup import BackupReport, SourceReport
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.stores.local import LocalStore
from tests.support.backups import store_backup

NEXT = "20261122T190000Z-abcdef"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Make a repository in a directory with one backup, and a configuration for it."""
    store = LocalStore(tmp_path / "store")
    Catalog(store).publish(store_backup(store, Codec(1), {"fingerprint.json": [b"{}"]}))
    (tmp_path / "drd.yaml").write_text("store: {type: local, path: store}\n")
    return tmp_path


def shell(site: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which ``drd`` is this drd."""
    drd = f'drd() {{ "{sys.executable}" -m drd "$@"; }}; '
    env = {**os.environ, "DRD_CONFIG": str(site / "drd.yaml"), **environment}
    return subprocess.run(
        ["bash", "-c", drd + script], capture_output=True, text=True, env=env, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("set -o pipefail; drd show zzzz --json | true", 10),
        ("set -o pipefail; drd show zzzz 2>&1 | true", 10),
        ("drd list --json >&-", 0),
        ("drd show zzzz --json <&- >&- 2>&-", 10),
    ],
)
def test_streams_that_nobody_reads_change_no_exit_code(site: Path, script: str, code: int) -> None:
    """A reader that left and closed streams bring no traceback, and an error keeps its exit code."""
    done = shell(site, script)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_plain_encoding_shows_marks_in_letters(site: Path) -> None:
    """Where the terminal knows no ✓, marks are words, and JSON is escaped instead of damaged."""
    done = shell(site, "drd verify; drd show zzzz; drd show zz…z --json", PYTHONIOENCODING="ascii")
    assert "ok src" in done.stdout
    assert "FAILED show zzzz: " in done.stderr
    document = json.loads(done.stdout[done.stdout.index("{") :])
    assert "zz…z" in document["error"]["message"]


def test_an_abbreviated_flag_is_refused(site: Path) -> None:
    """``--js`` is an error instead of a table where a document was asked for."""
    done = shell(site, "drd list --js")
    assert (done.returncode, done.stdout) == (2, "")


def test_an_empty_config_argument_is_no_other_file(tmp_path: Path) -> None:
    """``--config "$UNSET"`` is refused and does not fall through to the next place; an empty variable does."""
    (tmp_path / "drd.yaml").write_text("")
    with pytest.raises(ConfigError, match="''"):
        find_config_file("", {"DRD_CONFIG": str(tmp_path / "drd.yaml")})
    assert find_config_file(None, {"DRD_CONFIG": str(tmp_path / "drd.yaml")}) == tmp_path / "drd.yaml"


@pytest.mark.parametrize(
    "url", ["postgres//a:hunter2@h/x", "redis:/a:hunter2@h", "a@b:hunter2@h", "http://a:hunter2@h", "x a:hunter2@h"]
)
def test_a_malformed_url_shows_no_password(url: str) -> None:
    """Whatever is misspelt before it, what stands between a colon and the last @ is masked."""
    assert "hunter2" not in mask_url(url)


def test_verify_takes_the_end_of_an_id_and_refuses_nothing_at_all(site: Path) -> None:
    """An abbreviated id works as for other verbs; an empty place is exit 10 and not well; an unknown name is told."""
    assert shell(site, "drd verify k3f9qa").returncode == 0
    unknown = shell(site, "drd verify nowhere")
    assert unknown.returncode == 10
    assert "sources there: src" in unknown.stderr
    empty = shell(site, "drd verify", DRD_STORE__PATH=str(site / "mistyped"))
    assert empty.returncode == 10
    assert "no backup to verify" in empty.stderr


def test_the_printed_recovery_point_can_be_asked_for(site: Path) -> None:
    """A recovery point between two seconds is printed as the second that reaches it."""
    store = LocalStore(site / "store")
    at = datetime(2026, 11, 22, 19, 0, 0, 400_000, tzinfo=UTC)
    backup = store_backup(store, Codec(1), {"fingerprint.json": [b"{}"]}, backup_id="20261122T190000Z-abcdef")
    Catalog(store).publish(dataclasses.replace(backup, recovery_point=at))
    printed = shell(site, "drd list src").stdout.splitlines()[2].split("  ")[-1].strip()
    assert printed == "2026-11-22 19:00:01 UTC"
    planned = shell(site, f"drd restore --at '{printed}' --source src --into out --dry-run")
    assert "20261122T190000Z-abcdef" in planned.stdout


def test_the_time_that_status_names_reaches_every_source(site: Path) -> None:
    """Two sources backed up seconds apart: the command that ``status`` prints brings the newest backup of both."""
    config = site / "drd.yaml"
    redis = "{type: redis, url: 'redis://127.0.0.1:1'}"
    config.write_text(f"{config.read_text()}sources: {{src: {redis}, other: {redis}}}\n")
    store = LocalStore(site / "store")
    for hour, pairs in (("18", ("aaaaaa", "bbbbbb")), ("19", ("cccccc", "dddddd"))):
        for n, (source, letters) in enumerate(zip(("src", "other"), pairs, strict=True)):
            at = datetime(2026, 11, 22, int(hour), 0, 5 * n, 400_000, tzinfo=UTC)
            backup = store_backup(
                store,
                Codec(1),
                {"fingerprint.json": [b"{}"]},
                source=source,
                backup_id=f"20261122T{hour}0000Z-{letters}",
            )
            Catalog(store).publish(dataclasses.replace(backup, recovery_point=at))
    said = shell(site, "drd status").stdout
    assert "all 2 sources, to 2026-11-22 19:00:01 UTC" in said
    command = next(line.partition(" each: ")[2] for line in said.splitlines() if "the newest of each: " in line)
    assert command == 'drd restore --at "2026-11-22 19:00:06 UTC"'
    planned = shell(site, f"{command} --into out --dry-run").stdout
    assert "20261122T190000Z-cccccc" in planned
    assert "20261122T190000Z-dddddd" in planned


def test_the_time_that_a_backup_run_prints_reaches_every_source(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of recovery points seconds apart the latest is printed: the earliest would miss the others."""
    made = store_backup(LocalStore(site / "store"), Codec(1), {"fingerprint.json": [b"{}"]}, backup_id=NEXT)
    points = [datetime(2026, 11, 22, 19, 0, second, tzinfo=UTC) for second in (5, 0)]
    done = [dataclasses.replace(made, recovery_point=point) for point in points]
    print_report(BackupReport(points[1], 6.0, tuple(SourceReport("src", "redis", "ok", 1.0, one) for one in done)))
    assert "recovery point 2026-11-22 19:00:05 UTC (skew 5.0 s)" in capsys.readouterr().out


def test_a_file_in_the_place_of_the_store_is_no_empty_store(site: Path) -> None:
    """Listing says what is wrong instead of that there are no backups yet."""
    done = shell(site, "drd list", DRD_STORE__PATH=str(site / "drd.yaml"))
    assert done.returncode == 12
    assert "Not a directory" in done.stderr


@pytest.mark.parametrize("scale", ["nan", "inf", "-1", "0", "x"])
def test_a_demo_of_no_size_is_refused(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A scale that is no positive number is a usage error, before any server is started."""
    assert main(["demo", f"--scale={scale}"]) == 2
    assert "above 0" in capsys.readouterr().err


def test_a_source_whose_name_begins_like_the_store_is_a_source() -> None:
    """A failing check of the source ``storefront`` is exit 13, not 12."""
    assert exit_code((CheckItem("storefront: server", "failed", ""),)) == 13
    assert exit_code((CheckItem("store: write", "failed", ""),)) == 12
