"""compose.yaml, brought up by Docker Compose on a real engine: what stands in it works together, as shipped.

drd is the image built here; of the rest, what no registry gives is a stand-in around the real programs of this machine
(:mod:`tests.support.compose_stack`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.compose_stack import ComposeStack, until
from tests.support.services import present

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]  # a first build fetches packages

SOURCES = ["market-data", "trading-postgres", "trading-redis"]
ONCE = "s3-bucket"
DRD, PROMETHEUS, ALERTMANAGER, MAIL, CLICKHOUSE = 8088, 9090, 9093, 8025, 8123
ROWS = 1000


@pytest.fixture(scope="module")
def stack(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """Give all of it, up, with data in each database and a backup of each; ``down -v`` leaves nothing."""
    from devstack.drd_image import drd_image

    with present():
        made = ComposeStack(tmp_path_factory.mktemp("compose-stack"), docker_host, drd_image(docker_host))
    try:
        made.compose("up", "--detach")
        fill(made)
        made.drd("backup", "now")
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "3")
    assert made.left() == ""


def fill(stack: ComposeStack) -> None:
    """Put data into each database."""
    sql = f"CREATE TABLE orders AS SELECT n AS id, n::text AS note FROM generate_series(1, {ROWS}) AS n"
    stack.compose("exec", "-T", "postgres", "psql", "-U", "admin", "-d", "trading_platform", "-c", sql)
    redis(stack, "\n".join(f"SET key:{number} {number}" for number in range(ROWS)))
    clickhouse(
        stack,
        f"CREATE TABLE market_data.ticks ENGINE = MergeTree ORDER BY id AS SELECT number AS id FROM numbers({ROWS})",
    )


def redis(stack: ComposeStack, commands: str) -> str:
    """Run commands of Redis in its container, which has the password."""
    script = 'REDISCLI_AUTH="$(cat /run/secrets/redis-password)" redis-cli'
    return stack.compose("exec", "-T", "redis", "sh", "-c", script, given=commands)


def clickhouse(stack: ComposeStack, sql: str) -> str:
    """Run a statement at ClickHouse's published port."""
    said = stack.get(CLICKHOUSE, "/", user="admin", password=stack.secret("clickhouse-password"), data=sql)
    assert isinstance(said, str), said
    return said.strip()


def rows(stack: ComposeStack) -> list[int]:
    """Count what is in each database."""
    counted = stack.compose(
        *("exec", "-T", "postgres", "psql", "-U", "admin", "-d", "trading_platform", "-Atc"),
        "SELECT count(*) FROM orders",
    )
    return [int(counted), int(redis(stack, "DBSIZE")), int(clickhouse(stack, "SELECT count() FROM market_data.ticks"))]


def ready(stack: ComposeStack) -> bool:
    """Whether drd says that it is ready, with all that this takes."""
    found = stack.get(DRD, "/readyz")
    return bool(found) and found["ready"] is True


def metric(stack: ComposeStack, query: str) -> list[dict[str, str]]:
    """Return the labels of what Prometheus finds for a query."""
    found = stack.get(PROMETHEUS, f"/api/v1/query?query={query}")
    return [one["metric"] for one in found["data"]["result"]] if found else []


def test_everything_is_healthy_and_drd_ready(stack: ComposeStack) -> None:
    """Each service's own health check passes, the bucket is made, drd is ready and asks for its token."""
    assert stack.absent in ([], ["grafana"])

    def healthy() -> bool:
        found = stack.containers()
        assert found.pop(ONCE) == ("exited", "")
        assert set(found) >= {"postgres", "redis", "clickhouse", "s3", "drd", "prometheus", "alertmanager", "mail"}
        return set(found.values()) == {("running", "healthy")}

    until(healthy, "health")
    until(lambda: ready(stack), "readiness")
    assert stack.status(DRD, "/") == 401
    assert "Could we recover now?" in stack.get(DRD, "/", user="any", password=stack.secret("drd-token"))


