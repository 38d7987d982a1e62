#!/bin/sh
# What the official SeaweedFS image does at its start: own /data, become user seaweed, add its own flags before the given.
set -eu
if [ "$(id -u)" = 0 ]; then
    chown -R seaweed:seaweed /data
    exec setpriv --reuid=seaweed --regid=seaweed --clear-groups -- "$0" "$@"
fi
if [ "${1:-}" = server ]; then
    shift
    set -- server -dir=/data -master.volumePreallocate -master.volumeSizeLimitMB=1024 "$@"
fi
exec /usr/bin/weed -logtostderr=true "$@"
