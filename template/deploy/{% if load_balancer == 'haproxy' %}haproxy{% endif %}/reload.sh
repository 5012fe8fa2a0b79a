#!/bin/sh
# Reloads HAProxy and keeps the weights of its servers, which a release has set. An error in the configuration is named, and
# nothing changes. Usage: reload.sh [folder of the sockets]; it needs socat.
set -eu
run=${1:-${LB_RUN:-/run/haproxy}}
ask() { echo "$2" | socat -t 60 - "UNIX-CONNECT:$run/$1"; }

# A state overrides the port of its server: only those whose address is still in the configuration are kept.
umask 077
trap 'rm -f "$run/state"' EXIT
ask admin.sock "show servers state" | awk '
    FILENAME != "-" { if ($1 == "server") { gsub(/[][]/, "", $3); kept[$2 " " $3] } next }
    /^[0-9]+ / { host = $18 == "-" ? $5 : $18; if (!($4 " " host ":" $19 in kept)) next }
    { print }
' "$(dirname "$0")"/conf.d/*.cfg - >"$run/state"

said=$(ask master.sock reload)
case $said in
Success=1*) ;;
*) echo "$said" | grep ALERT >&2 && exit 1 ;;
esac
