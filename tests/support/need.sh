#!/bin/sh
# usage: need.sh PROGRAM:PACKAGE …   Makes sure that each program is there: installs the Debian packages of those that
# are missing if it may, else names them and fails.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
missing=
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing here:$missing (Debian's package names); install them, or run this as root on Debian or Ubuntu" >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # one word per package
apt-get install -qq -y --no-install-recommends $missing >/dev/null
