-- The structure and rows of an awkward database; :owner:, :reader: and :event: are put in by awkward.py.
CREATE SCHEMA app AUTHORIZATION :owner:;
CREATE SCHEMA "Mixed Case.и=schéma" AUTHORIZATION :owner:;
CREATE SCHEMA empty_schema;
COMMENT ON SCHEMA app IS 'the application''s own';
SET ROLE :owner:;
CREATE TYPE app.mood AS ENUM ('calm', 'it''s "odd"', 'ünïcode');
CREATE TYPE app.pair AS (a int, b text);
CREATE DOMAIN app.percent AS numeric(5, 2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE SEQUENCE app.lonely_seq START 1000 INCREMENT 7 CACHE 5;
SELECT setval('app.lonely_seq', 4242, true);
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN NEW.changed = clock_timestamp(); RETURN NEW; END$$;
CREATE FUNCTION app.double(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x * 2';
CREATE AGGREGATE app.product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE PROCEDURE app.nothing() LANGUAGE sql AS 'SELECT 1';

-- columns of every sort; a dropped column leaves a hole in the attribute numbers
CREATE TABLE app.kinds (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hole int, mood app.mood, pair app.pair, share app.percent,
    doc jsonb, raw bytea, tags text[], span tstzrange, ip inet, t timestamptz DEFAULT now(), f float8, n numeric,
    label text COLLATE "C", twice int GENERATED ALWAYS AS (app.double(4)) STORED, nothing text,
    changed timestamptz, CHECK (f IS NULL OR f > -1e300)
);
ALTER TABLE app.kinds DROP COLUMN hole;
CREATE TRIGGER touch_kinds BEFORE UPDATE ON app.kinds FOR EACH ROW EXECUTE FUNCTION app.touch();
INSERT INTO app.kinds (mood, pair, share, doc, raw, tags, span, ip, t, f, n, label)
SELECT (enum_range(NULL::app.mood))[1 + n % 3], ROW(n, 'p' || n)::app.pair, n % 100,
       jsonb_build_object('n', n, 'quote', '"\''', 'newline', E'a\nb\tc\\.', 'emoji', '🦊'),
       decode(md5(n::text), 'hex'), ARRAY['a,b', NULL, '', '{}', E'tab\t'], tstzrange(now(), NULL), '10.0.0.1',
       timestamptz '2026-01-01 00:00:00.123456+00' + n * interval '1 hour',
       CASE n % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN 1e-300 ELSE n / 3.0 END, n / 7.0,
       CASE n % 4 WHEN 0 THEN '' WHEN 1 THEN NULL WHEN 2 THEN E'\\N' ELSE E'line\nbreak\r\\' END
FROM generate_series(1, 500) n;
CREATE INDEX kinds_doc ON app.kinds USING gin (doc jsonb_path_ops);
CREATE INDEX kinds_partial ON app.kinds (lower(label)) WHERE label IS NOT NULL;
CREATE STATISTICS app.kinds_stats ON mood, share FROM app.kinds;
COMMENT ON COLUMN app.kinds.mood IS E'multi\nline; DROP TABLE "kinds"; --';

-- partitions in two levels, one of them empty, and a default one
CREATE TABLE app.events (id int NOT NULL, at date NOT NULL, region text, note text, PRIMARY KEY (id, at, region))
    PARTITION BY RANGE (at);
CREATE TABLE app.events_2025 PARTITION OF app.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY LIST (region);
CREATE TABLE app.events_2025_eu PARTITION OF app.events_2025 FOR VALUES IN ('eu');
CREATE TABLE app.events_2025_rest PARTITION OF app.events_2025 DEFAULT;
CREATE TABLE app.events_2026 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE app.events_2027 PARTITION OF app.events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
CREATE TABLE app.events_rest PARTITION OF app.events DEFAULT;
INSERT INTO app.events SELECT n, date '2024-10-01' + n, CASE WHEN n % 2 = 0 THEN 'eu' ELSE 'us' END, repeat('x', n % 50)
FROM generate_series(1, 700) n;

-- inheritance: the child has the parent's columns in another order after the ALTER
CREATE TABLE app.parent (id int, name text);
CREATE TABLE app.child (extra int) INHERITS (app.parent);
ALTER TABLE app.parent ADD COLUMN later text DEFAULT 'later';
INSERT INTO app.parent (id, name) VALUES (1, 'only parent');
INSERT INTO app.child (id, name, extra) SELECT n, 'child ' || n, n * n FROM generate_series(2, 40) n;

-- names that need quotes
CREATE TABLE "Mixed Case.и=schéma"."Tábla ""quoted"", 表 / \slash" (
    "select" int PRIMARY KEY, "Ünïcode cölumn" text, "with ""quotes""" text, "semi;colon" text, " " int);
INSERT INTO "Mixed Case.и=schéma"."Tábla ""quoted"", 表 / \slash"
SELECT n, 'größe ' || n, '"', ';', n FROM generate_series(1, 50) n;

CREATE TABLE app.empty_table (id serial PRIMARY KEY, note text);
CREATE TABLE app.no_columns ();
INSERT INTO app.no_columns DEFAULT VALUES;
INSERT INTO app.no_columns DEFAULT VALUES;
CREATE UNLOGGED TABLE app.unlogged_table AS SELECT n AS id, md5(n::text) AS h FROM generate_series(1, 100) n;
CREATE TABLE app.serials (id serial PRIMARY KEY, small smallserial, note varchar(10) NOT NULL UNIQUE);
INSERT INTO app.serials (note) SELECT 'n' || n FROM generate_series(1, 77) n;
CREATE TABLE app.orders_circular (id int PRIMARY KEY, best int);
CREATE TABLE app.items_circular (id int PRIMARY KEY, of_order int REFERENCES app.orders_circular (id) DEFERRABLE);
INSERT INTO app.orders_circular VALUES (1, 10), (2, NULL);
INSERT INTO app.items_circular VALUES (10, 1), (11, 2);
ALTER TABLE app.orders_circular ADD FOREIGN KEY (best) REFERENCES app.items_circular (id) DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE app.wide_values (id int PRIMARY KEY, big text);
INSERT INTO app.wide_values SELECT n, repeat(md5(n::text), 20000) FROM generate_series(1, 5) n;

-- row security, views, materialized views (one filled, one not), rules, grants
CREATE TABLE app.secrets_by_owner (owner_name text, secret text);
INSERT INTO app.secrets_by_owner VALUES ('anna', 'row of anna'), ('bob', 'row of bob');
ALTER TABLE app.secrets_by_owner ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.secrets_by_owner FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON app.secrets_by_owner USING (owner_name = current_user);
CREATE VIEW app.calm_kinds WITH (security_barrier) AS SELECT id, label FROM app.kinds WHERE mood = 'calm';
CREATE MATERIALIZED VIEW app.per_mood AS SELECT mood, count(*) AS rows FROM app.kinds GROUP BY mood;
CREATE UNIQUE INDEX per_mood_mood ON app.per_mood (mood);
CREATE MATERIALIZED VIEW app.not_filled AS SELECT 1 AS one WITH NO DATA;
CREATE TABLE app.rule_log (n int);
CREATE RULE log_serials AS ON DELETE TO app.serials DO ALSO INSERT INTO app.rule_log VALUES (1);
RESET ROLE;
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$;
GRANT USAGE ON SCHEMA app TO :reader:;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO :reader:;
GRANT UPDATE (note) ON app.serials TO :reader: WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION app.double(int) FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE :owner: IN SCHEMA app GRANT SELECT ON TABLES TO :reader:;
CREATE TABLE public.with_extensions (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, attributes hstore, mail citext);
INSERT INTO public.with_extensions (attributes, mail)
SELECT hstore('k' || n, CASE WHEN n % 3 = 0 THEN NULL ELSE n::text END), 'User' || n || '@Example.com'
FROM generate_series(1, 60) n;
CREATE INDEX with_extensions_trgm ON public.with_extensions USING gin ((mail::text) gin_trgm_ops);
ALTER TABLE public.with_extensions OWNER TO :owner:;
CREATE EVENT TRIGGER :event: ON ddl_command_end WHEN TAG IN ('COMMENT') EXECUTE FUNCTION app.on_ddl();
ALTER EVENT TRIGGER :event: DISABLE;
CREATE PUBLICATION :event: FOR TABLE app.serials;
