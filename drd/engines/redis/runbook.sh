REDIS_SERVER=${REDIS_SERVER:-$REDIS_FAMILY-server}
REDIS_CLI=${REDIS_CLI:-$REDIS_FAMILY-cli}
REDIS_CHECK=${REDIS_CHECK:-$REDIS_FAMILY-check-rdb}

ask() { # ask PORT COMMAND...: with the password in REDISCLI_AUTH, if there is one
    "$REDIS_CLI" -h 127.0.0.1 -p "$@"
}

info() { # info PORT FIELD
    ask "$1" info everything | tr -d '\r' | awk -F: -v field="$2" '$1 == field { print $2 }'
}

in_quotes() { # as redis.conf reads it
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

port_in_use() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

check_target() {
    local program line port said n=0
    for program in "$REDIS_SERVER" "$REDIS_CLI" "$REDIS_CHECK"; do
        if ! command -v "$program" >/dev/null; then
            problem "the program $program is not on the PATH" "Where it is: export REDIS_SERVER, REDIS_CLI, REDIS_CHECK"
        fi
    done
    if [ -z "${REDIS_DIR:-}" ]; then
        problem "REDIS_DIR is not set" "export REDIS_DIR=/path/to/an/empty/data/folder"
    elif ! mkdir -p -- "$REDIS_DIR"; then
        problem "the folder $REDIS_DIR cannot be made"
    elif [ -n "$(ls -A -- "$REDIS_DIR")" ]; then
        problem "REDIS_DIR is not empty: $REDIS_DIR" "Name another; if an earlier run of this script filled it, stop the" \
            "server that it started ($REDIS_CLI -p ${REDIS_PORT:-PORT} shutdown nosave) and empty it."
    else
        REDIS_DIR=$(cd -- "$REDIS_DIR" && pwd)
    fi
    if ! [[ ${REDIS_PORT:-} =~ ^[0-9]+$ ]]; then
        problem "REDIS_PORT is not set" "export REDIS_PORT=6379, or any free port"
        return 0
    fi
    while read -r line; do
        port=$((REDIS_PORT + n)) n=$((n + 1))
        if port_in_use "$port"; then problem "port $port is in use"; fi
        if [ "$REDIS_CLUSTER" = yes ] && port_in_use "$((port + 10000))"; then
            problem "port $((port + 10000)), by which the nodes talk to each other, is in use"
        fi
    done <<<"$REDIS_SHARDS"
    if said=$("$REDIS_SERVER" --version 2>&1); then say "${said%% sha=*}; the backup is of $REDIS_BACKUP_VERSION"; fi
}

start_on() { # start_on FOLDER PORT SNAPSHOT CONFIGURATION-LINE...: start a server on the snapshot; wait until it is loaded
    local folder=$1 port=$2 snapshot=$3 tries=0 pid
    shift 3
    say "starting $REDIS_SERVER on port $port in $folder ..."
    "$REDIS_CHECK" "$snapshot" >"$DRD_WORK/check-rdb.log" 2>&1 ||
        die "$REDIS_CHECK does not accept $snapshot: $(tail -n 1 "$DRD_WORK/check-rdb.log")" \
            "This $REDIS_SERVER must be at least as new as the backup's server ($REDIS_BACKUP_VERSION)."
    mkdir -p -- "$folder"
    cp -- "$snapshot" "$folder/dump.rdb"
    {
        # With the append-only file on, the server would ignore dump.rdb and start empty. It is turned on below.
        printf '%s\n' "bind 127.0.0.1" "port $port" "appendonly no" "dbfilename dump.rdb" "daemonize yes" "save \"\"" "$@"
        printf 'dir %s\n' "$(in_quotes "$folder")"
        printf 'pidfile %s\nlogfile %s\n' "$(in_quotes "$folder/restore.pid")" "$(in_quotes "$folder/restore.log")"
        if [ -n "${REDISCLI_AUTH:-}" ]; then
            printf 'requirepass %s\nmasterauth %s\n' "$(in_quotes "$REDISCLI_AUTH")" "$(in_quotes "$REDISCLI_AUTH")"
        fi
        if [ -n "${REDIS_CONF:-}" ]; then printf 'include %s\n' "$(in_quotes "$REDIS_CONF")"; fi
    } >"$DRD_WORK/redis-$port.conf"
    "$REDIS_SERVER" "$DRD_WORK/redis-$port.conf" || die "$REDIS_SERVER did not start" "See $folder/restore.log"
    until [ "$(ask "$port" ping 2>/dev/null || true)" = PONG ]; do
        tries=$((tries + 1))
        pid=$(cat -- "$folder/restore.pid" 2>/dev/null || true)
        if [ "$tries" -gt 20 ] && { [ -z "$pid" ] || ! kill -0 "$pid" 2>/dev/null; }; then
            die "$REDIS_SERVER on port $port ended while it loaded the data" "$(tail -n 3 "$folder/restore.log" || true)"
        fi
        sleep 0.3
    done
}

compare_keys() { # compare_keys PORT KEYS: those that it loaded and those that had expired by now are those of the backup
    local loaded expired
    loaded=$(info "$1" rdb_last_load_keys_loaded) expired=$(info "$1" rdb_last_load_keys_expired)
    if [ "$2" = - ] || [ -z "$loaded" ]; then # the counts are not known, or the server is older than 7.0
        say "port $1 holds $(ask "$1" info keyspace | tr -d '\r' | tr '\n' ' ')"
    elif [ "$((loaded + expired))" -ne "$2" ]; then
        die "the server on port $1 loaded $loaded keys and found $expired expired, but the backup has $2"
    else
        say "port $1: $loaded keys are loaded, $expired have expired since the backup; together the backup's $2"
    fi
}

turn_append_only_file_on() { # turn_append_only_file_on PORT: as a live server has it; wait for its first whole form
    ask "$1" config set appendonly yes >/dev/null
    while [ "$(info "$1" aof_rewrite_in_progress)$(info "$1" aof_rewrite_scheduled)" != 00 ]; do sleep 0.2; done
    if [ "$(info "$1" aof_last_bgrewrite_status)" != ok ]; then die "the append-only file on port $1 could not be written"; fi
}

restore_one() {
    local file keys slots
    read -r file keys slots <<<"$REDIS_SHARDS"
    start_on "$REDIS_DIR" "$REDIS_PORT" "$DATA/$file"
    compare_keys "$REDIS_PORT" "$keys"
    turn_append_only_file_on "$REDIS_PORT"
}

restore_cluster() { # every shard on a port of its own, with the slots it had
    local file keys slots range port n=0
    while read -r -u 4 file keys slots; do
        port=$((REDIS_PORT + n)) n=$((n + 1))
        start_on "$REDIS_DIR/$port" "$port" "$DATA/$file" "cluster-enabled yes" "cluster-config-file nodes.conf"
        compare_keys "$port" "$keys"
        # A node takes the slots of the keys it holds by itself ("already busy" is about those).
        if [ "$slots" = - ]; then slots=''; fi
        for range in ${slots//,/ }; do
            seq "${range%-*}" "${range#*-}" | sed 's/^/cluster addslots /' | ask "$port" >/dev/null 2>&1
        done
        ask "$port" cluster set-config-epoch "$n" >/dev/null
        turn_append_only_file_on "$port"
        if [ "$port" -ne "$REDIS_PORT" ]; then ask "$REDIS_PORT" cluster meet 127.0.0.1 "$port" >/dev/null; fi
    done 4<<<"$REDIS_SHARDS"
    say "waiting until the $n nodes agree ..."
    for ((range = 0; range < 120; range++)); do
        if ask "$REDIS_PORT" --cluster check "127.0.0.1:$REDIS_PORT" >"$DRD_WORK/cluster.log" 2>&1; then return 0; fi
        sleep 0.5
    done
    die "the nodes did not become a cluster: $(tail -n 1 "$DRD_WORK/cluster.log")"
}

restore_target() {
    if [ "$REDIS_CLUSTER" = yes ]; then restore_cluster; else restore_one; fi
    say "Next: stop it (REDISCLI_AUTH=... $REDIS_CLI -p $REDIS_PORT shutdown), give $REDIS_DIR to the server's own user" \
        "(chown -R redis: $REDIS_DIR), and start your service with that dir and appendonly yes."
    if [ -f "$DATA/acl.txt" ]; then say "The users it had, as lines for an aclfile: $DATA/acl.txt"; fi
    say "Keep the old server, its replicas and Sentinels stopped; take a new backup."
}
