# What every script says, with a time in front.

LOG_PREFIX="backup ☃"

say() {
    printf '%s: %s\n' "$LOG_PREFIX" "$1"
}

warn() {
    say "warning: $1" >&2
}
