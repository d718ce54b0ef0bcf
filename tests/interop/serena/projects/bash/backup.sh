#!/usr/bin/env bash
# Copies a folder and says so.
set -euo pipefail

source "$(dirname "$0")/lib/log.sh"

KEEP=3

copy_one() {
    local from=$1 to=$2
    say "copying $from"
    cp -r "$from" "$to"
}

prune() {
    local folder=$1
    say "keeping $KEEP in $folder"
}

main() {
    copy_one "$1" "$2"
    prune "$2"
}

main "$@"
