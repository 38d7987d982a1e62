"""What is special to a directory: links, leftovers, races with deletion, full disks."""

from __future__ import annotations

import errno
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.errors import ObjectExists, ObjectMissing, StoreError, StoreRefused, StoreUnavailable
from drd.stores import local_folders
from drd.stores.local import LocalStore


def files(root: Path) -> list[str]:
    """List what lies below a folder, folders with a slash."""
    return sorted(f"{p.relative_to(root)}{'/' if p.is_dir() else ''}" for p in root.rglob("*"))


def test_first_put_makes_the_directory_privately(tmp_path: Path) -> None:
    """The directory and all in it are for their owner alone; before the first put it is an empty store."""
    root = tmp_path / "not" / "yet"
    store = LocalStore(root)
    assert list(store.list("")) == []
    store.delete(["a/b"])
    with pytest.raises(ObjectMissing) as caught:
        store.get("a/b")
    assert "does not exist (yet)" in caught.value.hint
    assert not root.exists()
    store.put("a/b", b"x")
    assert files(root) == [".drd-tmp/", "a/", "a/b"]
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o600


@pytest.mark.parametrize(("offset_s", "expected"), [(0, 0), (40, 40), (-40, -40), (0.9, 0)])
def test_a_put_tells_how_far_the_clocks_are_apart(tmp_path: Path, offset_s: float, expected: float) -> None:
    """The date of the file that is written is the store's time: another host's on a network file system."""
    told: list[float] = []
    store = LocalStore(tmp_path, clock=lambda: datetime.now(UTC) + timedelta(seconds=offset_s), on_skew=told.append)
    store.put("a", b"x")
    assert told == [pytest.approx(expected, abs=1.5)]
    if not expected:
        assert told == [0.0]


def test_a_put_that_takes_long_tells_nothing_of_clocks(tmp_path: Path) -> None:
    """Neither does one during which the clock was set."""
    told: list[float] = []
    moments = iter([datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=s) for s in (0, 0, 6, 20, 10)])
    store = LocalStore(tmp_path, clock=lambda: next(moments), on_skew=told.append)
    store.put("a", b"x")
    store.put("b", b"x")
    assert told == []


def test_deletion_removes_empty_folders_only(tmp_path: Path) -> None:
    """Folders that became empty go, those that hold something stay, and so does the store itself."""
    store = LocalStore(tmp_path)
    for key in ("a/b/c/1", "a/b/2", "x/1"):
        store.put(key, b"x")
    store.delete(["a/b/c/1", "x/1"])
    assert files(tmp_path) == [".drd-tmp/", "a/", "a/b/", "a/b/2"]
    store.delete(["a/b/2"])
    assert files(tmp_path) == [".drd-tmp/"]


def test_put_survives_deletion_of_its_folder(tmp_path: Path) -> None:
    """Puts into a folder that deletions keep emptying and removing all succeed."""
    stores = [LocalStore(tmp_path), LocalStore(tmp_path)]  # as two processes would
    stop = threading.Event()
    failures: list[StoreError] = []

    def churn() -> None:
        try:
            while not stop.is_set():
                stores[0].put("deep/er/churn", b"x")
                stores[0].delete(["deep/er/churn"])
        except StoreError as error:
            failures.append(error)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for number in range(150):
            key = f"deep/er/{number}"
            stores[1].put(key, b"y", if_absent=bool(number % 2))
            assert stores[1].get(key) == b"y"
            stores[1].delete([key])
    finally:
        stop.set()
        thread.join()
    assert failures == []


