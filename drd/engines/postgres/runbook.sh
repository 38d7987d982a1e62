# Errors of pg_restore that leave a restore whole: the schema exists in every new database, and a newer pg_restore sets
# what an older server does not know.
PG_HARMLESS='ERROR:  (schema "public" already exists|unrecognized configuration parameter "transaction_timeout")'

export PGCLIENTENCODING=UTF8 PGAPPNAME=drd-runbook
# Text forms as pg_dump read them, messages in English, and no setting of the server may stop a long restore.
export PGOPTIONS="$PG_TEXT_FORM -c lc_messages=C -c statement_timeout=0 -c lock_timeout=0"

database() { # database NAME: a connection string, whatever the name looks like
    local name=${1//\\/\\\\}
    printf "dbname='%s'" "${name//\'/\\\'}"
}

query() { # query DATABASE [psql's options]: statements on standard input, bare rows on standard output
    local name=$1
    shift
    psql --no-psqlrc --quiet --no-align --tuples-only --no-password --set ON_ERROR_STOP=1 "$@" "$(database "$name")"
}

major_of() { "$1" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'; }

check_target() {
    local said
    if [ "$(major_of pg_restore)" -lt "$PG_TOOL_MAJOR" ]; then
        problem "pg_restore is of version $(major_of pg_restore); the backup was made by pg_dump $PG_TOOL_MAJOR" \
            "Install the PostgreSQL client of version $PG_TOOL_MAJOR or newer and put it first on the PATH."
    fi
    if ! said=$(query postgres 2>&1 <<<"SELECT current_setting('server_version_num')::int / 10000, rolsuper
                                        FROM pg_roles WHERE rolname = current_user"); then
        problem "PostgreSQL cannot be asked: $said" "Set PGHOST, PGPORT, PGUSER, PGPASSWORD (or ~/.pgpass)."
        return 0
    fi
    if [ "${said%|*}" -lt "$PG_SERVER_MAJOR" ]; then
        problem "the server is of version ${said%|*}, older than the backup's ($PG_SERVER_MAJOR)"
    fi
    if [ "${said#*|}" != t ]; then problem "PGUSER is not a superuser, so owners and roles cannot be restored"; fi
}

# The statements of the roles that this server lacks. Roles that exist keep their password, settings and attributes (the
# one you work as is among them). Tablespaces are left out: their folders belong to another machine.
new_roles() { # new_roles FILE-OF-EXISTING FILE-OF-GLOBALS
    awk '
        function name_at(text) { # the name that begins text, as it stands there
            if (match(text, /^"([^"]|"")*"/) || match(text, /^[^ ;]+/)) return substr(text, 1, RLENGTH)
            return ""
        }
        function is_new(name) { return name != "" && !(name in exists) }
        function take(statement,   first, rest, second) {
            if (match(statement, /^(CREATE|ALTER) ROLE /) || match(statement, /^COMMENT ON ROLE /) ||
                match(statement, /^SECURITY LABEL [^;]*ON ROLE /)) {
                if (is_new(name_at(substr(statement, RLENGTH + 1)))) print statement
            } else if (match(statement, /^GRANT .* ON PARAMETER .* TO /)) {
                if (is_new(name_at(substr(statement, RLENGTH + 1)))) print statement
            } else if (statement ~ /^GRANT / && statement !~ / ON TABLESPACE /) {
                first = name_at(substr(statement, 7))
                rest = substr(statement, 7 + length(first))
                if (rest !~ /^ TO /) return
                second = name_at(substr(rest, 5))
                sub(/ GRANTED BY ("([^"]|"")*"|[^ ;]+);$/, ";", statement) # who granted it need not be able to here
                if (is_new(first) || is_new(second)) print statement
            }
        }
        NR == FNR { exists[$0] = 1; next }
        statement == "" && (/^--/ || /^\\/ || /^$/) { next }
        {
            statement = statement (statement == "" ? "" : "\n") $0
            for (i = 1; i <= length($0); i++) { # a statement ends at a semicolon outside of quotes
                c = substr($0, i, 1)
                if (c == "\047" && !named) quoted = !quoted
                else if (c == "\"" && !quoted) named = !named
            }
            if (!quoted && !named && /;$/) { take(statement); statement = "" }
        }
    ' "$1" "$2"
}

restore_roles() {
    if [ ! -f "$DATA/globals.sql" ]; then return 0; fi
    say "roles ..."
    query postgres <<<"SELECT quote_ident(rolname) FROM pg_roles" >"$DRD_WORK/roles.existing"
    new_roles "$DRD_WORK/roles.existing" "$DATA/globals.sql" >"$DRD_WORK/roles.sql"
    # In one transaction, so that a role is never left half-made; a statement that fails has no effect and is shown.
    query postgres --single-transaction --set ON_ERROR_STOP=0 --set ON_ERROR_ROLLBACK=on \
        --file "$DRD_WORK/roles.sql" >/dev/null 2>"$DRD_WORK/roles.errors" ||
        die "the roles could not be created: $(tail -n 1 "$DRD_WORK/roles.errors")"
    if [ -s "$DRD_WORK/roles.errors" ]; then
        say "! some statements about roles had no effect: see $DRD_WORK/roles.errors. First:"
        awk '/ERROR:/ && ++shown <= 3' "$DRD_WORK/roles.errors" >&2
    fi
}

# What a database is called stands in its archive.
name_of() { pg_restore --list "$DATA/$1" | awk 'sub(/^; *dbname: /, "") && !seen++'; }

exists() {
    query postgres --set name="$1" <<<"SELECT 'yes' FROM pg_database WHERE datname = :'name'"
}

holds_something() { # relations, functions or large objects that are no extension's
    query "$1" <<<"
        SELECT 'yes' WHERE EXISTS (SELECT FROM pg_largeobject_metadata) OR EXISTS (
            SELECT FROM (SELECT 'pg_class'::regclass AS catalog, oid, relnamespace AS schema FROM pg_class
                          UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc) o
              JOIN pg_namespace n ON n.oid = o.schema
             WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
                SELECT FROM pg_depend d WHERE d.classid = o.catalog AND d.objid = o.oid AND d.deptype = 'e'))"
}

check_databases() { # before the first one is touched; what this script finished in an earlier run is left alone
    local folder name missing held
    query postgres <<<"SELECT name FROM pg_available_extensions" >"$DRD_WORK/extensions"
    for folder in $PG_FOLDERS; do
        if [ -e "$DRD_WORK/$folder.restored" ]; then continue; fi
        name=$(name_of "$folder")
        if [ -z "$name" ]; then problem "$folder does not say what its database is called" "$UNUSABLE"; continue; fi
        missing=$(pg_restore --list "$DATA/$folder" | sed -nE 's/^[0-9]+; [0-9]+ [0-9]+ EXTENSION - (.*[^ ]) *$/\1/p' |
            { grep -vxFf "$DRD_WORK/extensions" || true; } | tr '\n' ' ')
        if [ -n "$missing" ]; then
            problem "the server lacks extensions that $name uses: $missing" "Install their packages there, then run again."
        fi
        if [ "$(exists "$name")" = yes ]; then
            held=$(holds_something "$name")
            if [ -e "$DRD_WORK/$folder.begun" ]; then
                problem "the database $name holds what an earlier run of this script left unfinished" \
                    "dropdb $(printf %q "$name")    and run this script again"
            elif [ "$held" = yes ]; then
                problem "the database $name exists and holds data; it is not touched" \
                    "Restore into another server, or put the old one aside first, in psql:" \
                    "ALTER DATABASE \"${name//\"/\"\"}\" RENAME TO \"${name//\"/\"\"}_old\";"
            fi
        fi
    done
    if [ "$problems" -gt 0 ]; then die "$problems thing(s) to put right. Nothing was restored."; fi
}

restore_database() { # restore_database FOLDER
    local folder=$1 name had_public create=(--create --dbname=postgres) status=0 log=$DRD_WORK/$1.log
    if [ -e "$DRD_WORK/$folder.restored" ]; then say "$folder was restored by an earlier run"; return 0; fi
    name=$(name_of "$folder")
    if [ -f "$DATA/$folder/small.tar" ]; then tar -xf "$DATA/$folder/small.tar" -C "$DATA/$folder"; fi
    if [ "$(exists "$name")" = yes ]; then
        create=(--dbname="$(database "$name")")
        say "! the empty database $name is used as it is; owner, grants and settings of the database itself stay"
    fi
    : >"$DRD_WORK/$folder.begun"
    say "restoring the database $name (to see it work: tail -f $log) ..."
    pg_restore --format=directory --jobs="${PG_JOBS:-4}" --no-tablespaces --no-password --verbose "${create[@]}" \
        "$DATA/$folder" 2>"$log" || status=$?
    awk -v harmless="$PG_HARMLESS" '/error: / && $0 !~ harmless' "$log" >"$DRD_WORK/$folder.errors"
    if [ -s "$DRD_WORK/$folder.errors" ] || [ "$status" -gt 1 ]; then
        awk 'NR <= 5' "$DRD_WORK/$folder.errors" >&2
        die "pg_restore of the database $name failed (see above, and $log)" \
            "When the cause is gone: dropdb $(printf %q "$name")    and run this script again"
    fi
    had_public=$(awk -v nth="$((${folder#db-} + 1))" '/^ *"public_schema": / && ++n == nth { print $2 }' "$DATA/databases.json")
    if [ "${had_public%,}" = false ]; then query "$name" <<<"DROP SCHEMA IF EXISTS public"; fi
    query "$name" <<<"ANALYZE"
    compare_rows "$folder" "$name"
    : >"$DRD_WORK/$folder.restored"
}

compare_rows() { # with the fingerprint taken at backup time; this reads every table (PG_COMPARE=no leaves it out)
    if [ "${PG_COMPARE:-yes}" = no ] || [ ! -f "$DATA/fingerprint.json" ]; then return 0; fi
    say "counting the rows of $2 ..."
    FINGERPRINT=$DATA/fingerprint.json query "$2" >"$DRD_WORK/$1.rows" <<'SQL'
\set fingerprint `cat "$FINGERPRINT"`
SELECT format('SELECT %L || count(*) FROM ONLY %I.%I HAVING count(*) <> %s',
              key || ': expected ' || (value ->> 'rows') || ' rows, found ', value ->> 'schema', value ->> 'name',
              (value ->> 'rows')::bigint)
  FROM json_each(CAST(:'fingerprint' AS json) -> 'items')
 WHERE value ->> 'database' = current_database() AND value ->> 'kind' = 'table'
\gexec
SQL
    if [ -s "$DRD_WORK/$1.rows" ]; then
        awk 'NR <= 10' "$DRD_WORK/$1.rows" >&2
        die "$(wc -l <"$DRD_WORK/$1.rows") table(s) of $2 do not have the rows they had (see $DRD_WORK/$1.rows)"
    fi
}

restore_target() {
    local folder
    check_databases
    restore_roles
    for folder in $PG_FOLDERS; do restore_database "$folder"; done
    say "Next: point the application at this server, and take a new backup."
}
