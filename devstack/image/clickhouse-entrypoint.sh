#!/bin/sh
# What the official ClickHouse image does at its start: become user clickhouse, serve the named configuration.
set -eu
if [ $# -eq 0 ]; then set -- clickhouse server "--config-file=${CLICKHOUSE_CONFIG:-/etc/clickhouse-server/config.xml}"; fi
if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=clickhouse --regid=clickhouse --clear-groups -- "$0" "$@"
fi
exec "$@"
