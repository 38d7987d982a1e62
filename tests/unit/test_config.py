"""Loading a configuration: what is accepted, what is refused, and how it is said."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from drd.cli.main import main
from drd.config import find_config_file, load, masked, secret_from, secret_refs
from drd.errors import ConfigError

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
STORE = "store: {type: s3, bucket: drd-backups, access_key_id: {env: ID}, secret_access_key: {env: KEY}}\n"
SOURCES = """
sources:
  trading-postgres: {type: postgres, url: "postgresql://admin@127.0.0.1:5432/trading_platform", password: {env: PGPW}}
  trading-redis: {type: redis, url: "redis://127.0.0.1:6379", password: {env: REDIS_PASSWORD}}
  market-data: {type: clickhouse, url: "http://admin@127.0.0.1:8123", password: {env: CHPW}, databases: [market_data]}
"""


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration and return its path."""

    def put(text: str) -> Path:
        path = tmp_path / "drd.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return put


@pytest.fixture
def refused(write):
    """Load a wrong configuration and return the message."""

    def attempt(text: str, environ=None, **options) -> str:
        with pytest.raises(ConfigError) as caught:
            load(write(text), environ or {}, **options)
        assert caught.value.hint
        return caught.value.message

    return attempt


def source(text: str) -> str:
    """Make a configuration with one source of this text."""
    return f"{STORE}sources:\n  src: {text}\n"


def test_a_configuration_is_loaded_with_defaults(write):
    """Every value is typed, and what was not written has its default."""
    config = load(write(STORE + SOURCES), {})
    assert config.pipeline.part_size == 8 << 20
    assert config.store.patience == timedelta(minutes=2)
    assert config.sources["market-data"].databases == ("market_data",)
    assert list(config.sources) == ["trading-postgres", "trading-redis", "market-data"]


def test_every_problem_is_listed_at_once(refused):
    """One error names all problems, each with its path, value and what is allowed."""
    message = refused(
        "store: {type: s3, bukket: x}\npipeline: {level: 25, part_size: 64MiB}\n"
        + SOURCES.replace("redis://", "rediz://")
    )
    assert "5 problems" in message
    for line in (
        "store.bukket: unknown key; did you mean bucket?",
        "store.bucket: required: Name of the bucket",
        "pipeline.level: got 25; allowed: at most 19",
        "pipeline.part_size: got '64MiB'; allowed: 1MiB to 32MiB",
        "sources.trading-redis.url: got 'rediz://127.0.0.1:6379'; allowed: a URL such as redis://",
    ):
        assert line in message


def test_a_single_problem_is_one_line(refused):
    """With one problem the message has one line."""
    assert "\n" not in refused("store: {type: s4}")


def test_two_sources_with_one_name_are_refused(refused):
    """YAML would silently keep the last one; drd names both lines."""
    message = refused(
        f'{STORE}sources:\n  a: {{type: redis, url: "redis://h"}}\n  a: {{type: redis, url: "redis://i"}}\n'
    )
    assert "line 4: a is given twice (first on line 3)" in message


def test_a_yaml_error_has_line_and_column(refused):
    """A syntax error points at its place."""
    assert "line 2, column" in refused("store: {type: s3\nsources: ]")


@pytest.mark.parametrize("text", ["- a", "just text", "a: &x [*x]", "1: x", "\x00", "!!python/object:os.system {}"])
def test_documents_that_are_no_configuration_are_refused(refused, text):
    """Lists, scalars, self-references, odd keys, control characters and tags end in a ConfigError."""
    refused(text)


def test_text_that_yaml_1_1_would_twist_stays_text(write):
    """Words such as no and on, times and leading zeros are not turned into something else."""
    config = load(
        write(source('{type: redis, url: "redis://h", labels: {a: no, b: on, c: 12:30:00, d: 2026-11-22, e: 007}}')), {}
    )
    assert set(config.sources["src"].labels.values()) == {"no", "on", "12:30:00", "2026-11-22", "007"}


@pytest.mark.parametrize("method", ["physical", "both"])
def test_later_postgres_methods_are_refused_by_name(refused, method):
    """The design's other methods are named as not yet there."""
    message = refused(source(f"{{type: postgres, url: 'postgresql://h/d', method: {method}}}"))
    assert f"method '{method}' is not in this release; use dump" in message