def test_unfinished_files_are_swept_when_old(tmp_path: Path) -> None:
    """What a killed put left is never listed, cannot be read, and is removed by the next process after an hour."""
    unfinished = tmp_path / ".drd-tmp"
    unfinished.mkdir()
    (unfinished / "1-old").write_bytes(b"half")
    (unfinished / "1-new").write_bytes(b"half")
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
    os.utime(unfinished / "1-old", (long_ago, long_ago))
    store = LocalStore(tmp_path)
    assert list(store.list("")) == []
    assert list(store.list("", delimiter="/")) == []
    store.put("k", b"x")
    assert files(tmp_path) == [".drd-tmp/", ".drd-tmp/1-new", "k"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A planted symbolic link is neither read through, written through, listed nor deleted through."""
    outside, root = tmp_path / "outside", tmp_path / "store"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store = LocalStore(root)
    store.put("a/real", b"x")
    (root / "out").symlink_to(outside)
    (root / "a" / "link").symlink_to(outside / "secret")
    for key in ("out/secret", "a/link"):
        with pytest.raises(StoreError):
            store.get(key)
    with pytest.raises(StoreRefused):
        store.put("out/new", b"x")
    store.put("a/link", b"replaced")
    store.delete(["out/secret"])
    assert (outside / "secret").read_bytes() == b"secret"
    assert [info.key for info in store.list("")] == ["a/link", "a/real"]
    assert files(outside) == ["secret"]


def test_strange_files_are_no_objects(tmp_path: Path) -> None:
    """Sockets, FIFOs and names that are not UTF-8 are not listed, and a FIFO does not block a get."""
    store = LocalStore(tmp_path)
    store.put("a", b"x")
    os.mkfifo(tmp_path / "pipe")
    (Path(os.fsencode(tmp_path).decode()) / os.fsdecode(b"bad-\xff")).write_bytes(b"x")
    assert [info.key for info in store.list("")] == ["a"]
    with pytest.raises(ObjectMissing):
        store.get("pipe")


def test_key_below_a_key_is_refused(tmp_path: Path) -> None:
    """An object cannot be a folder at the same time; the error says what is in the way."""
    store = LocalStore(tmp_path)
    store.put("a", b"x")
    with pytest.raises(StoreRefused) as caught:
        store.put("a/b", b"x")
    assert "Not a directory" in caught.value.message
    store.put("d/e", b"x")
    with pytest.raises(StoreRefused):
        store.put("d", b"x")
    with pytest.raises(ObjectExists):
        store.put("d", b"x", if_absent=True)
    assert files(tmp_path) == [".drd-tmp/", "a", "d/", "d/e"]


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (errno.ENOSPC, StoreRefused, "prune"),
        (errno.EDQUOT, StoreRefused, "prune"),
        (errno.EROFS, StoreRefused, "read-only"),
        (errno.EIO, StoreUnavailable, "dmesg"),
    ],
)
def test_failing_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError], word: str
) -> None:
    """A write or sync that fails is mapped, keeps the old object, and leaves no unfinished file."""
    store = LocalStore(tmp_path)
    store.put("k", b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind) as caught:
        store.put("k", b"new")
    assert word in caught.value.hint
    monkeypatch.undo()
    assert store.get("k") == b"old"
    assert files(tmp_path) == [".drd-tmp/", "k"]


def test_really_full_disk() -> None:
    """What the kernel says of a full device becomes a refusal with advice, not something to retry."""
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError) as caught:
        local_folders.write_all(full.fileno(), b"x")
    assert caught.value.errno == errno.ENOSPC
    mapped = local_folders.store_error(caught.value, op="write", subject="k", root=Path("/backups"))
    assert isinstance(mapped, StoreRefused)
    assert "No space left" in mapped.message
    assert not mapped.retryable


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where absence cannot be demanded atomically, it is refused with a reason instead of pretended."""
    store = LocalStore(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreRefused) as caught:
        store.put("k", b"x", if_absent=True)
    assert "hard links" in caught.value.message
    store.put("k", b"x")


def test_link_whose_answer_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system a repeated link may say "exists" though it was ours: the link count tells."""
    real = os.link

    def twice(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)  # type: ignore[arg-type]
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", twice)
    store = LocalStore(tmp_path)
    store.put("k", b"x", if_absent=True)
    monkeypatch.undo()
    with pytest.raises(ObjectExists):
        store.put("k", b"y", if_absent=True)
    assert store.get("k") == b"x"


def test_path_that_is_a_file(tmp_path: Path) -> None:
    """A store path that is a file is refused by name, and its check fails with a remedy."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(StoreRefused):
        LocalStore(path).put("k", b"x")
    failed = [item for item in LocalStore(path).check() if item.outcome == "failed"]
    assert failed
    assert all(item.hint for item in failed)


def test_check_tells_the_space(tmp_path: Path) -> None:
    """The check of a directory has a line on free space."""
    assert "store: free space" in {item.name for item in LocalStore(tmp_path).check()}
