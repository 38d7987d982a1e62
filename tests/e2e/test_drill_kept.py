"""What a person has of a drill besides its verdict: a server to look into, and evidence to check with stock tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeDrill, MakeSite, write_suite
from tests.support.drd_site import Run, Site
from tests.support.drill_site import ONE, TRADING_SUITE, Runtime, details, judged, outcomes, settings_of, with_drills
from tests.support.trading_site import CLICKHOUSE, POSTGRES, REDIS, SOURCES, Platform, chain_of_numbers

ASK = {
    POSTGRES: (r"(PGPASSWORD=.* psql .*)", ' --tuples-only --command "SELECT count(*) FROM users"', r"\d+"),
    REDIS: (r"(REDISCLI_AUTH=.* redis-cli .*)", " --scan --pattern 'quote:*'", "quote:"),
    CLICKHOUSE: (r"(curl .*)", "", "market_data"),
}


def shell(command: str) -> str:
    """Run what a person would paste; return what it says."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr


def test_a_kept_server_is_reached_as_printed_and_goes_as_documented(make_drill: MakeDrill, runtime: Runtime) -> None:
    """``--keep``: every command that is printed connects to the restored data; ``drd drill clean`` ends all of it."""
    site = runtime.use(make_drill(REDIS), sources=list(SOURCES))
    if runtime.name == "docker":
        settings_of(site)["sources"] = [REDIS, POSTGRES]
    run: Run = site("drill", "now", "--keep").succeeds()
    assert run.out.count("kept for a day") == len(settings_of(site)["sources"])
    for source in settings_of(site)["sources"]:
        printed, more, expected = ASK[source]
        (command,) = re.findall(printed, run.out)
        assert re.search(expected, shell(command + more)), (command, shell(command + more))
    kept = runtime.left()
    judged(site, "passed", 0, "--backup", str(site("list", REDIS, "--json").json["backups"][0]["id"]))
    assert set(runtime.left()) == set(kept), "another drill left them alone"
    assert "sooner gone with: drd drill clean" in run.out
    removed = site("drill", "clean", "--json").succeeds().json["removed"]
    names = {Path(name).name for name in kept if "drd-scratch-" in name}
    assert all(any(name in line for line in removed) for name in names), (names, removed)
    assert runtime.left() == []
    assert "nothing was left" in site("drill", "clean").succeeds().out


def test_a_chain_is_proven_from_end_to_end(make_site: MakeSite, platform: Platform, scratch_root: Path) -> None:
    """``longest-chain`` takes the backup on most ancestors, though a newer full one is there, and proves all of it."""
    site = make_site(CLICKHOUSE)
    kinds = ["full", "incremental", "incremental", "full"]
    database, ids = chain_of_numbers(site, platform.clickhouse, kinds, rows=200_000)
    count = {"name": "rows of three backups", "sql": f"SELECT count() FROM {database}.t", "equals": 600_000}
    suite = write_suite(site, CLICKHOUSE, count)
    with_drills(site, scratch_root, **{ONE: {"select": ["longest-chain"], "suite": suite, "runtime": "process"}})
    run = judged(site, "passed", 0)
    assert (run["backup"], run["chain"]) == (ids[2], ids[:2])
    assert outcomes(run)["rows of three backups"] == "passed"
    assert "1 of 4 backups proven" in site("drill", "list").succeeds().out


def test_a_table_that_was_dropped_before_the_backup(
    make_site: MakeSite, platform: Platform, scratch_root: Path
) -> None:
    """The backup is whole and equal to what was there; that a table was gone already is the suite's to notice."""
    database = platform.postgres.fresh_database()
    try:
        with platform.postgres.connect(database) as session:
            session.execute("CREATE TABLE orders (id int); CREATE TABLE users (id int); INSERT INTO users VALUES (1)")
            session.execute("DROP TABLE users")
        site = make_site(POSTGRES)
        site.sources[POSTGRES]["url"] = platform.postgres.url(database)
        site("backup", "now").succeeds()
    finally:
        platform.postgres.drop_database(database)
    suite = write_suite(site, POSTGRES, {"name": "users", "sql": "SELECT count(*) FROM users", "at_least": 1})
    with_drills(site, scratch_root, **{ONE: {"suite": suite, "runtime": "process"}})
    run = judged(site, "failed", 21)
    assert {name for name, outcome in outcomes(run).items() if outcome != "passed"} == {"users"}
    assert 'relation "users" does not exist' in details(run)


