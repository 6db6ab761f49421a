#!/bin/bash
# Run in the guest, by systemd: starts the daemon, scans it from a namespace, and says what happened, a fact a line.
blocked_file=/var/log/portsentry-rs/blocked
fact() { echo "FACT $1=$(echo "$2" | tr '\n' ' ')"; }
attempts() { # in the domain $1, or in this one; each that works is named
    local within=()
    [ -z "$1" ] || within=(runcon "system_u:system_r:$1:s0")
    local raw='socket(my $s, shift, shift, shift) or exit 1'
    "${within[@]}" /bin/sh -c 'exec cat /etc/shadow' >/dev/null 2>&1 && echo shadow
    "${within[@]}" /bin/sh -c "exec perl -e '$raw' 2 3 1" 2>/dev/null && echo raw_socket
    "${within[@]}" /bin/sh -c "exec perl -e '$raw' 17 3 0" 2>/dev/null && echo packet_socket
    "${within[@]}" /bin/sh -c "exec perl -e '$raw' 16 3 12" 2>/dev/null && echo netfilter_socket
    "${within[@]}" /bin/sh -c 'exec nft list ruleset' >/dev/null 2>&1 && echo nftables
    # What the sensor may do makes the rest mean something: shell, cat and perl do run there.
    "${within[@]}" /bin/sh -c 'exec cat /etc/portsentry/portsentry.conf' >/dev/null 2>&1 && echo configuration
    "${within[@]}" /bin/sh -c "exec perl -e '$raw' 1 1 0" 2>/dev/null && echo local_socket
}

echo # whatever the console has shown before
fact enforcing "$(getenforce)"
# Not by `ip netns`: this policy lets it mount nothing.
unshare --net sleep infinity &
attacker=$!
until [ "$(readlink /proc/$attacker/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
attacker() { nsenter --net="/proc/$attacker/ns/net" "$@"; }
ip link add eth0 type veth peer name eth0 netns "$attacker"
ip address add 10.77.0.1/24 dev eth0 && ip link set eth0 up
attacker ip address add 10.77.0.2/24 dev eth0 && attacker ip link set eth0 up

sh /selinux/restart
fact active "$(systemctl is-active portsentry-rs.service)"
systemctl is-active --quiet portsentry-rs.service || journalctl --no-pager --output=cat --unit=portsentry-rs | tail -n 20
fact shown "$(sh /selinux/show)"

attacker nmap -n -Pn --disable-arp-ping --max-retries 1 -sS -p 1-20 10.77.0.1 >/dev/null
# Not the whole table: the tripwire's set has the address before anybody is blocked.
blocked() { nft list set inet portsentry blocked4 | grep -o 10.77.0.2; }
for _ in $(seq 100); do
    blocked >/dev/null && [ -s $blocked_file ] && break
    sleep 0.2
done
fact blocked "$(blocked)"
fact filed "$(od -An -tx1 $blocked_file)"
fact listed "$(portsentry-rs list | grep -o 10.77.0.2 | sort -u)"
portsentry-rs unblock all >/dev/null
fact emptied "$(wc -c <$blocked_file)"
fact decoy "$(attacker timeout 20 bash -c 'exec 3<>/dev/tcp/10.77.0.1/2323; head -c 4 <&3' | wc -c)"
systemctl reload portsentry-rs.service
fact reloaded "$(systemctl is-active portsentry-rs.service)"
sh /selinux/restart
fact restarted "$(systemctl is-active portsentry-rs.service)"
fact history "$(grep -c 10.77.0.2 /var/log/portsentry-rs/history)"
systemctl stop portsentry-rs.service
fact stopped "$(systemctl is-active portsentry-rs.service)"
# What the journal has of the kernel's refusals until here: whether it has any at all shows one more, of a program that the
# daemon never runs, which comes after all of its own.
refusals() { journalctl --quiet --no-pager --output=cat _TRANSPORT=audit | grep 'avc:.*denied.*portsentry_rs'; }
forbidden() { refusals | grep 'name="shadow"'; }
runcon system_u:system_r:portsentry_rs_sensor_t:s0 /bin/sh -c 'exec cat /etc/shadow' >/dev/null 2>&1
for _ in $(seq 100); do
    forbidden >/dev/null && break
    sleep 0.2
done
fact recorded "$(forbidden | grep -o 'comm="[a-z]*"' | sort -u)"
refusals | grep -v 'comm="\(runcon\|sh\|cat\)"' | sed 's/^/DENIED /'

fact anybody "$(attempts "")"
fact within "$(attempts portsentry_rs_sensor_t)"
echo "FACT done=yes"
