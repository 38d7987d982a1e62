"""What people read: help of every verb, the answer first, ids that may be shortened, no colour in a pipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.drd_site import Site
from tests.support.trading_site import POSTGRES, REDIS, SOURCES, BackedUp

pytestmark = pytest.mark.e2e

VERBS = ("backup", "backup now", "restore", "list", "show", "verify", "check", "status", "runbook", "keygen", "config")


@pytest.fixture
def site(backed_up: BackedUp, tmp_path: Path) -> Site:
    """Give a site over the shared store, which it only reads."""
    return backed_up.site.at(tmp_path)


def test_help_of_every_verb(tmp_path: Path) -> None:
    """``drd --help`` names every verb and the exit codes; each verb explains itself, without a configuration."""
    site = Site(tmp_path, {}, env={}, secrets=[])
    top = site("--help", write_config=False).succeeds()
    for verb in VERBS:
        assert verb.split()[0] in top.out
    assert "14 target not empty" in re.sub(r"\s+", " ", top.out)
    for verb in VERBS:
        run = site(*verb.split(), "--help", write_config=False).succeeds()
        assert run.out.startswith(f"usage: drd {verb}"), run.described
        assert "--json" in run.out
        assert run.err == ""
    assert re.fullmatch(r"drd \d+\.\d+\.\d+\S*\n", site("--version", write_config=False).succeeds().out)


def test_list(site: Site, backed_up: BackedUp) -> None:
    """``list``: a row a backup, a trend a source, no escape sequence in a pipe."""
    run = site("list").succeeds()
    for source, backup_id in backed_up.ids.items():
        assert re.search(rf"^  {source} +{backup_id}  full ", run.out, re.MULTILINE), run.described
        assert re.search(rf"^  {source} +█  1 backup$", run.out, re.MULTILINE), run.described
    assert "\x1b" not in run.text
    assert run.err == ""


def test_difference_of_two_backups(copied: Site, backed_up: BackedUp) -> None:
    """``show --diff`` reads the encrypted fingerprints of both, and finds nothing where nothing changed."""
    line = copied("backup", "now", REDIS, "--json").succeeds().json["backups"][0]
    assert "0 differences" in copied("show", "--diff", backed_up.ids[REDIS], line["id"]).succeeds().out
    assert "=" in copied("list", REDIS).succeeds().out.splitlines()[2].split()


def test_nothing_there_yet(site: Site, tmp_path: Path) -> None:
    """Before the first backup, or with the disk not mounted: every verb says so and what to type next."""
    site.config["store"]["path"] = str(tmp_path / "empty")
    answer = site("status").succeeds().out
    assert "Recoverable now: NO" in answer
    assert "drd backup now" in answer
    assert f"no drd repository in this store: drd.json does not exist in {tmp_path / 'empty'}" in answer
    for verb in (("list",), ("prune",), ("restore", "--at", "now")):
        site(*verb).fails(10, "there is no drd repository in this store", hint="mounted")
    site("verify").fails(10, "no backup", hint="drd backup now")


def test_show_takes_abbreviations(site: Site, backed_up: BackedUp) -> None:
    """An id may be shortened to its end or an unambiguous beginning; an ambiguous one lists what it could be."""
    full = backed_up.ids[POSTGRES]
    assert site("show", full[-6:]).succeeds().out.startswith(f"{full}\n")
    assert site("show", full[:-3]).succeeds().out.startswith(f"{full}\n")
    site("show", full[:8]).fails(10, "means several backups", full, hint="more of the id")
    site("show", "zzzzzz").fails(10, "no backup has the id 'zzzzzz'", hint="drd list")
    text = site("show", full).succeeds().out
    assert f"drd restore --at {backed_up.recovery_point(POSTGRES)} --source {POSTGRES}" in text


def test_status(site: Site) -> None:
    """``status`` answers the one question first, then by source; a missed objective names the remedy."""
    run = site("status").succeeds()
    assert run.out.startswith("Recoverable now: yes, all 3 sources, to ")
    for source in SOURCES:
        assert f"  {source} " in run.out
    site.sources[REDIS]["rpo"] = "1s"
    late = site("status").succeeds().out
    assert "✗ 1.0 s" in late
    assert f"{REDIS} is past its RPO" in late
    assert f"drd backup now {REDIS}" in late
    del site.sources[REDIS]
    assert f"{REDIS} is in the store but not in the configuration" in site("status").succeeds().out


def test_check(site: Site) -> None:
    """``check``: a mark and a line an item, and a sum at the end."""
    run = site("check", POSTGRES).succeeds()
    lines = run.out.splitlines()
    assert all(line[0] in "✓!" or line.startswith("  ") for line in lines), run.described
    assert re.fullmatch(r"[✓!] \d+ items: 0 failed, \d+ warnings?", lines[-1]), run.described


def test_verify_names_what_it_did(site: Site, backed_up: BackedUp) -> None:
    """``verify`` takes sources and ids, says how it looked, and how to look closer."""
    run = site("verify", REDIS, backed_up.ids[POSTGRES][-6:]).succeeds()
    assert "2 of 2 backups verified (presence and sizes; read everything with --deep)" in run.out
    site("verify", "nosuch").fails(10, "nosuch", hint="sources there")
