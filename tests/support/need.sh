#!/bin/sh
# usage: need.sh PROGRAM[/MODULE,MODULE…]:PACKAGE | /FILE:PACKAGE …   Makes sure that each program or file is there, and
# where modules are named that it is a Python that can import them: installs the Debian packages of those that are
# missing if it may, else names them and fails.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

is_there() {
    case $1 in /*) [ -e "$1" ]; return ;; esac
    command -v "${1%%/*}" >/dev/null 2>&1 || return 1
    case $1 in */*) "${1%%/*}" -c "import ${1#*/}" 2>/dev/null ;; esac
}

absent() { # its package, for each pair that is not there
    for pair in "$@"; do
        is_there "${pair%:*}" || printf ' %s' "${pair##*:}"
    done
}

# Nothing that is installed for a test starts to serve this machine: Debian asks this file (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
refusal='#!/bin/sh
# Of portsentry-rs, while it installs what its tests need; to be removed if it is still here.
exit 101'
# One that outlived us, by a SIGKILL or with the machine, would keep every service from starting. Anybody else's stays.
if [ -w "$policy" ] && [ "$(cat "$policy")" = "$refusal" ]; then rm -f "$policy"; fi

missing=$(absent "$@")
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing here:$missing (Debian's package names); install them, or run this as root on Debian or Ubuntu" >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    # Where a signal ends the shell it need not run that trap (dash does not).
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '%s\n' "$refusal" >"$policy"
    chmod 755 "$policy"
fi
apt-get update -qq
# shellcheck disable=SC2086 # one word per package
apt-get install -qq -y --no-install-recommends $missing >/dev/null
missing=$(absent "$@")
[ -z "$missing" ] || { echo "still missing after their installation:$missing" >&2; exit 1; }
