CLICKHOUSE_URL=${CLICKHOUSE_URL:-}
CLICKHOUSE_URL=${CLICKHOUSE_URL%/}

literal() { # literal TEXT: quoted for SQL
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\\\'}"
}

identifier() { # identifier NAME: quoted for SQL
    local text=${1//\\/\\\\}
    printf '`%s`' "${text//\`/\\\`}"
}

element() { printf 'DATABASE %s' "$(identifier "$1")"; }

plain_name() { # plain_name ESCAPED: undo the %XX that ClickHouse puts into file names
    printf '%b' "${1//%/\\x}"
}

header() { # header NAME VALUE: as a line of curl's configuration
    local text=${2//\\/\\\\}
    printf 'header = "%s: %s"\n' "$1" "${text//\"/\\\"}"
}

# One statement on standard input; the answer, tab-separated, on standard output; an error of the server in $answer. The
# password goes to curl by a pipe, not by its arguments, where everyone on this machine could read it.
query() {
    local code
    code=$(curl --silent --show-error --output "$DRD_WORK/answer" --write-out '%{http_code}' --data-binary @- \
        --config <(header X-ClickHouse-User "${CLICKHOUSE_USER:-default}"
            header X-ClickHouse-Key "${CLICKHOUSE_PASSWORD:-}") \
        "$CLICKHOUSE_URL/?wait_end_of_query=1&check_query_single_value_result=1" 2>"$DRD_WORK/curl.error") ||
        { cat -- "$DRD_WORK/curl.error" >&2; return 1; }
    if [ "$code" != 200 ]; then
        awk 'NR == 1 { print substr($0, 1, 500) }' "$DRD_WORK/answer" >&2
        return 1
    fi
    cat -- "$DRD_WORK/answer"
}

# Which folder this script made there, and whether it is complete, is noted in DRD_WORK: nothing else is ever removed.
note() { printf '%s\n' "$CLICKHOUSE_BACKUPS/$BACKUP" >"$DRD_WORK/clickhouse.$1"; }
is_ours() { [ "$(cat -- "$DRD_WORK/clickhouse.$1" 2>/dev/null || true)" = "$CLICKHOUSE_BACKUPS/$BACKUP" ]; }

check_target() {
    local said
    if [ -z "$CLICKHOUSE_URL" ]; then
        problem "CLICKHOUSE_URL is not set" "export CLICKHOUSE_URL=http://127.0.0.1:8123 (the HTTP port, not 9000)"
        return 0
    fi
    if ! said=$(query 2>&1 <<<"SELECT version()"); then
        problem "ClickHouse at $CLICKHOUSE_URL cannot be asked: $said" "Check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD."
        return 0
    fi
    say "ClickHouse $said; the backup is of $CLICKHOUSE_VERSION"
    if [ "$CLICKHOUSE_DIRECT" = yes ]; then
        CLICKHOUSE_S3_URL=${CLICKHOUSE_S3_URL:-${STORE_ENDPOINT:-https://s3.$STORE_REGION.amazonaws.com}/$STORE_BUCKET}
        CLICKHOUSE_S3_URL=${CLICKHOUSE_S3_URL%/}/${STORE_PREFIX:+${STORE_PREFIX%/}/}
        CLICKHOUSE_S3_KEY=${CLICKHOUSE_S3_KEY:-${AWS_ACCESS_KEY_ID:-}}
        CLICKHOUSE_S3_SECRET=${CLICKHOUSE_S3_SECRET:-${AWS_SECRET_ACCESS_KEY:-}}
        if [ -z "$CLICKHOUSE_S3_KEY" ] || [ -z "$CLICKHOUSE_S3_SECRET" ]; then
            problem "the server needs a key of the store, to read the backup" "export CLICKHOUSE_S3_KEY, CLICKHOUSE_S3_SECRET"
        fi
        check_databases
    elif [ ! -d "${CLICKHOUSE_BACKUPS:-}" ] || [ ! -w "$CLICKHOUSE_BACKUPS" ]; then
        problem "CLICKHOUSE_BACKUPS names no folder that can be written" \
            "It is a folder that the server reads backups from: <backups><allowed_path> in its configuration," \
            "or the path of a disk that <allowed_disk> names; if it is a disk, also: export CLICKHOUSE_DISK=its-name" \
            "Run this script where that folder is: on the server's machine, or where it is mounted."
    else
        CLICKHOUSE_BACKUPS=$(cd -- "$CLICKHOUSE_BACKUPS" && pwd)
        if [ -e "$CLICKHOUSE_BACKUPS/$BACKUP" ] && ! is_ours placed; then
            problem "$CLICKHOUSE_BACKUPS/$BACKUP exists already" "Remove it, if an earlier run of this script made it."
        fi
    fi
}

# ---- laying the backup where the server reads it ----------------------------------------------------------------------

size_of() { # size_of KEY: of an object of the backup, by the index that drd wrote
    awk -v key="\"$1\":[" 'index($0, key) == 1 || index($0, "," key) == 1 {
        rest = substr($0, index($0, key) + length(key)); print int(rest); exit }' "$DATA/clickhouse/index.json"
}

join_parts() { # the server sends a large file in parts: put them together, and nothing else
    local first whole key size
    find "$1" -name '*.part-00001' -print >"$DRD_WORK/to-join"
    while read -r -u 4 first; do
        whole=${first%.part-00001} key=${first#"$1"/}
        size=$(size_of "${key%.part-00001}")
        if [ -z "$size" ]; then continue; fi # the server took it back
        if [ ! -f "$whole" ] || [ "$(wc -c <"$whole")" -ne "$size" ]; then cat -- "$whole".part-* >"$whole"; fi
        if [ "$(wc -c <"$whole")" -ne "$size" ]; then die "${whole#"$1"/} has not the $size bytes it should have" "$UNUSABLE"; fi
        rm -f -- "$whole".part-*
    done 4<"$DRD_WORK/to-join"
}

place_backup() {
    local place=$CLICKHOUSE_BACKUPS/$BACKUP
    if is_ours complete && [ -d "$place" ]; then return 0; fi
    if is_ours placed; then rm -rf -- "$place"; fi # left half-made by an earlier run
    say "unpacking into $place ..."
    mkdir -- "$place"
    note placed
    tar -xf "$DATA/clickhouse/backup.tar" --no-same-owner -C "$place"
    join_parts "$place"
    if [ ! -f "$place/.backup" ]; then die "the server's own list of files (.backup) is not in the backup" "$UNUSABLE"; fi
    if [ "$(id -u)" = 0 ]; then
        chown -R --reference="$CLICKHOUSE_BACKUPS" -- "$place" # whoever owns the folder is who the server runs as
    fi
    chmod -R u+rwX,go+rX -- "$place" # the folder above it says who gets here
    note complete
}

# ---- restoring --------------------------------------------------------------------------------------------------------

databases=()
find_databases() { # their names stand in the file names of the backup
    local name
    if [ "$CLICKHOUSE_DIRECT" != yes ]; then
        CLICKHOUSE_DATABASES=$(cd -- "$CLICKHOUSE_BACKUPS/$BACKUP/metadata" &&
            find . -mindepth 1 -maxdepth 1 | sed -e 's,^\./,,' -e 's/\.sql$//' | sort -u)
    fi
    while read -r name; do
        name=$(plain_name "$name")
        if [ -n "$name" ] && [ "$name" != system ]; then databases+=("$name"); fi
    done <<<"$CLICKHOUSE_DATABASES"
    if [ "${#databases[@]}" -eq 0 ]; then die "no database is in this backup" "$UNUSABLE"; fi
}

list_of() { # list_of FUNCTION NAME...: each name through the function, with commas between them
    local how=$1 out='' name
    shift
    for name; do out+="${out:+, }$("$how" "$name")"; done
    printf '%s' "$out"
}

check_databases() {
    local full name
    if [ "${#databases[@]}" -eq 0 ]; then find_databases; fi
    if ! full=$(query <<<"SELECT DISTINCT database FROM system.tables
                          WHERE database IN ($(list_of literal "${databases[@]}")) FORMAT TSVRaw"); then
        problem "ClickHouse cannot be asked what it holds (see above)"
    elif [ -n "$full" ]; then
        while read -r name; do
            problem "the database $name exists and holds tables; it is not touched" \
                "Restore into another server, or put it aside first: RENAME DATABASE $(identifier "$name") TO ..." \
                "or, if an earlier run of this script left it half-made: DROP DATABASE $(identifier "$name") SYNC"
        done <<<"$full"
    fi
}

run_restore() { # run_restore WHAT: started in the background and watched, however long it takes; the error in $failure
    local id status silent=0
    id=$BACKUP-$(date +%s)-$$-$RANDOM
    failure=''
    query >/dev/null 2>"$DRD_WORK/restore.error" \
        <<<"RESTORE $1 FROM $origin SETTINGS id=$(literal "$id"), allow_different_database_def=1$built_on ASYNC" ||
        { failure=$(cat -- "$DRD_WORK/restore.error"); return 1; }
    while :; do
        status=$(query <<<"SELECT status FROM system.backups WHERE id = $(literal "$id")" || echo SILENT)
        case $status in
        RESTORED) return 0 ;;
        RESTORING) silent=0 && sleep 0.5 ;;
        SILENT)
            silent=$((silent + 1))
            if [ "$silent" -ge 30 ]; then failure='the server does not answer any more' && return 1; fi
            sleep 2
            ;;
        '') failure='the server forgot it; was it restarted?' && return 1 ;;
        *)
            failure=$(query <<<"SELECT substring(error, 1, 500) FROM system.backups WHERE id = $(literal "$id") FORMAT TSVRaw")
            return 1
            ;;
        esac
    done
}

