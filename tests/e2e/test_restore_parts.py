"""``restore --tables / --schema / --database / --keys``: a part of one source, into a target of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import MakeSite
from tests.support.drd_site import Site
from tests.support.trading_site import CLICKHOUSE, POSTGRES, REDIS, RESTORED_DATABASE, BackedUp, Platform, Targets

pytestmark = pytest.mark.e2e

AWKWARD = """
CREATE SCHEMA "Größe";
CREATE TYPE "Größe".mood AS ENUM ('up', 'down');
CREATE FUNCTION "Größe".touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); RETURN NEW; END $$;
CREATE TABLE "Größe"."Day's" (id serial PRIMARY KEY, mood "Größe".mood, at timestamptz DEFAULT now());
CREATE TRIGGER touch BEFORE UPDATE ON "Größe"."Day's" FOR EACH ROW EXECUTE FUNCTION "Größe".touched();
INSERT INTO "Größe"."Day's" (mood) SELECT 'up' FROM generate_series(1, 7);
COMMENT ON TABLE "Größe"."Day's" IS 'kept';
CREATE TABLE public.events (at date, n int) PARTITION BY RANGE (at);
CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO public.events SELECT date '2026-01-15' + n, n FROM generate_series(1, 30) n;
CREATE VIEW public.latest AS SELECT max(at) AS at FROM public.events;
CREATE TABLE public.other (id int PRIMARY KEY);
CREATE TABLE public.child (id int REFERENCES public.other, day int REFERENCES "Größe"."Day's");
SELECT lo_from_bytea(0, 'large');
"""


@pytest.fixture
def site(backed_up: BackedUp, tmp_path: Path) -> Site:
    """Give a site over the shared store, which it only reads."""
    return backed_up.site.at(tmp_path)


def into(targets: Targets, source: str, *part: str) -> tuple[str, ...]:
    return ("restore", "--at", "now", "--source", source, "--into", targets.url(source), *part)


def test_tables_of_postgres(platform: Platform, site: Site, targets: Targets) -> None:
    """Two tables come with rows, keys and indexes, compared with the fingerprint; a key to a third is left out."""
    run = site(*into(targets, POSTGRES, "--tables", "orders", "--tables", "public.strat*")).succeeds()
    assert "left out" in run.out
    assert "orders_user_id_fkey" in run.out
    expected = targets.expected(POSTGRES)
    assert targets.found(POSTGRES) == {name: expected[name] for name in ("orders", "strategies")}
    query = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'orders'"
    with platform.postgres.connect(RESTORED_DATABASE) as there, platform.postgres.connect("trading_platform") as here:
        assert there.execute(query).fetchone() == here.execute(query).fetchone()


def test_foreign_keys_within_the_part(site: Site, platform: Platform, targets: Targets) -> None:
    """A foreign key between two tables that both come is made."""
    run = site(*into(targets, POSTGRES, "--tables", "orders", "--tables", "users", "--json")).succeeds()
    (line,) = run.json["restores"]
    assert (line["outcome"], line["checked"]) == ("ok", True)
    with platform.postgres.connect(RESTORED_DATABASE) as connection:
        keys = connection.execute("SELECT conname FROM pg_constraint WHERE contype = 'f' ORDER BY 1").fetchall()
    assert keys == [("orders_user_id_fkey",)]


def test_awkward_parts_of_postgres(platform: Platform, make_site: MakeSite, targets: Targets) -> None:
    """Types, sequences, triggers and partitions come along; a view brings its tables; what cannot come is named."""
    site = make_site(POSTGRES)
    database = platform.postgres.fresh_database("parts")
    try:
        with platform.postgres.connect(database) as connection:
            connection.execute(AWKWARD.encode())
        site.sources[POSTGRES]["url"] = platform.postgres.url(database)
        site("backup", "now").succeeds()
        site(*into(targets, POSTGRES, "--schema", "Gr*")).succeeds()
        with platform.postgres.connect(RESTORED_DATABASE) as connection:
            connection.execute('UPDATE "Größe"."Day\'s" SET mood = \'down\' WHERE id = 1')
            insert = 'INSERT INTO "Größe"."Day\'s" DEFAULT VALUES RETURNING id'
            (key,) = connection.execute(insert).fetchone()
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname !~ '^pg_|^info'").fetchall()
            (objects,) = connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
            (comment,) = connection.execute(
                "SELECT obj_description('\"Größe\".\"Day''s\"'::regclass, 'pg_class')"
            ).fetchone()
        assert (key, tables, objects, comment) == (8, [("Day's",)], 0, "kept")
        targets.empty()
        run = site(*into(targets, POSTGRES, "--tables", "latest")).succeeds()
        assert "also restored, as what was asked for needs it: public.events" in run.out
        with platform.postgres.connect(RESTORED_DATABASE) as connection:
            assert connection.execute("SELECT count(*), max(at) = (SELECT at FROM latest) FROM events").fetchone() == (
                30,
                True,
            )
        targets.empty()
        run = site(*into(targets, POSTGRES, "--tables", "events_1")).succeeds()
        assert "what was asked for needs it: public.events, public.events_2\n" in run.out
        targets.empty()
        run = site(*into(targets, POSTGRES, "--tables", "public.child")).succeeds()
        assert "child_day_fkey" in run.out
        assert "child_id_fkey" in run.out
    finally:
        platform.postgres.drop_database(database)


def test_tables_of_one_of_several_databases(platform: Platform, make_site: MakeSite, targets: Targets) -> None:
    """A table is found in whichever database has it, under the name of --into; in none, what there is is named."""
    site = make_site(POSTGRES)
    databases = [platform.postgres.fresh_database("parts") for _ in range(2)]
    try:
        for number, database in enumerate(databases):
            with platform.postgres.connect(database) as connection:
                connection.execute(f"CREATE TABLE here_{number} AS SELECT generate_series(1, {number + 1})".encode())
        site.sources[POSTGRES] |= {"url": platform.postgres.url(databases[0]), "databases": databases}
        site("backup", "now").succeeds()
        site(*into(targets, POSTGRES, "--tables", "here_1")).succeeds()
        with platform.postgres.connect(RESTORED_DATABASE) as connection:
            assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == [
                ("here_1",)
            ]
        targets.empty()
        site(*into(targets, POSTGRES, "--tables", "here_*")).fails(
            13, f"names one database ({RESTORED_DATABASE})", "but 2", hint="--database"
        )
        site(*into(targets, POSTGRES, "--tables", "her_*")).fails(
            2, "nothing in the 2 databases", hint=f"{databases[1]}.public.here_1"
        )
    finally:
        for database in databases:
            platform.postgres.drop_database(database)


def test_keys_of_redis(site: Site, platform: Platform, targets: Targets) -> None:
    """The keys of a pattern come with values and expiries, and nothing else."""
    with platform.redis.client() as client:
        wanted = {
            key: client.dump(key) for pattern in ("session:*", "price:[A-B]*") for key in client.scan_iter(pattern)
        }
        families = {key.split(b":")[0] for key in client.scan_iter(count=1000)}
    assert len(families) > 2
    run = site(*into(targets, REDIS, "--keys", "session:*", "--keys", "price:[A-B]*")).succeeds()
    assert "equal to their fingerprints" in run.out
    with platform.redis_target.client() as client:
        found = {key: client.dump(key) for key in client.scan_iter(count=1000)}
    assert wanted
    assert found == wanted


def test_tables_of_clickhouse(site: Site, targets: Targets) -> None:
    """One table of a database comes, checked and compared."""
    site(*into(targets, CLICKHOUSE, "--tables", "market_data.kl*")).succeeds()
    expected = targets.expected(CLICKHOUSE)
    assert targets.found(CLICKHOUSE) == {"klines": expected["klines"]}


def test_parts_that_cannot_be(site: Site, targets: Targets) -> None:
    """A pattern without a match, a bound of another engine, several sources, --replace, a folder: exit 2, untouched."""
    before = {source: targets.state(source) for source in (POSTGRES, REDIS, CLICKHOUSE)}
    site(*into(targets, POSTGRES, "--tables", "nothing*")).fails(2, "matches 'nothing*'", hint="public.orders")
    site(*into(targets, POSTGRES, "--keys", "a*")).fails(2, "--keys means nothing for postgres", hint="--tables")
    site(*into(targets, REDIS, "--tables", "a*")).fails(2, "--tables means nothing for redis", hint="--keys")
    site(*into(targets, REDIS, "--keys", "no such key*")).fails(2, "no key of the backup matches", hint="quote")
    site(*into(targets, CLICKHOUSE, "--tables", "nothing")).fails(2, "matches 'nothing'", hint="klines")
    site(*into(targets, POSTGRES, "--tables", "")).fails(2, "a pattern is empty", hint="--tables")
    site("restore", "--at", "now", "--tables", "orders").fails(2, "of one source", hint="--source")
    part = ("restore", "--at", "now", "--source", POSTGRES, "--tables", "orders")
    site(*part, "--replace").fails(2, "empty or absent target", hint="--into URL")
    site(*part, "--into", str(site.folder / "files")).fails(2, "empty or absent target", hint="--into URL")
    assert {source: targets.state(source) for source in before} == before


def test_whole_target_is_still_refused(site: Site, targets: Targets) -> None:
    """A part goes into an empty target alone: a second part into the same database is refused, untouched."""
    site(*into(targets, POSTGRES, "--tables", "users")).succeeds()
    before = targets.state(POSTGRES)
    site(*into(targets, POSTGRES, "--tables", "orders")).fails(14, "Nothing was changed", hint="--into")
    assert targets.state(POSTGRES) == before
