"""Marks in database comments: read back as written, and nothing else taken for one; names within 63 bytes."""

from __future__ import annotations

import json

import pytest

from drd.engines.marks import Mark, copies_among, kept_name, read_mark, staged_name

ID = "20261122T181455Z-k3f9qa"


@pytest.mark.parametrize("comment", [None, "", 'it\'s "ours"\n中'])
def test_a_mark_is_read_as_it_was_written(comment: str | None) -> None:
    """Also with a comment of the database's own in it."""
    mark = Mark(ID, "old", 'sh"op', comment, ("a.b", "c"))
    assert read_mark(mark.text()) == mark


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "drd-restore",
        "drd-restore {}",
        "drd-restore []",
        "drd-restore {",
        "a drd-restore",
        "drd-restore " + json.dumps({"restore": ID, "role": "king", "live": "x", "comment": None, "parked": []}),
        "drd-restore " + json.dumps({"restore": 1, "role": "old", "live": "x", "comment": None, "parked": []}),
        "drd-restore " + json.dumps({"restore": ID, "role": "old", "live": "x", "comment": 3, "parked": []}),
        "drd-restore " + json.dumps({"restore": ID, "role": ["old"], "live": "x", "comment": None, "parked": []}),
        "drd-restore " + json.dumps({"restore": ID, "role": "old", "live": "x", "comment": None, "parked": [], "m": 1}),
        "drd-restore " + json.dumps({"restore": ID, "role": "old", "live": "x", "comment": None}),
        "drd-restore " + json.dumps({"restore": ID, "role": "old", "live": "x", "comment": None, "parked": [1]}),
    ],
)
def test_other_comments_are_no_marks(text: str | None) -> None:
    """Anybody may write a comment; what is not exactly a mark is none, so its database is never touched."""
    assert read_mark(text) is None


def test_names_fit_and_differ() -> None:
    """Names of any length and script become names of at most 63 bytes that keep what tells them apart."""
    for live in ("shop", "x" * 63, "é中" * 12):
        names = {staged_name(ID, live), kept_name(ID, live, "old"), kept_name(ID, live, "undone")}
        assert len(names) == 3
        assert all(len(name.encode()) <= 63 and "k3f9qa" in name for name in names)
    assert kept_name(ID, "shop", "old") == "shop_before_20261122_181455_k3f9qa"
    alike = [f"{'long' * 14}_{end}" for end in ("one", "two")]
    assert len({staged_name(ID, live) for live in alike} | {kept_name(ID, live, "old") for live in alike}) == 4


def test_copies_are_told_from_the_rest() -> None:
    """A restore's own copies are; a live database, and a copy that somebody gave a name of his own, are not."""
    old, undone, staged = kept_name(ID, "shop", "old"), kept_name(ID, "shop", "undone"), staged_name(ID, "shop")
    text = Mark(ID, "old", "shop", "mine").text()
    comments = {"shop": text, "kept by me": text, old: text, undone: text, staged: text, "other": "mine", "none": None}
    assert copies_among(comments) == [old, undone, staged]
    assert copies_among({old: None}) == []