NO_RULE = "keep_last: 0, keep_within: null, keep_daily: 0, keep_weekly: 0, keep_monthly: 0"
KEEPS_NOTHING = f"{{type: redis, url: 'redis://h', retention: {{{NO_RULE}}}}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{url: 'redis://h'}", "sources.src.type: required; allowed: postgres, redis, clickhouse"),
        ("{type: mysql}", "sources.src.type: got 'mysql'; allowed: postgres, redis, clickhouse"),
        ("{type: postgres, url: 'postgresql://h'}", "sources.src.databases: the URL names no database"),
        ("{type: postgres, url: 'postgresql://h:99999/d'}", "sources.src.url: got"),
        ("{type: postgres, url: 'postgresql://h/d', databases: []}", "sources.src.databases: got an empty list"),
        ("{type: postgres, url: 'postgresql://h/d', jobs: 0}", "sources.src.jobs: got 0; allowed: auto, or 1 to 64"),
        ("{type: postgres, url: 'postgresql://h/d', rpo: 65}", "sources.src.rpo: got 65; allowed: a duration such as"),
        (
            "{type: redis, url: 'redis://h', retention: {keep_last: -1}}",
            "sources.src.retention.keep_last: got -1; allowed: at least 0",
        ),
        (
            "{type: redis, url: 'redis://h', retention: {time_zone: Mars/Base}}",
            "sources.src.retention.time_zone: got 'Mars/Base'; allowed: a time zone such as",
        ),
        (
            KEEPS_NOTHING,
            "sources.src.retention.keep_last: no rule keeps anything",
        ),
        ("{type: redis, url: 'redis://h/3'}", "no /N: a backup holds every database"),
        (
            "{type: redis, url: 'redis://h', prefer: master}",
            "sources.src.prefer: got 'master'; allowed: replica, primary",
        ),
        ("{type: redis, url: 'redis://h', ca_file: /x}", "sources.src.ca_file: has no effect without TLS"),
        ("{type: redis, url: 'redis://h', sentinels: ['a:1']}", "sources.src.sentinels: has no effect without"),
        ("{type: redis, url: 'redis://h', topology: sentinel}", "sources.src.sentinel_master: required"),
        ("{type: redis, url: 'rediss://h', cert_file: /x}", "sources.src.key_file: cert_file and key_file go together"),
        (
            "{type: redis, url: 'redis://h', holder: {listen: '127.0.0.1:0'}}",
            "sources.src.holder.listen: got '127.0.0.1:0'; allowed: a host name or address without port",
        ),
        (
            "{type: clickhouse, url: 'http://h', gateway: {listen: all}}",
            "sources.src.gateway.listen: got 'all'; allowed: host:port",
        ),
        (
            "{type: clickhouse, url: 'http://h', gateway: {advertise: h}}",
            "sources.src.gateway.advertise: got 'h'; allowed: a URL",
        ),
        ("{type: clickhouse, url: 'http://h', mode: disk}", "sources.src.disk: required for mode disk"),
        (
            "{type: clickhouse, url: 'http://h', direct: {url: 'http://h/b'}}",
            "sources.src.direct: has no effect with mode gateway",
        ),
        (
            "{type: clickhouse, url: 'http://h', s3_retry_attempts: true}",
            "s3_retry_attempts: got true; allowed: a whole",
        ),
        ("null", "sources.src"),
    ],
)
def test_a_wrong_source_is_refused_with_its_path(refused, text, expected):
    """Each mistake in a source is named by path, with value and what is allowed."""
    assert expected in refused(source(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{type: s3, bucket: Bad_Bucket}", "store.bucket: got 'Bad_Bucket'; allowed: 3 to 63 of"),
        ("{type: s3, bucket: 123}", "store.bucket: got 123; allowed: text (quote it)"),
        ("{type: s3, bucket: abc, prefix: a//b}", "store.prefix: got 'a//b'"),
        ("{type: s3, bucket: abc, prefix: ../b}", "store.prefix: got '../b'"),
        ("{type: s3, bucket: abc, access_key_id: {env: A}}", "store.secret_access_key: required"),
        ("{type: s3, bucket: abc, session_token: {env: A}}", "store.session_token: has no effect"),
        ("{type: s3, bucket: abc, kms_key_id: k}", "store.kms_key_id: has no effect without"),
        ("{type: s3, bucket: abc, endpoint_url: 'ftp://h'}", "store.endpoint_url: got 'ftp://h'; allowed"),
        ("{type: s3, bucket: abc, endpoint_url: 'http://key@h'}", "a URL without user"),
        (
            "{type: s3, bucket: abc, object_lock: {mode: governance, days: 0}}",
            "store.object_lock.days: got 0; allowed: keep_within, or 1 to 36500 days",
        ),
        (
            "{type: s3, bucket: abc, object_lock: {mode: governance, days: 30d}}",
            "store.object_lock.days: got '30d'; allowed: keep_within, or 1 to 36500 days",
        ),
        ("{type: local}", "store.path: required"),
        ("{type: local, path: /x, bucket: abc}", "store.bucket: unknown key; allowed: max_bandwidth, path, type"),
    ],
)
def test_a_wrong_store_is_refused_with_its_path(refused, text, expected):
    """Each mistake in the store is named by path, with value and what is allowed."""
    assert expected in refused(f"store: {text}")


