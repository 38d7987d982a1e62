"""What each engine's scratch server is made of, the same for every runtime: settings, command, address, readiness."""

from __future__ import annotations

from drd.model import EngineKind
from drd.scratch.recipes.clickhouse import ClickHouseRecipe
from drd.scratch.recipes.postgres import PostgresRecipe
from drd.scratch.recipes.recipe import Recipe
from drd.scratch.recipes.redis import RedisRecipe

RECIPES: dict[EngineKind, Recipe] = {
    "postgres": PostgresRecipe(),
    "redis": RedisRecipe(),
    "clickhouse": ClickHouseRecipe(),
}
