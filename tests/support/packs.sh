#!/bin/sh
# usage: packs.sh TARGET FOLDER   Prints the linker's flag for packed relocations where a static program with them runs,
# else nothing, and says so: who loads them (glibc before 2.36, musl before 1.2.4, as Rust's was before 1.93) may not
# know them, and the program would end with a segmentation fault before its first line. Changes nothing outside FOLDER.
set -eu
target=$1
flag=link-arg=-Wl,-z,pack-relative-relocs
mkdir -p "$2"
# Each run's own: several builds at a time leave each other's probe alone, and what the compiler puts beside it.
folder=$(mktemp -d "$2/packs.XXXXXX") probe=$folder/probe
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
# What is printed goes through tables of addresses, which are what is packed.
if echo 'fn main() { println!("{}", std::env::args().count()) }' |
    "${RUSTC:-rustc}" --crate-name packs_probe --target "$target" -C target-feature=+crt-static -C "$flag" -o "$probe" - &&
    [ "$("$probe" 2>&1)" = 1 ]; then
    echo "-C $flag"
else
    echo "relocations stay unpacked: no program with packed ones runs here for $target (the programs work, and touch a little more memory)" >&2
fi