def test_source_names_are_checked(refused):
    """A name that cannot be a folder of the bucket is refused."""
    assert "sources.Über: got 'Über'; allowed: a name of" in refused(
        f"{STORE}sources: {{Über: {{type: redis, url: 'redis://h'}}}}"
    )


def test_recipients_are_checked_by_form(refused):
    """A mistyped recipient is refused, and so is an identity in its place, unseen."""
    message = refused(f"{STORE}encryption: {{recipients: [{RECIPIENT[:-1]}q, AGE-SECRET-KEY-1HUNTER2]}}")
    assert "encryption.recipients[0]: got" in message
    assert "encryption.recipients[1]: is an age identity" in message
    assert "HUNTER2" not in message


@pytest.mark.parametrize(
    "text",
    [
        "sources: {s: {type: postgres, url: 'postgresql://u:hunter2@h/d'}}",
        "sources: {s: {type: postgres, url: 'postgresql://u:hun/hunter2@h/d'}}",
        "sources: {s: {type: postgres, url: 'postgresql://u:1/hunter2@h/d'}}",
        "sources: {s: {type: postgres, url: 'postgresql://h/d?password=hunter2'}}",
        "sources: {s: {type: postgres, url: 'host=h password=hunter2'}}",
        "sources: {s: {type: redis, url: 'redis://:hunter2@h'}}",
        "sources: {s: {type: redis, url: 'redis://h', password: [hunter2]}}",
        "sources: {s: {type: redis, url: 'redis://h', password: {env: hunter2-not-a-name!}}}",
        "sources: {s: {type: redis, url: 'redis://h', password: {value: hunter2}}}",
        "sources: {s: {type: redis, url: 'redis://h', passwort: hunter2}}",
        "sources: {s: {type: clickhouse, url: 'http://u:hunter2@h'}}",
        "sources: {s: 'redis://:hunter2@h'}",
        "password: hunter2",
        "store: {type: s3, bucket: abc, endpoint_url: 'http://a:hunter2@h', secret_access_key: {}}",
    ],
)
def test_no_message_holds_a_secret(refused, text):
    """A password in the wrong place or form is refused, and not repeated."""
    assert "hunter2" not in refused((STORE if "store:" not in text else "") + text)


def test_a_secret_is_needed_only_when_it_is_used(write):
    """A host that has the store's secrets alone can load the configuration and list."""
    config = load(write(STORE + SOURCES), {"ID": "id", "KEY": "key"})
    assert config.store.secret_access_key.resolve().reveal() == "key"
    with pytest.raises(ConfigError, match=r"sources\.trading-postgres\.password: environment variable PGPW is not set"):
        config.sources["trading-postgres"].password.resolve()


def test_validation_reads_every_reference(refused):
    """With check_references each missing secret and certificate file is a problem."""
    text = STORE.replace("}}\n", "}, ca_file: gone.pem}\n") + SOURCES
    message = refused(text, {"ID": "id", "KEY": "key", "CHPW": "x"}, check_references=True)
    assert "store.ca_file: no file" in message
    assert "sources.trading-redis.password: environment variable REDIS_PASSWORD is not set" in message
    assert "CHPW" not in message


def test_an_inline_secret_is_taken_with_a_warning(write):
    """It works, is warned of by path, and is masked when shown."""
    config = load(write(source("{type: redis, url: 'redis://h', password: hunter2}")), {})
    assert config.sources["src"].password.resolve().reveal() == "hunter2"
    assert any(w.startswith("sources.src.password: the secret is written in") for w in config.warnings)
    assert "hunter2" not in json.dumps(masked(config)) + repr(config) + str(config)


