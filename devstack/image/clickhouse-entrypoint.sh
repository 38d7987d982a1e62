#!/bin/sh
# What the official ClickHouse image does at its start: become user clickhouse, serve the named configuration. Where that
# is not there: one with a user made of CLICKHOUSE_USER and CLICKHOUSE_PASSWORD (or CLICKHOUSE_PASSWORD_FILE), and with
# the database CLICKHOUSE_DB.
set -eu
folder=/etc/clickhouse-server data=/var/lib/clickhouse
config=${CLICKHOUSE_CONFIG:-$folder/config.xml}
if [ "$(id -u)" = 0 ]; then
    if [ ! -e "$config" ]; then chown -R clickhouse:clickhouse $data; fi
    exec setpriv --reuid=clickhouse --regid=clickhouse --clear-groups -- "$0" "$@"
fi
if [ ! -e "$config" ]; then
    umask 077
    if [ -n "${CLICKHOUSE_PASSWORD_FILE:-}" ]; then CLICKHOUSE_PASSWORD=$(cat "$CLICKHOUSE_PASSWORD_FILE"); fi
    cat > "$folder/users.xml" << END
<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><$CLICKHOUSE_USER>
<password>$CLICKHOUSE_PASSWORD</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<access_management>${CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT:-0}</access_management>
</$CLICKHOUSE_USER></users></clickhouse>
END
    cat > "$config" << END
<clickhouse><listen_host>0.0.0.0</listen_host><http_port>8123</http_port><tcp_port>9000</tcp_port>
<path>$data/</path><users_config>$folder/users.xml</users_config></clickhouse>
END
    if [ -n "${CLICKHOUSE_DB:-}" ] && [ ! -e "$data/metadata/$CLICKHOUSE_DB.sql" ]; then
        mkdir -p $data/metadata
        uuid=$(cat /proc/sys/kernel/random/uuid)
        printf "ATTACH DATABASE _ UUID '%s'\nENGINE = Atomic\n" "$uuid" > "$data/metadata/$CLICKHOUSE_DB.sql"
    fi
fi
if [ $# -eq 0 ]; then set -- clickhouse server "--config-file=$config"; fi
exec "$@"
