#!/bin/bash
# usage: guest.sh RELEASE FOLDER COMPILE INSTALL RESTART SHOW   A Debian guest with SELinux enforcing from its first
# process on, our daemon (the programs in RELEASE) and our policy module in it, by README's four commands; boots it and
# shows what inside.sh says there.
# Needs root, the network once, and qemu without KVM (half a minute to two). FOLDER keeps the guest's base for a next run.
set -euo pipefail
project=$(cd "$(dirname "$0")/../../.." && pwd)
here=$project/tests/support/selinux
release=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
compile=$3 install=$4 restart=$5 show=$6
root=$folder/root
image=$folder/disk.img
base=$folder/base.tar
packages=systemd,systemd-sysv,dbus,udev,kmod,procps,iproute2,nftables,nmap,make,linux-image-cloud-amd64
packages=$packages,selinux-policy-default,policycoreutils,selinux-utils

begin=$SECONDS
took() { echo "TOOK $1=$((SECONDS - begin))s"; }

# Made under another name: what is there is whole.
[ -e "$base" ] || { mmdebstrap --quiet --format=tar --variant=minbase --include="$packages" bookworm "$base.new" && mv "$base.new" "$base"; }
took base
# Nothing but the base is kept, however this ends.
clean_up() { rm -rf "$root" "$image" "$folder/shell"; }
trap clean_up EXIT
clean_up
mkdir "$root"
tar xf "$base" -C "$root"

# The daemon as an administrator installs it, with a decoy, a history and a file of the blocked besides.
make --no-print-directory -C "$project" --old-file=build install DESTDIR="$root" RELEASE="$release" >/dev/null
chroot "$root" systemd-sysusers
cat >>"$root/etc/portsentry/portsentry.conf" <<'END'
DECOY_TCP_PORTS="2323"
HISTORY_FILE="/var/log/portsentry-rs/history"
BLOCKED_FILE="/var/log/portsentry-rs/blocked"
END

# The policy is not loaded in here, and nothing is labelled: the guest does the one as it boots, setfiles the other.
(cd "$project" && sh -c "$compile")
mkdir "$root/selinux"
find "$project/selinux" -maxdepth 1 -type f -exec cp -p {} "$root/selinux/" \;
echo "expand-check = 1" >>"$root/etc/selinux/semanage.conf" # neverallow rules are checked
chroot "$root" sh -c "$install"
echo "$restart" >"$root/selinux/restart"
echo "$show" >"$root/selinux/show"
# For the attempts alone: a way for a shell into the sensor's domain.
mkdir "$folder/shell"
cp "$here/portsentry_rs_shell.te" "$folder/shell/"
make --no-print-directory -C "$folder/shell" -f /usr/share/selinux/devel/Makefile portsentry_rs_shell.pp >/dev/null
cp "$folder/shell/portsentry_rs_shell.pp" "$root/selinux/"
chroot "$root" semodule -i selinux/portsentry_rs_shell.pp
took policy

install -m 755 "$here/inside.sh" "$root/usr/sbin/inside"
cp "$here/inside.service" "$root/etc/systemd/system/"
systemctl --quiet --root="$root" enable inside.service
systemctl --quiet --root="$root" mask getty.target # the console is for what inside.sh says
sed -i 's/^SELINUX=.*/SELINUX=enforcing/' "$root/etc/selinux/config"
sed -i '/^root:/s/.*/root::0:0:root:\/root:\/bin\/bash/' "$root/etc/passwd"
setfiles -F -r "$root" "$root/etc/selinux/default/contexts/files/file_contexts" "$root"
truncate -s 1500M "$image"
mke2fs -q -t ext4 -d "$root" "$image"
took image

kernel=$(echo "$root"/boot/vmlinuz-*)
# No journal of the boot on the console: under TCG each line of it takes its time.
timeout 1200 qemu-system-x86_64 -accel tcg -smp 1 -m 1024 -nographic -no-reboot -nic none \
    -kernel "$kernel" -initrd "${kernel/vmlinuz/initrd.img}" -drive "file=$image,format=raw,if=virtio" \
    -append "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 lsm=landlock,yama,selinux security=selinux selinux=1 enforcing=1 audit=1" \
    </dev/null
took boot