def test_a_lock_that_does_not_hold_what_a_server_writes_is_warned_of(write):
    """With object lock, ClickHouse in mode direct, which locks nothing, is named; through drd all is locked."""
    lock = "store: {type: s3, bucket: abc, object_lock: {mode: governance, days: 30}}\n"
    for mode, warned in (("direct", True), ("gateway", False)):
        text = f"{lock}sources: {{events: {{type: clickhouse, url: 'http://h', mode: {mode}}}}}"
        assert any("locks nothing that the server" in w for w in load(write(text), {}).warnings) is warned


def test_validation_prints_its_warnings(write, capsys):
    """What is unwise is told by ``drd config validate`` as well, below the verdict and with the same exit code."""
    assert main(["config", "validate", "--config", str(write("store: {type: local, path: /x}\n"))]) == 0
    verdict, warning = capsys.readouterr().out.splitlines()
    assert verdict.startswith("✓")
    assert warning.startswith("! encryption is not configured")


def test_missing_encryption_is_warned_of(write):
    """Backups in the clear are allowed, not silently."""
    assert any("encryption is not configured" in w for w in load(write(STORE), {}).warnings)
    encrypted = f"{STORE}encryption: {{recipients: [{RECIPIENT}]}}"
    assert load(write(encrypted), {}).warnings == ()


def test_one_identity_or_several(write):
    """Identity may be one reference or a list, and each knows its place."""
    one = load(write(f"{STORE}encryption: {{recipients: [{RECIPIENT}], identity: {{env: I}}}}"), {})
    two = load(write(f"{STORE}encryption: {{recipients: [{RECIPIENT}], identity: [{{env: I}}, {{file: J}}]}}"), {})
    assert [path for path, _ in secret_refs(one)][-1:] == ["encryption.identity"]
    assert [path for path, _ in secret_refs(two)][-2:] == ["encryption.identity[0]", "encryption.identity[1]"]


def test_the_environment_overrides(write):
    """A variable replaces or adds a key; dashes are underscores; lists are YAML; secrets stay references."""
    environ = {
        "DRD_STORE__BUCKET": "other",
        "DRD_PIPELINE__WORKERS": "4",
        "DRD_SOURCES__TRADING_POSTGRES__URL": "postgresql://elsewhere/db",
        "DRD_SOURCES__MARKET_DATA__DATABASES": "[a, b]",
        "DRD_STORE__SECRET_ACCESS_KEY": "hunter2",
        "DRD_SOURCES__NEW__TYPE": "redis",
        "DRD_SOURCES__NEW__URL": "redis://h",
        "DRD_S3_ACCESS_KEY_ID": "no override: no double underscore",
        "OTHER__THING": "not ours",
    }
    config = load(write(STORE + SOURCES), environ)
    assert (config.store.bucket, config.pipeline.workers) == ("other", 4)
    assert config.sources["trading-postgres"].url == "postgresql://elsewhere/db"
    assert config.sources["market-data"].databases == ("a", "b")
    assert config.sources["new"].type == "redis"
    assert config.store.secret_access_key.resolve().reveal() == "hunter2"
    assert "hunter2" not in json.dumps(masked(config))
    assert not any("secret_access_key" in warning for warning in config.warnings)


def test_a_wrong_override_names_its_variable(refused):
    """A misspelt section, a bad value, a path through a value and broken YAML are refused by variable."""
    message = refused(
        STORE + SOURCES,
        {
            "DRD_STROE__BUCKET": "x",
            "DRD_PIPELINE__LEVEL": "high",
            "DRD_STORE__BUCKET__NAME": "x",
            "DRD_STORE__": "x",
            "DRD_SOURCES__MARKET_DATA__DATABASES": "[a, b",
        },
    )
    assert "stroe (from DRD_STROE__BUCKET): unknown key; did you mean store?" in message
    assert "pipeline.level (from DRD_PIPELINE__LEVEL): got 'high'; allowed: a whole number" in message
    assert "DRD_STORE__BUCKET__NAME: store.bucket is not a mapping" in message
    assert "DRD_STORE__: not a path of keys" in message
    assert "DRD_SOURCES__MARKET_DATA__DATABASES: begins like a YAML list" in message


def test_an_override_that_fits_two_sources_is_refused(refused):
    """Names that differ by dash and underscore alone cannot be told apart in a variable."""
    text = f"{STORE}sources: {{a-b: {{type: redis, url: 'redis://h'}}, a_b: {{type: redis, url: 'redis://h'}}}}"
    assert "fits several keys: a-b, a_b" in refused(text, {"DRD_SOURCES__A_B__URL": "redis://i"})