@pytest.fixture
def signing_site(make_drill: MakeDrill) -> Site:
    """Give a site with one drill, whose reports are signed with a key that ``drd keygen --signing`` made."""
    site = make_drill(REDIS)
    made = site("keygen", "--signing", "--output", "drd-signing-key.pem", "--json").succeeds().json
    site.config["signing"] = {
        "private_key": {"file": str(site.folder / "drd-signing-key.pem")},
        "public_keys": [made["public_key"]],
        "accept_unsigned_before": "2999-01-01T00:00:00Z",
    }
    return site


def test_openssl_verifies_a_report(signing_site: Site) -> None:
    """The documented commands, run as they stand in docs/drills.md, accept the report and refuse a changed one."""
    run = judged(signing_site, "passed", 0)["run"]
    text = (Path(__file__).parents[2] / "docs" / "drills.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (openssl .*)$", text, re.MULTILINE)
    assert len(commands) == 2, "one that writes the public key, one that verifies"
    for name in (f"{run}.json", f"{run}.json.sig"):
        content = (signing_site.store_dir / "drills" / ONE / name).read_bytes()
        (signing_site.folder / name).write_bytes(content)
    script = "\n".join([f"cd {signing_site.folder}", *commands]).replace("RUN", run)
    assert "Signature Verified Successfully" in shell(script)
    report = signing_site.folder / f"{run}.json"
    report.write_bytes(report.read_bytes().replace(b'"passed"', b'"failed"', 1))
    assert "Signature Verification Failure" in shell(script)


def test_reports_that_somebody_planted_prove_nothing(signing_site: Site) -> None:
    """A forged or unsigned report of a drill that passed proves nothing: not in status, not in list, not to prune."""
    first = judged(signing_site, "passed", 0)
    folder = signing_site.store_dir / "drills" / ONE
    genuine = (folder / f"{first['run']}.json").read_text()
    for path in folder.iterdir():
        path.unlink()
    assert "Proven by a drill" not in signing_site("status").succeeds().out
    forged = f"2099{first['run'][4:]}"
    (folder / f"{forged}.json").write_text(genuine.replace(first["run"], forged))
    (folder / f"{forged}.json.sig").write_bytes(b"x" * 64)
    (folder / "20990102T000000Z-aaaaaa.json").write_text("[" * 100_000)
    (folder / "20990103T000000Z-aaaaaa.json").write_bytes(b"\xff\x00" * 3_000_000)
    assert "Proven by a drill" not in signing_site("status").succeeds().out
    listed = signing_site("drill", "list", "--json").succeeds().json
    assert {line["source"]: line["proven"] for line in listed["coverage"]}[REDIS] == []
    assert "0 of 1 backup proven" in signing_site("drill", "list").succeeds().out
    assert "signed by nobody that is known here" in signing_site("drill", "show", forged).succeeds().out
    assert "20990102" in signing_site("drill", "list").out
    kept = signing_site("prune", "--json").succeeds().json["keep"]
    assert not any("proven" in " ".join(item["reasons"]) for item in kept)


def test_what_is_needed_is_checked_beforehand(make_drill: MakeDrill, docker_host: str) -> None:
    """``drd check`` tells of runtimes and suites; ``config validate`` opens each suite and says what is wrong there."""
    site = make_drill(REDIS)
    site.env |= {"NOBODY_SETS_THIS": "said for once"}
    site.config["drills"] = {
        "good": {"suite": str(TRADING_SUITE), "runtime": "process"},
        "boxed": {"runtime": "docker"},
    }
    site.config["scratch"]["docker"] = {"host": "unix:///nowhere/docker.sock"}
    items = {item["name"]: item for item in site("check", "--json").json["items"]}
    assert items["drill good"]["outcome"] == items["scratch process redis"]["outcome"] == "ok"
    assert items["scratch docker"]["outcome"] == "failed"
    assert "unix:///nowhere/docker.sock" in items["scratch docker"]["detail"]
    site.config["scratch"]["docker"] = {"host": docker_host}
    assert {i["name"]: i["outcome"] for i in site("check", "--json").json["items"]}["scratch docker"] == "ok"
    site("config", "validate").succeeds()
    bad = site.folder / "bad.yaml"
    bad.write_text("version: 1\nsources: {trading-redis: [{name: a, keys: '*', at_leest: 1}, {name: b, sql: x}]}\n")
    site.config["drills"]["good"]["suite"] = str(bad)
    failure = site("config", "validate").fails(2)
    said = failure.headline + failure.hint
    for words in (
        "drills.good.suite",
        str(bad),
        "trading-redis[0].at_leest",
        "at_least",
        "[1]",
        "exactly one of",
    ):
        assert words in said, said
    assert "at_leest" in site("check", "--json").out
