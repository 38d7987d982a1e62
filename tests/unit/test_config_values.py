"""Durations, sizes, URLs and secrets as people write them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drd.config_urls import mask_url
from drd.config_values import SecretRef, format_duration, format_size, parse_duration, parse_size
from drd.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("30d", 2592000), ("1h30m", 5400), ("1.5h", 5400), ("0.5s", 0.5)],
)
def test_durations_are_read(text, seconds):
    """A number and a unit, or several, make a duration."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "5", 5, None, True, "m", "5 minutes", "-5m", "0s", "5w", "1e3s", "9999999d"])
def test_other_durations_are_refused(value):
    """A bare number, a negative, zero or unknown unit is no duration."""
    with pytest.raises(ValueError, match="allowed: a duration"):
        parse_duration(value)


@given(st.integers(min_value=1, max_value=10**9))
def test_durations_come_back_as_written(seconds):
    """Whatever is shown by config show can be written into a configuration and means the same."""
    value = timedelta(seconds=seconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("text", "size"),
    [("8MiB", 8 << 20), ("50MB", 50_000_000), ("1.5 GiB", 3 << 29), ("512", 512), (4096, 4096), ("1kib", 1024)],
)
def test_sizes_are_read(text, size):
    """Binary and decimal units and plain bytes are read, in any case."""
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["", "lots", "-1", -1, None, True, "8Mi B", "8 XB", [8], 1.5])
def test_other_sizes_are_refused(value):
    """Anything that is no number with a known unit is refused."""
    with pytest.raises(ValueError, match="allowed: a size"):
        parse_size(value)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_sizes_come_back_as_written(size):
    """Whatever is shown by config show can be written into a configuration and means the same."""
    assert parse_size(format_size(size)) == size


@given(
    scheme=st.sampled_from(["postgresql://", "redis://", "https://", ""]),
    user=st.sampled_from(["", "admin", "a%40b"]),
    noise=st.text(max_size=8),
    more=st.text(max_size=8),
)
@example(scheme="", user="admin", noise="/", more="")
@example(scheme="", user="admin", noise="//", more="")
def test_a_masked_url_never_holds_the_password(scheme, user, noise, more):
    """Whatever characters surround it, nothing of the password between user and host is shown."""
    text = f"{scheme}{user}:{noise}hunter2{more}@db.internal:5432/shop"
    assert "hunter2" not in mask_url(text)


@pytest.mark.parametrize(
    "text",
    ["postgresql://h/d?password=hunter2", "host=h password=hunter2", "host=h password='hunter2 x'", "?pwd=hunter2"],
)
def test_a_password_parameter_is_masked(text):
    """A password in a query or a key=value list is masked too."""
    assert "hunter2" not in mask_url(text)


def secret(kind, value, environ=None):
    ref = SecretRef(kind, str(value), {} if environ is None else environ)
    ref.where = "store.secret_access_key"
    return ref


def test_a_secret_is_read_from_the_environment_when_used():
    """The variable is looked up by resolve, not before."""
    environ = {}
    ref = secret("env", "KEY", environ)
    environ["KEY"] = "hunter2"
    assert ref.resolve().reveal() == "hunter2"


@pytest.mark.parametrize(("content", "value"), [("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), ("a\n\n", "a\n")])
def test_a_secret_file_loses_one_newline(tmp_path: Path, content, value):
    """One trailing line end is the editor's, all else is the secret's."""
    path = tmp_path / "secret"
    path.write_bytes(content.encode())
    assert secret("file", path).resolve().reveal() == value


def test_an_unset_variable_is_named_with_its_place():
    """The error says which key wants which variable, and how to give it."""
    with pytest.raises(ConfigError, match=r"store\.secret_access_key: environment variable KEY is not set") as caught:
        secret("env", "KEY").resolve()
    assert "export KEY=" in caught.value.hint


def test_an_empty_secret_is_an_error(tmp_path: Path):
    """An empty variable or file is a mistake, not an empty password."""
    (tmp_path / "empty").write_text("\n")
    for ref in (secret("env", "KEY", {"KEY": ""}), secret("file", tmp_path / "empty"), secret("inline", "")):
        with pytest.raises(ConfigError, match="is empty"):
            ref.resolve()


def test_an_unreadable_secret_file_is_named(tmp_path: Path):
    """A missing file, a folder, binary content and a huge file are each named with the reason."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge").write_bytes(b"x" * 70_000)
    for name, reason in (("gone", "No such file"), (".", "Is a directory"), ("binary", "UTF-8"), ("huge", "too large")):
        with pytest.raises(ConfigError, match=reason):
            secret("file", tmp_path / name).resolve()


def test_a_secret_reference_never_shows_the_secret():
    """Neither repr nor the shown form of an inline secret holds it."""
    ref = secret("inline", "hunter2")
    assert "hunter2" not in repr(ref) + str(ref) + str(ref.shown()) + repr(ref.resolve())


@pytest.mark.parametrize("text", ["postgresql://admin@h", "postgresql://admin@h:5432/db", "redis://h:6379"])
def test_a_url_without_a_password_is_shown_as_it_is(text):
    """Only a password is masked: a user alone is not one."""
    assert mask_url(text) == text
