"""Age keys that are missing or wrong: what needs none works, what needs one says so and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import MakeSite, new_key
from tests.support.drd_site import Site
from tests.support.trading_site import REDIS, BackedUp, Targets

pytestmark = pytest.mark.e2e

KEYLESS = (("list",), ("status",), ("verify",), ("show", "ID"), ("runbook", "ID"), ("config", "show"))


@pytest.fixture
def identity(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str] | None:
    """Give ``encryption.identity`` as the test wants it: absent, a file that is not there, or another's."""
    if request.param == "none":
        return None
    if request.param == "other":
        new_key(tmp_path / "other")
    return {"file": str(tmp_path / "other" / "identity.txt")}


def with_identity(site: Site, identity: dict[str, str] | None) -> Site:
    """Configure this identity, or none."""
    site.config["encryption"] = {"recipients": site.config["encryption"]["recipients"]}
    if identity:
        site.config["encryption"]["identity"] = identity
    return site


@pytest.mark.parametrize(
    ("identity", "said", "hint"),
    [
        ("none", "no identity is configured", "encryption.identity"),
        ("missing", "encryption.identity: cannot read", "make that file"),
        ("other", "this backup is encrypted to", "encryption.identity"),
    ],
    indirect=["identity"],
)
def test_no_usable_identity(
    copied: Site, targets: Targets, identity: dict[str, str] | None, said: str, hint: str
) -> None:
    """Restore, export and deep verification are exit 2, say why, and change nothing."""
    site = with_identity(copied, identity)
    before = targets.state(REDIS)
    restore = ("restore", "--at", "now", "--source", REDIS, "--into")
    site("verify", REDIS, "--deep").fails(2, said, hint=hint)
    site(*restore, targets.url(REDIS)).fails(2, said, hint=hint)
    site(*restore, str(site.folder / "files")).fails(2, said, hint=hint)
    assert targets.state(REDIS) == before
    assert not (site.folder / "files" / REDIS).exists()


@pytest.mark.parametrize("identity", ["missing"], indirect=True)
def test_what_needs_no_identity(copied: Site, backed_up: BackedUp, identity: dict[str, str]) -> None:
    """Backing up and looking work on a host that has no identity, though the configuration names one."""
    site = with_identity(copied, identity)
    site("backup", "now", REDIS).succeeds()
    for verb in KEYLESS:
        site(*(backed_up.ids[REDIS] if word == "ID" else word for word in verb)).succeeds()


def test_check_says_that_the_keys_do_not_match(copied: Site, tmp_path: Path) -> None:
    """An identity that cannot open what is written now is found before it is needed."""
    new_key(tmp_path / "other")
    site = with_identity(copied, {"file": str(tmp_path / "other" / "identity.txt")})
    run = site("check", REDIS, "--json")
    assert run.rc == 2, run.described
    item = next(item for item in run.json["items"] if item["name"] == "identity")
    assert (item["outcome"], bool(item["hint"])) == ("failed", True)


def test_identity_that_is_none(copied: Site) -> None:
    """A file without an identity in it is exit 2 and is not quoted."""
    path = copied.folder / "notes.txt"
    path.write_text("AGE-SECRET-KEY-1NOTREALLY\n")
    copied.secrets.add("AGE-SECRET-KEY-1NOTREALLY")
    with_identity(copied, {"file": str(path)})
    copied("verify", REDIS, "--deep").fails(2, "identity")


def test_recipient_that_is_an_identity(make_site: MakeSite) -> None:
    """A secret key where its public half belongs is exit 2, and is not shown."""
    site = make_site(REDIS)
    site.config["encryption"]["recipients"] = [site.identity_file.read_text().strip()]
    site("list").fails(2, "encryption.recipients[0]", "secret")


def test_several_recipients(make_site: MakeSite, targets: Targets, tmp_path: Path) -> None:
    """What is encrypted to two can be restored with the second one's identity alone."""
    site = make_site(REDIS)
    second, _ = new_key(tmp_path / "second")
    site.config["encryption"]["recipients"].append(second)
    site("backup", "now").succeeds()
    site.config["encryption"]["identity"] = {"file": str(tmp_path / "second" / "identity.txt")}
    site("restore", "--at", "now", "--source", REDIS, "--into", targets.url(REDIS)).succeeds()
    assert targets.found(REDIS) == targets.expected(REDIS)
