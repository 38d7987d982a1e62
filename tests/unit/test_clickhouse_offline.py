"""ClickHouse's formats without a server: index, manifest, checksums, tar, names, settings."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from datetime import UTC, datetime
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from drd.engines.clickhouse import cityhash
from drd.engines.clickhouse.budget import Budget
from drd.engines.clickhouse.client import SOURCE, Scrubber, ServerRefusal, as_drd_error, clean
from drd.engines.clickhouse.format import ClickHouseFormat
from drd.engines.clickhouse.manifest import parse_manifest
from drd.engines.clickhouse.packindex import PackedObject, PackIndex, parse_index, read_index, usable_key, write_index
from drd.engines.clickhouse.packing import PackingSpace
from drd.engines.clickhouse.quoting import from_file_name, identifier, literal, shown
from drd.engines.clickhouse.restore import renames
from drd.engines.clickhouse.route import advertised
from drd.engines.clickhouse.s3wire import Body, Disconnected, S3Failure, byte_range
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.errors import ConfigError, IntegrityError, TargetError
from drd.model import DumpResult, Fingerprint
from tests.support.artifacts import MemoryReader, MemorySink, backup_of, work_context

FILES = {
    "metadata/d.sql": b"CREATE DATABASE d",
    "data/d/t/all_1_1_0/data.bin": b"\x01" * 5000,
    "metadata/d/t.sql": b"C",
}


def body(data: bytes, *, digest: str = "") -> Body:
    return Body(BytesIO(data), len(data), digest or hashlib.sha256(data).hexdigest())


def manifest_of(files: dict[str, bytes], more: str = "") -> bytes:
    rows = "".join(
        f"<file><name>{name}</name><size>{len(data)}</size><checksum>{cityhash.checksum([data])}</checksum></file>"
        for name, data in files.items()
    )
    return f"<config><version>1</version><uuid>u</uuid>{more}<contents>{rows}</contents></config>".encode()


def packed(files: dict[str, bytes], manifest: bytes | None = None) -> dict[str, bytes]:
    """Make the artifacts of a small backup."""
    sink = MemorySink()
    space = PackingSpace(sink, lambda: datetime.now(UTC))
    for key, data in {**files, ".backup": manifest_of(files) if manifest is None else manifest}.items():
        space.put(key, body(data))
    write_index(space.finish(), sink)
    return sink.artifacts


def verify(artifacts: dict[str, bytes], tmp_path) -> list[tuple[str, str]]:
    result = DumpResult(datetime.now(UTC), Fingerprint("clickhouse", {}, ()), "26.7")
    reader = MemoryReader(artifacts)
    problems = ClickHouseFormat().verify(backup_of("clickhouse", result, artifacts), reader, work_context(tmp_path))
    return [(p.subject, p.message) for p in problems]


def test_verify_passes_what_is_right(tmp_path):
    """Index, manifest, sizes and checksums agree; the databases are known."""
    artifacts = packed(FILES)
    assert verify(artifacts, tmp_path) == []
    assert read_index(MemoryReader(artifacts)).databases() == ["d"]


def test_verify_names_what_is_wrong(tmp_path):
    """A missing file, a file of another size, damaged bytes, no manifest, no index."""
    full = manifest_of(FILES)
    missing = {k: v for k, v in FILES.items() if not k.endswith("data.bin")}
    assert verify(packed(missing, full), tmp_path) == [("data/d/t/all_1_1_0/data.bin", "is missing")]
    shorter = FILES | {"metadata/d.sql": b"CREATE"}
    assert verify(packed(shorter, full), tmp_path) == [("metadata/d.sql", "has 6 bytes instead of 17")]
    damaged = FILES | {"data/d/t/all_1_1_0/data.bin": b"\x01" * 4999 + b"\x02"}
    ((subject, message),) = verify(packed(damaged, full), tmp_path)
    assert subject == "data/d/t/all_1_1_0/data.bin"
    assert "checksum" in message
    sink = MemorySink()
    space = PackingSpace(sink, lambda: datetime.now(UTC))
    write_index(space.finish(), sink)
    assert verify(sink.artifacts, tmp_path) == [(".backup", "the server's own manifest is missing")]
    assert "neither" in verify({}, tmp_path)[0][1]


def test_files_that_share_their_bytes_are_read_once(tmp_path):
    """A file with a data_file of another is verified through that one; one of an ancestor is not expected here."""
    data = b"same"
    rows = "".join(
        f"<file><name>{n}</name><size>4</size><checksum>{cityhash.checksum([data])}</checksum>{more}</file>"
        for n, more in (("a", ""), ("b", "<data_file>a</data_file>"), ("c", "<use_base>true</use_base>"))
    )
    manifest = f"<config><contents>{rows}</contents></config>".encode()
    assert verify(packed({"a": data}, manifest), tmp_path) == []


def test_the_tar_is_one_that_stock_tar_reads(tmp_path):
    """Long and Unicode names, empty files, a body that failed its digest: tar lists it and the index is right."""
    sink = MemorySink()
    space = PackingSpace(sink, lambda: datetime.now(UTC))
    long = "data/" + "ünï" * 30 + "/x" * 40
    space.put(long, body(b"long"))
    space.put("empty", body(b""))
    with pytest.raises(S3Failure):
        space.put("bad", body(b"bad", digest="0" * 64))
    space.put("good", body(b"g" * 1000))
    index = space.finish()
    path = tmp_path / "backup.tar"
    path.write_bytes(sink.artifacts["clickhouse/backup.tar"])
    done = subprocess.run(["tar", "-xf", path, "-C", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / long).read_bytes() == b"long"
    assert (tmp_path / "empty").read_bytes() == b""
    assert sorted(index.objects) == sorted([long, "empty", "good"])
    ((artifact, offset, size),) = index.ranges("good", 0, 1000)
    assert sink.artifacts[artifact][offset : offset + size] == b"g" * 1000


def test_a_large_body_that_breaks_off_keeps_the_tar_sound(monkeypatch, tmp_path):
    """A streamed body that fails is filled up with zeros, is in no index, and what follows is readable."""
    from drd.engines.clickhouse import arranging, packing

    monkeypatch.setattr(packing, "BUFFER_BYTES", 10)
    monkeypatch.setattr(arranging, "PIECE_BYTES", 10)
    sink = MemorySink()
    space = PackingSpace(sink, lambda: datetime.now(UTC))
    with pytest.raises(Disconnected):
        space.put("cut", Body(BytesIO(b"x" * 50), 2000, "0" * 64))
    with pytest.raises(S3Failure):
        space.put("wrong", body(b"y" * 700, digest="0" * 64))
    space.put("after", body(b"z" * 600))
    index = space.finish()
    assert list(index.objects) == ["after"]
    with tarfile.open(fileobj=BytesIO(sink.artifacts["clickhouse/backup.tar"])) as tar:
        assert [m.name for m in tar] == ["cut", "wrong", "after"]
        assert tar.extractfile("after").read() == b"z" * 600


def test_ranges_cross_segments():
    """A range of an object in parts names the right slices."""
    index = PackIndex(("t",), {"k": PackedObject(30, ((0, 100, 10), (0, 500, 10), (0, 300, 10)))})
    assert list(index.ranges("k", 0, 30)) == [("t", 100, 10), ("t", 500, 10), ("t", 300, 10)]
    assert list(index.ranges("k", 8, 4)) == [("t", 108, 2), ("t", 500, 2)]
    assert list(index.ranges("k", 20, 99)) == [("t", 300, 10)]
    assert list(index.ranges("k", 5, 0)) == []


def bad_index(**changes) -> bytes:
    document = {"version": 1, "artifacts": ["t"], "databases": [], "objects": {"k": [3, [[0, 0, 3]]]}}
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        bad_index(version=2),
        bad_index(artifacts="t"),
        bad_index(artifacts=[1]),
        bad_index(artifacts=["absent"]),
        bad_index(objects=[]),
        bad_index(objects={"../etc/passwd": [3, [[0, 0, 3]]]}),
        bad_index(objects={"/abs": [3, [[0, 0, 3]]]}),
        bad_index(objects={"k": [4, [[0, 0, 3]]]}),
        bad_index(objects={"k": [3, [[1, 0, 3]]]}),
        bad_index(objects={"k": [3, [[0, 98, 3]]]}),
        bad_index(objects={"k": [3, [[0, -1, 3]]]}),
        bad_index(objects={"k": [True, [[0, 0, 1]]]}),
        bad_index(objects={"k": "x"}),
        bad_index(objects={"a\x00b": [0, []]}),
        bad_index(objects={"\ud800": [0, []]}),
    ],
)
def test_an_unsound_index_is_refused(data):
    """Anything but an index whose segments lie inside their artifacts is an integrity error."""
    with pytest.raises(IntegrityError):
        parse_index(data, MemoryReader({"t": b"x" * 100}))


@given(st.binary(max_size=300), st.integers(0, 200))
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_damaged_index_never_crashes(noise, at):
    """Random damage in an index ends in an integrity error or in an index that is sound."""
    good = bad_index()
    data = good[:at] + noise + good[at + len(noise) :]
    try:
        index = parse_index(data, MemoryReader({"t": b"x" * 100}))
    except IntegrityError:
        return
    assert all(usable_key(key) for key in index.objects)


BOMB = (
    b'<!DOCTYPE c [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<config><contents><file><name>&b;</name></file></contents></config>"
)
EXTERNAL = b'<!DOCTYPE c SYSTEM "file:///etc/passwd"><config></config>'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no xml",
        BOMB,
        EXTERNAL,
        b"<a>" * 50,
        b"<config><contents><file><name>a</name></file></contents></config>",
        b"<config><contents><file><name>../a</name><size>1</size></file></contents></config>",
        b"<config><contents><file><name>a</name><size>-1</size></file></contents></config>",
        b"<config><contents><file><name>a</name><size>1</size><data_file>b/../../c</data_file></file></contents></config>",
        b"<config><contents><file><name>" + b"a" * 100_000 + b"</name></file></contents></config>",
        b"<config><contents><file><name>a</name><size>1</size></file></contents>",
    ],
)
def test_an_unsound_manifest_is_refused(data):
    """No DTD, no entity, no path out, no nonsense numbers, no cut-off document."""
    with pytest.raises(IntegrityError):
        parse_manifest([data])


@given(st.binary(max_size=200), st.integers(0, 400))
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_damaged_manifest_never_crashes(noise, at):
    """Random damage in a manifest ends in an integrity error or in names that stay inside."""
    good = manifest_of(FILES)
    try:
        manifest = parse_manifest([good[:at], noise, good[at + len(noise) :]])
    except IntegrityError:
        return
    assert all(usable_key(f.key) and usable_key(f.name) for f in manifest.files)


def test_the_manifest_names_tables_and_parts():
    """Escaped names come back; files of projections are no parts of their own; the system's tables are not ours."""
    files = dict.fromkeys(
        (
            "metadata/my%2Ddb.sql",
            "metadata/my%2Ddb/%C3%A9%20t.sql",
            "metadata/system/functions.sql",
            "data/my%2Ddb/%C3%A9%20t/all_1_1_0/checksums.txt",
            "data/my%2Ddb/%C3%A9%20t/all_1_1_0/p.proj/checksums.txt",
        ),
        b"x",
    )
    manifest = parse_manifest([manifest_of(files)])
    assert manifest.tables() == [("my-db", "é t")]
    assert manifest.parts() == {("my-db", "é t"): {"all_1_1_0"}}


