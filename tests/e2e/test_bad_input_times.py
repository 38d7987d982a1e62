"""``--at``: before the first backup, without a zone, in the future, nonsense; never later than asked, never latest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.drd_site import Site
from tests.support.trading_site import REDIS, SOURCES, BackedUp, Targets

pytestmark = pytest.mark.e2e


@pytest.fixture
def site(backed_up: BackedUp, targets: Targets, tmp_path: object) -> Site:
    """Give a site over the shared store whose sources are the empty targets."""
    return backed_up.site.at(tmp_path, sources=targets.sources())  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", [[], ["--dry-run"], ["--source", REDIS, "--into", "files"]])
def test_before_the_first_backup(site: Site, backed_up: BackedUp, targets: Targets, verb: list[str]) -> None:
    """Exit 10 with the recoverable window of each source; nothing is restored, above all not the latest."""
    before = {source: targets.state(source) for source in SOURCES}
    run = site("restore", "--at", "2020-01-01T00:00:00Z", *verb)
    failure = run.fails(10, "2020-01-01 00:00:00 UTC", hint="drd list")
    for source in [REDIS] if verb[1:] else SOURCES:
        point = datetime.fromisoformat(backed_up.recovery_point(source)) + timedelta(microseconds=999_999)
        assert f"{source} cannot be restored" in failure.headline
        assert f"recoverable from {point:%Y-%m-%d %H:%M:%S} UTC" in failure.headline
    assert {source: targets.state(source) for source in SOURCES} == before
    assert not (site.folder / "files").exists()


def test_the_window_in_json(site: Site) -> None:
    """The same facts for machines, and one document alone on standard output."""
    error = site("restore", "--at", "2020-01-01T00:00:00Z", "--source", REDIS, "--json").json["error"]
    assert (error["code"], error["exit_code"], error["op"]) == ("no_recovery_path", 10, "restore")
    assert "recoverable from" in error["message"]


def test_the_microsecond_before(site: Site, backed_up: BackedUp) -> None:
    """A microsecond before the recovery point is too early; the recovery point itself is in reach."""
    point = datetime.fromisoformat(backed_up.recovery_point(REDIS))
    early = (point - timedelta(microseconds=1)).isoformat()
    site("restore", "--at", early, "--source", REDIS, "--dry-run").fails(10, "cannot be restored")
    run = site("restore", "--at", point.isoformat(), "--source", REDIS, "--dry-run", "--json").succeeds()
    assert run.json["restores"][0]["gap_s"] == 0


def test_without_a_zone(site: Site) -> None:
    """A time without a zone is taken as UTC, and that is said in every form of the command."""
    now = datetime.now(UTC)
    naive = f"{now:%Y-%m-%d %H:%M:%S}"
    for more in ([], ["--json"]):
        run = site("restore", "--at", naive, "--source", REDIS, "--dry-run", *more).succeeds()
        assert f"--at names no zone and is taken as UTC: {naive} UTC" in run.err, run.described
    zoned = site("restore", "--at", f"{naive}Z", "--source", REDIS, "--dry-run").succeeds()
    assert "zone" not in zoned.text
    refused = site("restore", "--at", "2020-01-01", "--source", REDIS)
    refused.fails(10, "2020-01-01 00:00:00 UTC")
    assert "taken as UTC" in refused.err


def test_in_the_future(site: Site) -> None:
    """A time in the future is exit 2, says what time it is, and says that the zone was guessed if it was."""
    ahead = datetime.now(UTC) + timedelta(hours=2)
    site("restore", "--at", f"{ahead:%Y-%m-%dT%H:%M:%SZ}").fails(2, "is in the future; it is", hint="now")
    site("restore", "--at", f"{ahead:%Y-%m-%dT%H:%M:%S}").fails(2, "is in the future (no zone was given")


@pytest.mark.parametrize("text", ["nonsense", "2026-02-30 10:00", ""])
def test_nonsense(site: Site, text: str) -> None:
    """What is no time is exit 2, quoted, with examples of what is."""
    site("restore", "--at", text).fails(2, "restore --at: ", repr(text), hint="2h ago")


def test_no_time_at_all(site: Site) -> None:
    """Restore without ``--at`` is a usage error: there is no default time."""
    site("restore").fails(2, "--at", hint="drd restore --at now --dry-run")


@pytest.mark.parametrize("text", ["1s ago", "yesterday 03:00"])
def test_words_for_times(site: Site, text: str) -> None:
    """The words people use are understood; none of them reaches past what was asked."""
    run = site("restore", "--at", text, "--source", REDIS, "--dry-run", "--json")
    if text == "1s ago":
        found = run.succeeds().json
        assert found["restores"][0]["recovery_point"] <= found["at"]
    else:
        assert run.rc == 10, run.described
