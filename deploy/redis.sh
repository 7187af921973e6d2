#!/bin/sh
# Starts Valkey for Clipwarden: everything written down, nothing ever evicted, and one user who can run the queues and
# can neither empty the server nor look at its settings. There is no administrator: restart it to change it.
# The password comes as REDIS_PASSWORD and goes through a file, for every user of the host could read a command line.
set -eu
umask 077
: "${REDIS_PASSWORD:?set REDIS_PASSWORD}"
conf="${REDIS_RUN:-/run}/clipwarden.conf"
cat > "$conf" <<CONF
bind ${REDIS_BIND:-* -::*}
port ${REDIS_PORT:-6379}
protected-mode no
dir ${REDIS_DATA:-/data}
appendonly yes
appendfsync everysec
save ""
maxmemory 768mb
maxmemory-policy noeviction
user default off
user clipwarden on >$REDIS_PASSWORD ~* &* +@all -@admin -@dangerous -@scripting +eval +evalsha +script|load +info +client|setinfo +client|setname +client|id
CONF
exec valkey-server "$conf"
