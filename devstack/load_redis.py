"""Fill a Redis with the platform's families of keys, the same for the same seed and time."""

from __future__ import annotations

import json
from datetime import datetime

import redis

from devstack.sizes import Sizes, now
from devstack.trading import EXCHANGES, SYMBOLS

_KEYS_LUA = """
-- families of keys by number: 40 % sessions, 25 % positions, 20 % rate limits and caches, the rest sets and queues
local first, last, seed, now = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local exchanges, symbols = cjson.decode(ARGV[5]), cjson.decode(ARGV[6])
for n = first, last do
  local id = redis.sha1hex(seed .. ':' .. n)
  local r = tonumber(string.sub(id, 1, 7), 16)
  local market = exchanges[1 + r % #exchanges] .. ':' .. symbols[1 + math.floor(r / 8) % #symbols]
  local kind = n % 20
  local key
  if kind < 8 then
    key = 'session:' .. id
    redis.call('HSET', key, 'user', string.sub(id, 1, 32), 'ip', '10.' .. r % 256 .. '.' .. r % 251 .. '.' .. r % 241,
      'agent', 'Mozilla/5.0 (X11; Linux x86_64) rv:' .. 90 + r % 40, 'csrf', redis.sha1hex(id))
    redis.call('PEXPIREAT', key, now + 3600000 + r % 86400000)
  elseif kind < 13 then
    key = 'position:' .. string.sub(id, 1, 12) .. ':' .. symbols[1 + r % #symbols]
    redis.call('HSET', key, 'quantity', string.format('%.8f', r / 1e6),
      'entry', string.format('%.2f', r % 6000000 / 100), 'leverage', 1 + r % 20,
      'pnl', string.format('%.4f', (r % 200000 - 100000) / 7))
  elseif kind < 16 then
    key = 'ratelimit:' .. string.sub(id, 1, 16)
    redis.call('SET', key, r % 1000, 'PXAT', now + 3600000 + r % 3600000)
  elseif kind == 16 then
    key = 'cache:order:' .. id
    redis.call('SET', key, cjson.encode({id = id, market = market, price = r / 100, filled = r % 2 == 0,
      history = {string.sub(id, 3, 20), string.sub(id, 5, 25), string.sub(id, 7, 30)}}))
  elseif kind == 17 then
    key = 'watch:' .. string.sub(id, 1, 14)
    for i = 1, 3 + r % 9 do redis.call('SADD', key, symbols[1 + (r + i * 7) % #symbols]) end
  elseif kind == 18 then
    key = 'queue:' .. string.sub(id, 1, 14)
    for i = 1, 2 + r % 12 do redis.call('RPUSH', key, redis.sha1hex(id .. i)) end
  else
    key = 'rank:' .. string.sub(id, 1, 14)
    for i = 1, 4 + r % 20 do redis.call('ZADD', key, r % (i * 97) / 13, string.sub(id, i, i + 8)) end
  end
end
return last - first + 1
"""

_MARKETS_LUA = """
-- what every market has once: a quote, two sides of an order book, the last trades, a stream of signals
local seed, now, depth = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local count = 0
for _, exchange in ipairs(cjson.decode(ARGV[4])) do
  for rank, symbol in ipairs(cjson.decode(ARGV[5])) do
    local market = exchange .. ':' .. symbol
    local base = 60000 / rank ^ 2.2
    redis.call('HSET', 'quote:' .. market, 'bid', string.format('%.6f', base * 0.9999), 'ask',
      string.format('%.6f', base * 1.0001), 'time', now)
    redis.call('DEL', 'orderbook:' .. market .. ':bids', 'orderbook:' .. market .. ':asks', 'trades:' .. market)
    for i = 1, depth do
      local h = redis.sha1hex(seed .. market .. i)
      local size = string.format('%.4f', tonumber(string.sub(h, 1, 6), 16) / 1e5)
      redis.call('ZADD', 'orderbook:' .. market .. ':bids', base * (1 - i / 10000), i .. ':' .. size)
      redis.call('ZADD', 'orderbook:' .. market .. ':asks', base * (1 + i / 10000), i .. ':' .. size)
      redis.call('RPUSH', 'trades:' .. market, cjson.encode({p = base * (1 + i / 99999), q = size, id = h}))
      redis.call('XADD', 'signals:' .. symbol, 'MAXLEN', '~', 2000, ARGV[2] .. '-' .. count * 1000 + i,
        'market', market, 'score', size, 'hash', h)
    end
    count = count + 4
  end
end
for _, symbol in ipairs(cjson.decode(ARGV[5])) do
  redis.pcall('XGROUP', 'CREATE', 'signals:' .. symbol, 'executors', '0')
end
return count
"""

_LUA_BATCH = 2000


def load_redis(client: redis.Redis, *, scale: float = 1.0, seed: int = 1, end_at: datetime | None = None) -> int:
    """Add keys of every family and type, many with a time to live of an hour and more; return the number of keys.

    All in the client's database, made by scripts inside one server. For a cluster see :func:`load_redis_cluster`.
    """
    moment = _milliseconds(end_at)
    _run_families(client, 1, Sizes.of(scale).redis_keys, seed, moment)
    _run_markets(client, seed, moment, depth=100 if scale >= 1 else 10)
    return client.dbsize()


def load_more_redis(client: redis.Redis, *, seed: int = 2, end_at: datetime | None = None) -> int:
    """Live on for a while: 2 % new keys, every quote and order book changes; return the number of keys."""
    moment = _milliseconds(end_at)
    _run_families(client, 1, max(20, client.dbsize() // 50), seed, moment)
    _run_markets(client, seed, moment, depth=20)
    return client.dbsize()


def load_redis_cluster(client: redis.RedisCluster, *, keys: int = 3000, seed: int = 1) -> int:
    """Add simple keys of several types to a cluster, spread over its slots; return how many."""
    for number in range(keys):
        name = f"{seed}:{number}"
        match number % 4:
            case 0:
                client.set(f"cache:{name}", f"value {number}", ex=86400)
            case 1:
                client.hset(f"position:{name}", mapping={"quantity": str(number / 7), "side": "buy"})
            case 2:
                client.zadd(f"orderbook:{name}", {f"level {level}": level / 3 for level in range(5)})
            case _:
                client.rpush(f"trades:{name}", *[f"{number}:{level}" for level in range(5)])
    return keys


def _milliseconds(moment: datetime | None) -> int:
    return round((moment or now()).timestamp() * 1000)


def _run_families(client: redis.Redis, first: int, last: int, seed: int, moment_ms: int) -> None:
    script = client.register_script(_KEYS_LUA)
    markets = [json.dumps(EXCHANGES), json.dumps(SYMBOLS)]
    for start in range(first, last + 1, _LUA_BATCH):
        script(args=[start, min(start + _LUA_BATCH - 1, last), seed, moment_ms, *markets])


def _run_markets(client: redis.Redis, seed: int, moment_ms: int, *, depth: int) -> None:
    client.register_script(_MARKETS_LUA)(args=[seed, moment_ms, depth, json.dumps(EXCHANGES), json.dumps(SYMBOLS)])
