#!/usr/bin/env bash
# make demo: two hosts and an innocent third on this machine, a real nmap scan of one of them, and what comes of it.
# Everything happens in network namespaces that are removed again; the machine's own network is not touched.
set -euo pipefail
binary=$(realpath "${1:?usage: demo.sh PORTSENTRY-RS}")
[ "$(id -u)" = 0 ] || { echo "the demo makes network namespaces: run 'sudo make demo'" >&2; exit 1; }
PATH="$PATH:/usr/sbin:/sbin"

id=psdemo$$
folder=$(mktemp -d)
chmod 755 "$folder"
daemon='' web=''
clean_up() {
    for process in $daemon $web; do kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true; done
    for host in host scanner friend; do ip netns delete "$id-$host" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap clean_up EXIT

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
on() { local host=$1; shift; ip netns exec "$id-$host" "$@"; }
show() { local host=$1; shift; printf '%s%s$ %s%s\n' "$dim" "$host" "${*/#$binary/portsentry-rs}" "$plain"; on "$host" "$@" || true; }
# until_true SECONDS COMMAND…: waits for a condition, not for time.
until_true() {
    local tries=$(($1 * 20)); shift
    until "$@" >/dev/null 2>&1; do
        [ $((tries -= 1)) -gt 0 ] || { echo "demo: gave up waiting for: $*" >&2; cat "$folder/err" >&2; exit 1; }
        sleep 0.05
    done
}
ask() { # who, address: does the web service answer?
    local answer
    if answer=$(on "$1" curl -s -m 2 "http://$2/hello.txt"); then echo "  $1 → http://$2/  answers: $answer"; return 0
    else echo "  $1 → http://$2/  no answer"; return 1; fi
}

say "1. A host with a web service, a scanner, and a friend, each in a namespace of its own"
for host in host scanner friend; do ip netns add "$id-$host"; ip -n "$id-$host" link set lo up; done
net=1
for peer in scanner friend; do
    ip -n "$id-host" link add "to-$peer" type veth peer name eth0 netns "$id-$peer"
    ip -n "$id-host" address add "10.77.$net.1/24" dev "to-$peer"; ip -n "$id-host" link set "to-$peer" up
    ip -n "$id-$peer" address add "10.77.$net.2/24" dev eth0;      ip -n "$id-$peer" link set eth0 up
    net=$((net + 1))
done
mkdir "$folder/www"; echo "hello" > "$folder/www/hello.txt"
ip netns exec "$id-host" python3 -m http.server -d "$folder/www" 80 >/dev/null 2>&1 & web=$!
cat > "$folder/portsentry.conf" <<EOF
TCP_PORTS="1,7,9,11,15,70,79,111,119,389,512-515,540,1080"
UDP_PORTS="7,9,13,19,111,389,513,517-518"
DECOY_TCP_PORTS="21,23,143"
BLOCK_TCP="1"
BLOCK_UDP="1"
BLOCK_TIME="10m"
STATE_DIR="$folder/state"
CONTROL_SOCKET="$folder/run/control.sock"
EOF
ip netns exec "$id-host" "$binary" -c "$folder/portsentry.conf" >"$folder/events" 2>"$folder/err" & daemon=$!
until_true 10 grep -q '"event_type":"start"' "$folder/events"
until_true 10 on friend curl -s "http://10.77.2.1/hello.txt"
sed 's/^/  /' "$folder/portsentry.conf" | head -6

say "2. Before the scan"
ask scanner 10.77.1.1
ask friend 10.77.2.1

say "3. The scan"
show scanner nmap -n -Pn --disable-arp-ping --max-retries 1 --host-timeout 20s -sS -p 1-120 10.77.1.1
until_true 10 grep -q '"event_type":"block"' "$folder/events"

say "4. What portsentry-rs says (JSON lines on stdout)"
cat "$folder/events"

say "5. What the kernel has"
show host nft list table inet portsentry

say "6. After the scan: the scanner is shut out, the friend is not"
if ask scanner 10.77.1.1; then echo "demo: the scanner should have been blocked" >&2; exit 1; fi
ask friend 10.77.2.1

say "7. list, unblock, and the service answers again"
show host "$binary" list -c "$folder/portsentry.conf"
show host "$binary" unblock 10.77.1.2 -c "$folder/portsentry.conf"
ask scanner 10.77.1.1

say "8. Who may do what"
for role in sensor:pid helper:helper_pid; do
    process=$(sed -n "1s/.*\"${role#*:}\":\([0-9]*\).*/\1/p" "$folder/events")
    echo "  ${role%:*} (process $process)"
    grep -E '^(Uid|Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' "/proc/$process/status" | sed 's/^/    /'
done

say "Done: everything is removed again."
