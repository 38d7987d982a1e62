#!/bin/sh
# What the official postgres image does at its start, as far as drd's tests lean on it: become user postgres, make the
# cluster from POSTGRES_PASSWORD (or the file that POSTGRES_PASSWORD_FILE names), POSTGRES_USER, POSTGRES_DB and
# POSTGRES_INITDB_ARGS, let it be reached with a password, serve.
set -eu
if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA"
        chown -R postgres:postgres "$PGDATA"
        exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
    fi
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
            POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
        fi
        if [ -z "${POSTGRES_PASSWORD:-}" ]; then
            echo 'Error: POSTGRES_PASSWORD is not set' >&2
            exit 1
        fi
        (umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password)
        # shellcheck disable=SC2086 # several words
        initdb --username="${POSTGRES_USER:-postgres}" --pwfile=/tmp/password -D "$PGDATA" ${POSTGRES_INITDB_ARGS:-}
        rm /tmp/password
        echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
        if [ "${POSTGRES_DB:-postgres}" != postgres ]; then
            echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" postgres
        fi
    fi
    set -- "$@" -c listen_addresses='*'
fi
exec "$@"