restore_access() { # users, roles and functions that were made by SQL
    local kind
    for kind in $CLICKHOUSE_ACCESS; do
        if ! run_restore "TABLE system.$kind" && [[ $failure != *BACKUP_ENTRY_NOT_FOUND* ]]; then
            say "! $kind were not restored: ${failure%%$'\n'*}"
        fi
    done
}

check_tables() { # RESTORE does not verify what it reads: let the server read every part back and compare checksums
    local what answer bad=0
    query >"$DRD_WORK/tables" <<<"
        SELECT format('{0}{1}{0}.{0}{2}{0}', char(96), replaceAll(replaceAll(database, char(92), char(92, 92)), char(96), char(92, 96)),
                      replaceAll(replaceAll(name, char(92), char(92, 92)), char(96), char(92, 96)))
          FROM system.tables WHERE database IN ($(list_of literal "${databases[@]}")) AND engine LIKE '%MergeTree'
        FORMAT TSVRaw"
    while read -r -u 4 what; do
        say "CHECK TABLE $what ..."
        answer=$(query <<<"CHECK TABLE $what")
        if [ "$answer" != 1 ]; then
            printf '✗ the server finds %s damaged: %s\n' "$what" "$answer" >&2
            bad=$((bad + 1))
        fi
    done 4<"$DRD_WORK/tables"
    if [ "$bad" -gt 0 ]; then die "$bad table(s) are damaged" "Drop what was restored and try an earlier backup."; fi
}