def test_cityhash_known_values():
    """Values that ClickHouse 26.7 itself wrote into a .backup."""
    assert cityhash.checksum([b"0"]) == "1d5952e8223ea966def237d6e7e216f1"
    assert cityhash.checksum([b"CODEC(LZ4)"]) == "557036eda0fb0a277a7caf9b9c8d4dd6"


@given(st.binary(max_size=5000), st.integers(1, 700))
@hypothesis_settings(max_examples=100, deadline=None)
def test_both_cityhashes_agree_however_the_file_is_cut(data, cut):
    """The C package and the Python version give the same checksum, fed whole or in pieces."""
    plain = cityhash.Chained(cityhash.python_seeded)
    for start in range(0, len(data), cut):
        plain.update(data[start : start + cut])
    assert plain.hexdigest() == cityhash.checksum([data])


def test_names_and_literals_are_quoted():
    """What goes into SQL cannot break out of its quotes; escaped file names come back."""
    assert identifier("a`b\\c") == "`a\\`b\\\\c`"
    assert literal("a'b\\\n") == "'a\\'b\\\\\\n'"
    assert shown("db", "t") == "db.t"
    assert shown("db", "a b") == "db.`a b`"
    assert from_file_name("we%2Eird%20%C3%A9") == "we.ird é"