def test_a_secret_of_the_command_line_is_read_like_a_configured_one(tmp_path):
    """--password-env and --password-file read, strip and complain as the configuration does."""
    (tmp_path / "password").write_text("hunter2\n")
    assert secret_from(where="--password-file", file=str(tmp_path / "password")).reveal() == "hunter2"
    assert secret_from(where="--password-env", env="PW", environ={"PW": "hunter3"}).reveal() == "hunter3"
    with pytest.raises(ConfigError, match="--password-env: environment variable PW is not set"):
        secret_from(where="--password-env", env="PW", environ={})


def test_relative_paths_start_at_the_file(write, tmp_path):
    """A configuration means the same from whatever folder drd is started."""
    config = load(write("store: {type: local, path: backups}"), {})
    assert config.store.path == tmp_path / "backups"


def test_an_unreadable_file_is_named(tmp_path):
    """A missing file, a folder and binary content are ConfigErrors that name the path."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("gone.yaml", ".", "binary"):
        with pytest.raises(ConfigError, match=str(tmp_path)):
            load(tmp_path / name, {})


def test_the_file_is_found_in_the_documented_order(tmp_path, monkeypatch):
    """First --config, then DRD_CONFIG, then ./drd.yaml."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.yaml", "b.yaml", "drd.yaml"):
        (tmp_path / name).write_text(STORE)
    assert find_config_file("a.yaml", {"DRD_CONFIG": "b.yaml"}) == Path("a.yaml")
    assert find_config_file(None, {"DRD_CONFIG": "b.yaml"}) == Path("b.yaml")
    assert find_config_file(None, {}) == Path("drd.yaml")


def test_a_named_file_that_is_missing_is_not_replaced_by_another(tmp_path, monkeypatch):
    """A mistyped --config or DRD_CONFIG is an error even where ./drd.yaml exists."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drd.yaml").write_text(STORE)
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        find_config_file("gone.yaml", {})
    with pytest.raises(ConfigError, match=r"gone.yaml .*DRD_CONFIG"):
        find_config_file(None, {"DRD_CONFIG": "gone.yaml"})


def test_no_file_at_all_names_every_place(tmp_path, monkeypatch):
    """The error lists where drd looked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("drd.config._PLACES", (Path("drd.yaml"), tmp_path / "etc" / "drd.yaml"))
    with pytest.raises(ConfigError) as caught:
        find_config_file(None, {})
    for place in ("--config", "$DRD_CONFIG", "./drd.yaml", "etc/drd.yaml"):
        assert place in caught.value.message


@pytest.mark.parametrize(
    ("keys", "path", "allowed"),
    [
        ("cron: '0 * * * *', interval: 1h", "schedules.s.interval", "one of them"),
        ("do: backup", "schedules.s.cron", "required: cron or interval"),
        ("cron: '0 0 31 2 *'", "schedules.s.cron", "this one never comes"),
        ("cron: '0 0 * * 8'", "schedules.s.cron", "weekday '8': allowed: 0 to 7"),
        ("interval: 1h, time_zone: UTC", "schedules.s.time_zone", "no effect without cron"),
        ("cron: '@daily', time_zone: ../etc", "schedules.s.time_zone", "name of a time zone"),
        ("cron: '@daily', sample: 5%", "schedules.s.sample", "no effect with do: backup"),
        ("cron: '@daily', do: verify, sample: 5 apples", "schedules.s.sample", "a share such as 5%"),
        ("cron: '@daily', sources: [other]", "schedules.s.sources", "no source is called other"),
    ],
)
def test_schedules_that_would_not_do_what_they_say_are_refused(refused, keys, path, allowed):
    """A schedule that never fires, or a key without an effect, is an error with its path."""
    message = refused(f"{STORE}schedules: {{s: {{{keys}}}}}")
    assert f"{path}: " in message
    assert allowed in message


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ("listen: localhost", "daemon.listen"),
        ("listen: 'unix:/run/drd.sock', tls: {cert_file: c, key_file: k}", "daemon.tls"),
        ("retry: {first: 2h}", "daemon.retry.longest"),
        ("textfile: /tmp/drd.txt", "daemon.textfile"),
        ("lease: 0.1s", "daemon.lease"),
    ],
)
def test_a_daemon_that_cannot_be_is_refused(refused, keys, path):
    """Keys of the daemon that contradict each other or cannot be are errors with their path."""
    assert f"{path}: " in refused(f"{STORE}daemon: {{{keys}}}")