in_bucket() { # in_bucket PREFIX: where the server reads a backup that a server wrote
    printf 'S3(%s, %s, %s)' "$(literal "$CLICKHOUSE_S3_URL$1")" "$(literal "$CLICKHOUSE_S3_KEY")" "$(literal "$CLICKHOUSE_S3_SECRET")"
}

restore_target() {
    local origin failure found built_on=''
    if [ "$CLICKHOUSE_DIRECT" = yes ]; then
        origin=$(in_bucket "$CLICKHOUSE_DIRECT_PREFIX")
        if [ -n "$CLICKHOUSE_DIRECT_BASE_PREFIX" ]; then # the full backup that has the files that this one left out
            built_on=", base_backup=$(in_bucket "$CLICKHOUSE_DIRECT_BASE_PREFIX")"
        fi
    else
        place_backup
        check_databases
        if [ "$problems" -gt 0 ]; then die "$problems thing(s) to put right. Nothing was restored."; fi
        if [ -n "${CLICKHOUSE_DISK:-}" ]; then
            origin="Disk($(literal "$CLICKHOUSE_DISK"), $(literal "$BACKUP"))"
        else
            origin="File($(literal "${CLICKHOUSE_SERVER_PATH:-$CLICKHOUSE_BACKUPS}/$BACKUP"))"
        fi
    fi
    say "RESTORE of ${databases[*]} ..."
    run_restore "$(list_of element "${databases[@]}")" ||
        die "ClickHouse did not restore it: $failure" \
            "What it made so far is incomplete. Drop it: DROP DATABASE $(identifier "${databases[0]}") SYNC (each of them)"
    check_tables
    restore_access
    found=$(query <<<"SELECT sum(total_rows) FROM system.tables WHERE database IN ($(list_of literal "${databases[@]}"))")
    say "rows now: $found; rows when it was backed up: ${ROWS:-not counted} (merges may have removed some since)"
    if [ "$CLICKHOUSE_DIRECT" != yes ]; then
        rm -rf -- "${CLICKHOUSE_BACKUPS:?}/$BACKUP"
        rm -f -- "$DRD_WORK/clickhouse.placed" "$DRD_WORK/clickhouse.complete"
    fi
    say "Next: point the application at this server, and take a new backup."
}