def test_urls():
    """Ports by scheme, a database in path or query, no password, no nonsense."""
    assert ClickHouseSettings("http://admin@h").address().port == 8123
    assert ClickHouseSettings("https://h").address().port == 8443
    assert ClickHouseSettings("http://h:1/other%20db").address().database == "other db"
    assert ClickHouseSettings("http://h/?database=x").address().database == "x"
    for bad in ("clickhouse://h", "http://", "http://u:p@h", "http://h:99999"):
        with pytest.raises(ConfigError):
            ClickHouseSettings(bad).address()
    with pytest.raises(ConfigError):
        ClickHouseSettings("http://h", gateway_listen="nonsense").listen()


def test_a_gateway_on_loopback_is_refused_for_a_remote_server():
    """The default listening address works for a local server only, and drd says so before it begins."""
    with pytest.raises(ConfigError, match=r"which the ClickHouse server db.example cannot reach"):
        advertised(ClickHouseSettings("http://db.example:8123"))
    assert advertised(ClickHouseSettings("http://localhost:8123")) == ""
    far = ClickHouseSettings("http://db.example:8123", gateway_advertise="http://10.1.2.3:9444")
    assert advertised(far) == "http://10.1.2.3:9444"


def test_restoring_under_another_name():
    """One database takes the URL's name; several under one name is an error."""
    assert renames(ClickHouseSettings("http://h"), ["a", "b"]) == {"a": "a", "b": "b"}
    assert renames(ClickHouseSettings("http://h/new"), ["a"]) == {"a": "new"}
    assert renames(ClickHouseSettings("http://h/a"), ["a", "b"]) == {"a": "a", "b": "b"}
    with pytest.raises(TargetError):
        renames(ClickHouseSettings("http://h/new"), ["a", "b"])


