# shellcheck shell=bash
# Sourced by install and uninstall: where the files of the service stand, and how a step is told and done.

root= # --root: everything stands below it, and systemd is left alone
dry_run=no

# shellcheck disable=SC2034 # used by the scripts that source this
set_paths() {
    program=$root/opt/edge-agent
    releases=$program/releases # numbered environments; the newest is in use
    current=$program/current   # the link to the one in use
    settings=$root/etc/edge-agent
    config=$settings/edge-agent.toml
    home=$root/var/lib/edge-agent
    wrapper=$root/usr/local/bin/edge-agent
    unit=$root/etc/systemd/system/edge-agent.service
    users=$root/etc/sysusers.d/edge-agent.conf
    folders=$root/etc/tmpfiles.d/edge-agent.conf
}

# What is about to be done, in plain words.
step() { printf '* %s\n' "$*"; }

# Do it; with --dry-run only show it.
run() {
    if [ "$dry_run" = yes ]; then
        printf '   '
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}

# Standard input becomes a file of that mode, whole or not at all, also when the power fails.
write_file() {
    local file=$1 mode=$2
    if [ "$dry_run" = yes ]; then
        cat >/dev/null
        printf '    write %s\n' "$file"
        return
    fi
    cat >"$file.tmp"
    chmod "$mode" "$file.tmp"
    sync -- "$file.tmp"
    mv -f -- "$file.tmp" "$file"
}

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

wrong_usage() {
    printf 'error: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

# Take the value of an option that wants one: want_value "$@" with the option's own word first. It is in $value then.
want_value() {
    case ${2:-} in '' | -*) wrong_usage "$1 wants a value" ;; esac
    # shellcheck disable=SC2034 # read by the caller
    value=$2
}

need_root() {
    if [ "$dry_run" = no ] && [ "$(id -u)" -ne 0 ]; then
        fail "only root may do this: run  sudo $0  (or look at what it would do with --dry-run)"
    fi
}

# Whether there is a systemd to talk to; in a staging folder there is none.
has_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }
