#!/bin/sh
# Takes back what blocks have left in this machine's kernel: the table of nftables, blackhole routes, the chain and sets of
# iptables. For a daemon that is stopped; one that runs does it by `portsentry-rs unblock all`, and would put its table
# back. `make uninstall` runs it. Touches nothing but what bears our name or, of routes, our number (113).
set -u
PATH="$PATH:/usr/sbin:/sbin"
has() { command -v "$1" >/dev/null 2>&1; }

if has nft; then
    ! nft list table inet portsentry >/dev/null 2>&1 || nft delete table inet portsentry
else
    echo "no nft here: the table inet portsentry, if there is one, stays until the next boot"
fi
if has ip; then
    for family in -4 -6; do
        [ -z "$(ip $family route show proto 113 2>/dev/null)" ] || ip $family route flush proto 113
    done
fi
for program in iptables ip6tables; do
    has $program && $program -w -S PORTSENTRY >/dev/null 2>&1 || continue
    while $program -w -D INPUT -j PORTSENTRY 2>/dev/null; do :; done
    $program -w -F PORTSENTRY && $program -w -X PORTSENTRY
done
for set in portsentry4 portsentry6; do
    ! has ipset || ! ipset -n list $set >/dev/null 2>&1 || ipset destroy $set
done