def test_errors_are_one_clean_line():
    """No stack trace, no version, no secret."""
    raw = (
        "Received ClickHouse exception, code: 499, server response: Code: 499. DB::Exception: Access denied for "
        "sekret-key: While executing. (S3_ERROR), Stack trace (when copying this message, always include the lines):\n"
        "0. DB::Exception (version 26.7.2.1) (for url http://h)"
    )
    text = Scrubber("sekret-key")(clean(raw))
    assert text == "Access denied for [HIDDEN]: While executing. (S3_ERROR)"
    error = as_drd_error(ServerRefusal(516, "no such user"), SOURCE, "looked at the server")
    assert (error.exit_code, error.message) == (13, "wrong user or password: no such user (code 516)")
    error = as_drd_error(ServerRefusal(60, "no such table"), SOURCE, "looked at the server")
    assert error.message == "ClickHouse failed while drd looked at the server: no such table (code 60)"
    assert (
        as_drd_error(ServerRefusal(60, "no such table"), SOURCE).message == "ClickHouse failed: no such table (code 60)"
    )
    assert as_drd_error(ServerRefusal(40, "checksum"), SOURCE).exit_code == 20


def test_byte_ranges():
    """The forms of RFC 9110 that S3 clients use."""
    assert byte_range("bytes=0-9", 100) == (0, 10)
    assert byte_range("bytes=90-", 100) == (90, 10)
    assert byte_range("bytes=-5", 100) == (95, 5)
    assert byte_range("bytes=0-999", 100) == (0, 100)
    for bad in ("bytes=-", "bytes=100-", "bytes=5-4", "lines=1-2", "bytes=0-1,3-4"):
        with pytest.raises(S3Failure):
            byte_range(bad, 100)


def test_a_closed_budget_wakes_who_waits():
    """Bodies waiting for room give up when the gateway closes."""
    import threading

    budget = Budget(10)
    ended = []

    def wait() -> None:
        try:
            with budget.taking(5):
                pass
        except Disconnected:
            ended.append(True)

    with budget.taking(8):
        thread = threading.Thread(target=wait)
        thread.start()
        budget.close()
        thread.join(5)
    assert ended == [True]


def test_the_runbook_is_shell(tmp_path):
    """It parses as shell, for packed and for direct backups."""
    for facts in ({"mode": "gateway"}, {"mode": "direct", "direct_prefix": "backups/s/id/clickhouse/"}):
        result = DumpResult(datetime.now(UTC), Fingerprint("clickhouse", {}, ()), "26.7", facts=facts)
        shell = ClickHouseFormat().runbook(backup_of("clickhouse", result, {})).shell
        done = subprocess.run(["bash", "-n"], input=shell, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