def test_every_database_is_in_the_store(stack: ComposeStack) -> None:
    """The command that the page prints shows all three recoverable, from encrypted parts in the S3 service."""
    document = json.loads(stack.drd("status", "--json"))
    assert sorted(line["source"] for line in document["sources"]) == SOURCES
    assert all(line["newest"] for line in document["sources"])
    objects = stack.compose("exec", "-T", "s3", "sh", "-c", "echo 'fs.tree /buckets/drd-backups' | weed shell")
    assert objects.count("manifest.json") >= len(SOURCES)
    assert ".age" in objects


def test_what_is_lost_is_restored(stack: ComposeStack) -> None:
    """A dry run plans it; then each database, emptied, is what it was: through the names on compose's network."""
    assert rows(stack) == [ROWS] * 3
    planned = stack.drd("restore", "--at", "now", "--dry-run")
    assert all(source in planned for source in SOURCES)
    psql = ("exec", "-T", "postgres", "psql", "-U", "admin", "-d", "trading_platform", "-c")
    stack.compose(*psql, "DROP TABLE orders")
    redis(stack, "FLUSHALL")
    clickhouse(stack, "DROP TABLE market_data.ticks SYNC")
    stack.drd("restore", "--at", "now")
    assert rows(stack) == [ROWS] * 3


def test_a_drill_is_mailed(stack: ComposeStack) -> None:
    """The drill that drd.yaml configures passes, and its report goes by Alertmanager to the mailbox."""
    document = json.loads(stack.drd("drill", "now", "--json"))
    assert [(run["source"], run["verdict"]) for run in document["runs"]] == [("trading-redis", "passed")]

    def report() -> str:
        mails = stack.get(MAIL, "/api/v1/messages")
        return next((mail["ID"] for mail in mails["messages"] if "drill nightly passed" in mail["Subject"]), "")

    mail = stack.get(MAIL, f"/api/v1/message/{until(report, 'mail')}")
    assert mail["To"][0]["Address"] == "ops@example.net"
    assert "trading-redis" in mail["Text"]
    assert "trading-redis" in mail["HTML"]


def test_prometheus_watches_and_tells_alertmanager(stack: ComposeStack) -> None:
    """It scrapes drd with its token, evaluates every rule, and what fires arrives at Alertmanager."""

    def scraped() -> bool:
        found = stack.get(PROMETHEUS, "/api/v1/targets")
        targets = found["data"]["activeTargets"] if found else []
        return {one["labels"]["job"]: one["health"] for one in targets} == {"drd": "up", "prometheus": "up"}

    def told() -> bool:
        alerts = [alert["labels"] for alert in stack.get(ALERTMANAGER, "/api/v2/alerts") or []]
        return any((one["alertname"], one["site"]) == ("DrdWatchdog", "compose") for one in alerts)

    until(scraped, "scrape")
    until(lambda: {one["source"] for one in metric(stack, "drd_backups")} == set(SOURCES), "metric of every backup")
    rules = [rule for group in stack.get(PROMETHEUS, "/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    assert len(rules) >= 30
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    until(told, "alert", timeout_s=120)  # an alert is sent again after a minute


def test_nothing_is_lost_by_stop_and_start(stack: ComposeStack) -> None:
    """All of it stopped in a hurry and started again: the databases, the backups, the history are there."""
    listed = [backup["id"] for backup in json.loads(stack.drd("list", "--json"))["backups"]]
    stack.compose("stop", "--timeout", "3")
    assert {state for state, _ in stack.containers().values()} == {"exited"}
    stack.compose("start")
    assert rows(stack) == [ROWS] * 3
    after = [backup["id"] for backup in json.loads(stack.drd("list", "--json"))["backups"]]
    assert set(listed) <= set(after)
    until(lambda: ready(stack), "readiness")
