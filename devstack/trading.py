"""The trading platform's schema in PostgreSQL (``trading_platform``) and ClickHouse (``market_data``)."""

from __future__ import annotations

POSTGRES_DATABASE = "trading_platform"
CLICKHOUSE_DATABASE = "market_data"
BUCKET = "drd-backups"
PREFIX = "trading"

EXCHANGES = ("binance", "coinbase", "kraken", "okx", "bybit")
SYMBOLS = (
    *("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT", "AVAX/USDT", "DOT/USDT", "LINK/USDT"),
    *("MATIC/USDT", "LTC/USDT", "UNI/USDT", "ATOM/USDT", "ETC/USDT", "FIL/USDT", "APT/USDT", "ARB/USDT", "OP/USDT"),
    *("NEAR/USDT", "INJ/USDT"),
)

POSTGRES_TABLES = """
CREATE TABLE users (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    username varchar(50) NOT NULL,
    email varchar(100) NOT NULL,
    password_hash varchar(255) NOT NULL,
    membership_tier varchar(20) NOT NULL DEFAULT 'free'
        CHECK (membership_tier IN ('free', 'premium', 'pro', 'enterprise')),
    status varchar(20) NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'suspended')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE orders (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    exchange varchar(50) NOT NULL,
    symbol varchar(20) NOT NULL,
    side varchar(10) NOT NULL CHECK (side IN ('buy', 'sell')),
    order_type varchar(20) NOT NULL CHECK (order_type IN ('market', 'limit', 'stop', 'stop_limit')),
    quantity decimal(20, 8) NOT NULL CHECK (quantity > 0),
    price decimal(20, 8) CHECK (price > 0),
    status varchar(20) NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'submitted', 'partial_filled', 'filled', 'cancelled', 'rejected', 'failed')),
    filled_quantity decimal(20, 8) NOT NULL DEFAULT 0 CHECK (filled_quantity >= 0),
    avg_fill_price decimal(20, 8),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE strategies (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    name varchar(100) NOT NULL,
    strategy_type varchar(50) NOT NULL,
    parameters jsonb NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE api_keys (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    exchange varchar(50) NOT NULL,
    key_name varchar(100) NOT NULL,
    api_key_encrypted text NOT NULL,
    api_secret_encrypted text NOT NULL,
    passphrase_encrypted text,
    permissions jsonb NOT NULL DEFAULT '[]',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
"""

# Made after the rows: at scale 50 that is minutes quicker than checking and indexing row by row.
POSTGRES_CONSTRAINTS = """
ALTER TABLE users ADD PRIMARY KEY (id), ADD UNIQUE (username), ADD UNIQUE (email);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE strategies ADD PRIMARY KEY (id);
ALTER TABLE api_keys ADD PRIMARY KEY (id);
ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE strategies ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE api_keys ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
CREATE INDEX idx_orders_user_id ON orders (user_id);
CREATE INDEX idx_orders_symbol ON orders (symbol);
CREATE INDEX idx_orders_status ON orders (status);
CREATE INDEX idx_orders_created_at ON orders (created_at);
CREATE INDEX idx_strategies_user_id ON strategies (user_id);
CREATE INDEX idx_api_keys_user_id ON api_keys (user_id);
CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = CURRENT_TIMESTAMP;
    RETURN NEW;
END
$$;
CREATE TRIGGER update_users_updated_at BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_orders_updated_at BEFORE UPDATE ON orders
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_strategies_updated_at BEFORE UPDATE ON strategies
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_api_keys_updated_at BEFORE UPDATE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
"""

CLICKHOUSE_TABLES = (
    """
CREATE TABLE {database}.ticks (
    exchange LowCardinality(String), symbol LowCardinality(String), timestamp DateTime64(6, 'UTC'),
    price Decimal64(8), volume Decimal64(8), side Enum8('buy' = 1, 'sell' = 2), trade_id UInt64, is_maker Bool
) ENGINE = MergeTree PARTITION BY toYYYYMMDD(timestamp) ORDER BY (exchange, symbol, timestamp)
SETTINGS index_granularity = 8192
""",
    """
CREATE TABLE {database}.klines (
    exchange LowCardinality(String), symbol LowCardinality(String), interval LowCardinality(String),
    open_time DateTime64(3, 'UTC'), close_time DateTime64(3, 'UTC'), open Decimal64(8), high Decimal64(8),
    low Decimal64(8), close Decimal64(8), volume Decimal64(8), quote_volume Decimal64(8), trades_count UInt32
) ENGINE = MergeTree PARTITION BY toYYYYMM(open_time) ORDER BY (exchange, symbol, interval, open_time)
SETTINGS index_granularity = 8192
""",
    """
CREATE TABLE {database}.strategy_executions (
    strategy_id UUID, user_id UUID, timestamp DateTime64(3, 'UTC'),
    signal_type Enum8('buy' = 1, 'sell' = 2, 'hold' = 3), confidence Float64, market_data String,
    ai_reasoning String, execution_latency_ms UInt32
) ENGINE = MergeTree PARTITION BY toYYYYMM(timestamp) ORDER BY (strategy_id, timestamp)
SETTINGS index_granularity = 8192
""",
    """
CREATE TABLE {database}.performance_metrics (
    timestamp DateTime64(3, 'UTC'), metric_name LowCardinality(String), metric_value Float64,
    tags Map(String, String)
) ENGINE = MergeTree PARTITION BY toYYYYMMDD(timestamp) ORDER BY (metric_name, timestamp)
SETTINGS index_granularity = 8192
""",
)
