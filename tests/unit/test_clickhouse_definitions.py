"""Definitions made anew after a rename: the query of a view found in its text, and what is said for each kind."""

from __future__ import annotations

import pytest

from drd.engines.clickhouse.definitions import renewal, select_of
from drd.errors import IntegrityError, TargetError

UUID = "UUID '5ff05423-77a7-4315-97c3-013dda93c441'"
VIEW = (
    f"CREATE MATERIALIZED VIEW a.counts {UUID} TO INNER {UUID} (`symbol AS SELECT x` String, `c` UInt64 DEFAULT 1 + "
    "(SELECT 2 AS SELECT)) ENGINE = SummingMergeTree ORDER BY symbol SETTINGS index_granularity = 8192 AS "
)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT symbol, count() AS c FROM a.ticks GROUP BY symbol",
        "WITH 1 AS x SELECT ' AS SELECT ' AS s, `AS SELECT` FROM a.ticks",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SELECT 'it\\'s AS SELECT' FROM (SELECT 1 AS y)",
    ],
)
def test_the_query_of_a_view(query: str) -> None:
    """It begins after the first AS outside quotes and parentheses, and ends before a comment."""
    assert select_of(VIEW + query) == query
    assert select_of(VIEW + query + " COMMENT 'it\\'s AS SELECT'") == query


def test_a_view_without_a_query() -> None:
    """A definition that holds none is damaged."""
    with pytest.raises(IntegrityError):
        select_of("CREATE MATERIALIZED VIEW a.b (`x` String) ENGINE = Log")


def test_each_kind_is_made_anew_in_its_way() -> None:
    """Views and dictionaries are replaced, what holds no rows is made again, what holds rows gets its query changed."""
    assert renewal("a", "v", "View", f"CREATE VIEW a.v {UUID} (`x` UInt8) AS SELECT 1", holds_rows=False) == [
        "CREATE OR REPLACE VIEW a.v (`x` UInt8) AS SELECT 1"
    ]
    assert renewal("a", "d", "Dictionary", f"CREATE DICTIONARY a.d {UUID} (`x` UInt8)", holds_rows=False) == [
        "CREATE OR REPLACE DICTIONARY a.d (`x` UInt8)"
    ]
    made = f"CREATE MATERIALIZED VIEW a.m {UUID} TO a.t (`x` UInt8) AS SELECT 1"
    assert renewal("a", "m", "MaterializedView", made, holds_rows=False) == [
        "DROP TABLE IF EXISTS `a`.`m` SYNC",
        "CREATE MATERIALIZED VIEW a.m TO a.t (`x` UInt8) AS SELECT 1",
    ]
    (changed,) = renewal("a", "counts", "MaterializedView", VIEW + "SELECT 1", holds_rows=True)
    assert changed == "ALTER TABLE `a`.`counts` MODIFY QUERY SELECT 1"
    with pytest.raises(TargetError, match="cannot be moved"):
        renewal("a", "t", "MergeTree", "CREATE TABLE a.t (`x` UInt8 DEFAULT dictGet('a.d', 'x', 1))", holds_rows=True)
