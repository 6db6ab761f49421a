# portsentry-rs: `make help` says what there is.

SHELL := /bin/sh
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
NEED := tests/support/need.sh

# Under sudo everything is built as the user who called it, with that user's toolchain, so that nothing in the tree or in
# ~/.cargo becomes root's; tests, demo and measurements alone run as root. Root builds by itself where nobody called
# sudo, where the tree is not that user's, or where that user has no cargo.
USER_OF_SUDO := $(shell [ "$$(id -u)" = 0 ] && [ "$${SUDO_USER:-root}" != root ] && \
  runuser -u "$$SUDO_USER" -- test -w . && echo "$$SUDO_USER")
HOME_OF_SUDO := $(if $(USER_OF_SUDO),$(shell getent passwd "$(USER_OF_SUDO)" | cut -d: -f6))
BUILDER := $(if $(wildcard $(HOME_OF_SUDO)/.cargo/bin/cargo /usr/local/bin/cargo /usr/bin/cargo),$(USER_OF_SUDO))
BUILDER_HOME := $(if $(BUILDER),$(HOME_OF_SUDO),$(HOME))
CARGO_HOME ?= $(BUILDER_HOME)/.cargo
RUSTUP_HOME ?= $(BUILDER_HOME)/.rustup
export CARGO_HOME RUSTUP_HOME
export PATH := $(CARGO_HOME)/bin:$(PATH):/usr/sbin:/sbin

# In words once more: before make 4.4 $(shell) does not see what is exported here, and runuser may set a PATH of its own.
TOOLCHAIN := env HOME="$(BUILDER_HOME)" PATH="$(PATH)" CARGO_HOME="$(CARGO_HOME)" RUSTUP_HOME="$(RUSTUP_HOME)"
AS_BUILDER := $(if $(BUILDER),runuser -u "$(BUILDER)" -- $(TOOLCHAIN) )
BUILD := $(AS_BUILDER)$(CARGO)

# Static without touching build scripts: crt-static is a property of the target, so the target is named.
HOST := $(shell $(or $(AS_BUILDER),$(TOOLCHAIN)) $(CARGO) -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET ?= $(HOST)
RELEASE := target/$(TARGET)/release
# Relocations are packed, for what is touched at start stays in memory: where such programs run. Asked when it is built.
STATIC = RUSTFLAGS="-C target-feature=+crt-static $$($(AS_BUILDER)tests/support/packs.sh $(TARGET) target/$(TARGET))"
# Programs for another machine are not run on this one.
RUNS_HERE := $(filter $(firstword $(subst -, ,$(HOST))),$(firstword $(subst -, ,$(TARGET))))

.PHONY: help build run demo test sanitize lint bench bench-quick install uninstall toolchain

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

toolchain:
	@$(NEED) cc:gcc ld:binutils /usr/include/stdio.h:libc6-dev
	@[ -n "$(TARGET)" ] || { echo "no cargo here: install Rust 1.90 or newer (https://rustup.rs)" >&2; exit 1; }

build: toolchain ## Build both static binaries (release). TARGET=x86_64-unknown-linux-musl: with musl, a third smaller.
	@if [ -n "$(and $(RUNS_HERE),$(findstring -gnu,$(TARGET)))" ] && [ ! -e "$$(cc -print-file-name=libc.a)" ]; then \
	  echo "no libc.a here, which a static program is linked with: install Debian's libc6-dev, Fedora's glibc-static" >&2; exit 1; fi
	$(STATIC) $(BUILD) build --release --locked --target $(TARGET) --bins
	@[ -z "$(RUNS_HERE)" ] || $(AS_BUILDER)$(RELEASE)/portsentry-rs -V >/dev/null || { \
	  echo "$(RELEASE)/portsentry-rs was built and does not run here: nothing is installed" >&2; exit 1; }
	@ls -l $(RELEASE)/portsentry-rs $(RELEASE)/portsentry-rs-helper

run: build ## Run the daemon on this machine with config/portsentry.conf (root; after make install).
	$(RELEASE)/portsentry-rs -c config/portsentry.conf

demo: build ## Two hosts in namespaces, a real nmap scan, the events and the kernel's block list (root).
	@$(NEED) nmap:nmap nft:nftables ip:iproute2 curl:curl python3/http.server:python3
	tests/demo.sh $(RELEASE)/portsentry-rs

# Each second cargo test finds everything built and runs it as root.
test: build ## Every test, in network namespaces (root; about 10 minutes). `sudo make test PORTSENTRY_SLOW_LABS=1`: containers, a virtual machine and floods too.
	@[ "$$(id -u)" = 0 ] || { echo "the tests make network namespaces: run 'sudo make test'" >&2; exit 1; }
	@$(NEED) nmap:nmap nft:nftables ip:iproute2 hping3:hping3 masscan:masscan zmap:zmap \
	  python3/ftplib,http.client,imaplib,poplib,smtplib:python3 ping:iputils-ping nc:netcat-openbsd tcpdump:tcpdump iptables:iptables ipset:ipset rsyslogd:rsyslog fail2ban-server:fail2ban setpriv:util-linux unshare:util-linux ldd:libc-bin nix-instantiate:nix-bin systemd-analyze:systemd setcap:libcap2-bin logrotate:logrotate
	@if [ "$$PORTSENTRY_SLOW_LABS" = 1 ]; then $(NEED) systemd-nspawn:systemd-container mmdebstrap:mmdebstrap nsenter:util-linux podman:podman runc:runc newuidmap:uidmap \
	  /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring; fi
	@$(NEED) checkmodule:checkpolicy semodule:policycoreutils semodule_package:semodule-utils sesearch:setools m4:m4 \
	  /usr/share/selinux/devel/Makefile:selinux-policy-dev /etc/selinux/default/policy:selinux-policy-default
	@if [ "$$PORTSENTRY_SLOW_LABS" = 1 ]; then $(NEED) qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs; fi
	$(BUILD) test --locked --no-run
	PORTSENTRY_RELEASE=$(CURDIR)/$(RELEASE) $(CARGO) test --locked --offline --no-fail-fast
	CARGO_TARGET_DIR=target/escape $(BUILD) test --locked --features escape-attempts --test cage_holds --test cage_pins --no-run
	CARGO_TARGET_DIR=target/escape $(CARGO) test --locked --offline --features escape-attempts --test cage_holds --test cage_pins
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(BUILD) test --locked --profile model --lib detect::table

# The standard library is as it was built, without instrumentation: what is reported within the test harness alone is not ours.
sanitize: toolchain ## ThreadSanitizer over the unit tests of the score table and the sensor (about 10 minutes to build).
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" CARGO_TARGET_DIR=target/sanitize \
	TSAN_OPTIONS="suppressions=$(CURDIR)/tests/support/thread-sanitizer.suppressions" \
	$(BUILD) test --locked --profile model --target $(TARGET) --lib -- detect::table sensor::

lint: toolchain ## Format, clippy, documentation, licences.
	$(BUILD) fmt --check
	$(BUILD) clippy --locked --all-targets -- -D warnings
	$(BUILD) clippy --locked --all-targets --features escape-attempts -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(BUILD) doc --locked --no-deps --document-private-items --quiet
	@if $(AS_BUILDER)sh -c 'command -v cargo-deny' >/dev/null; then $(BUILD) deny --locked check licenses bans sources; \
	else echo "licences: not checked, for want of cargo-deny (cargo install cargo-deny --locked)"; fi

# With build's own flags, so that what is measured are the very binaries that are installed.
bench: build ## Speed, latency and weight, in one run on one machine (root; about 12 minutes once built).
	@$(NEED) ip:iproute2 valgrind:valgrind iperf3:iperf3 ss:iproute2 nft:nftables portsentry:portsentry
	$(STATIC) $(BUILD) bench --locked --target $(TARGET) --bench packet --bench system --no-run
	$(STATIC) $(CARGO) bench --locked --offline --target $(TARGET) --bench packet --bench system

bench-quick: build ## The same of the whole daemon only, in under a minute once built (root).
	@$(NEED) ip:iproute2 iperf3:iperf3 ss:iproute2 nft:nftables portsentry:portsentry
	$(STATIC) $(BUILD) bench --locked --target $(TARGET) --bench system --no-run
	$(STATIC) $(CARGO) bench --locked --offline --target $(TARGET) --bench system -- --quick

# The daemon is the user `portsentry`: as a service from its start, else once it is confined (without one, `nobody`).
# What only this machine's own systemd needs is left out below DESTDIR: a package's scripts do that.
LIB := $(DESTDIR)$(PREFIX)/lib
# The documentation, what it points to and what it tells to copy, by the names that it has here.
SHARE := $(DESTDIR)$(PREFIX)/share/portsentry-rs
SHARED := $(wildcard docs/* config/fail2ban/*/*) config/logrotate config/portsentry.conf config/portsentry.ignore config/event.schema.json
HERE := [ -z "$(DESTDIR)" ]
SYSTEMD := $(HERE) && [ -d /run/systemd/system ]

install: build ## Install below PREFIX (/usr/local); DESTDIR is honoured. Keeps an existing configuration.
	install -D -m 755 $(RELEASE)/portsentry-rs "$(DESTDIR)$(PREFIX)/sbin/portsentry-rs"
	install -D -m 755 $(RELEASE)/portsentry-rs-helper "$(DESTDIR)$(PREFIX)/sbin/portsentry-rs-helper"
	install -D -m 644 config/portsentry-rs.service "$(LIB)/systemd/system/portsentry-rs.service"
	sed -i 's|/usr/local/|$(PREFIX)/|' "$(LIB)/systemd/system/portsentry-rs.service"
	install -D -m 644 config/portsentry-rs.catalog "$(LIB)/systemd/catalog/portsentry-rs.catalog"
	install -D -m 644 config/portsentry-rs.sysusers "$(LIB)/sysusers.d/portsentry-rs.conf"
	@set -e; for file in $(SHARED); do install -D -m 644 "$$file" "$(SHARE)/$$file"; done
	@set -e; for file in portsentry.conf portsentry.ignore; do \
	  [ -e "$(DESTDIR)/etc/portsentry/$$file" ] || install -D -m 644 "config/$$file" "$(DESTDIR)/etc/portsentry/$$file"; done
	@if $(HERE) && command -v useradd >/dev/null && ! getent passwd portsentry >/dev/null; then \
	  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin portsentry; fi
	@if $(SYSTEMD); then systemctl daemon-reload; journalctl --update-catalog; \
	  ! systemctl --quiet is-active portsentry-rs || echo "the old version still runs: systemctl restart portsentry-rs"; fi

# A daemon that runs knows best what its blocks did, and would put its table back. `stats` it answers by itself: `status`
# fails too where its helper does not.
uninstall: ## Remove what install put there, and every block; configuration, state and user are kept and named.
	@if $(SYSTEMD) && [ -e "$(LIB)/systemd/system/portsentry-rs.service" ]; then \
	  ! systemctl --quiet is-active portsentry-rs || "$(PREFIX)/sbin/portsentry-rs" unblock all || echo "some blocks could not be lifted"; \
	  systemctl disable --now portsentry-rs; fi
	@if $(HERE) && "$(PREFIX)/sbin/portsentry-rs" stats >/dev/null 2>&1; then \
	  echo "the daemon runs: lift its blocks (portsentry-rs unblock all) and stop it first" >&2; exit 1; fi
	rm -f "$(DESTDIR)$(PREFIX)/sbin/portsentry-rs" "$(DESTDIR)$(PREFIX)/sbin/portsentry-rs-helper"
	rm -f "$(LIB)/systemd/system/portsentry-rs.service" "$(LIB)/systemd/catalog/portsentry-rs.catalog" "$(LIB)/sysusers.d/portsentry-rs.conf"
	rm -rf "$(SHARE)"
	@if $(SYSTEMD); then systemctl daemon-reload; journalctl --update-catalog; fi
	@if $(HERE); then config/undo.sh; \
	  echo "if it did not run just now, look for what else blocks did: lines in hosts.deny (KILL_HOSTS_DENY), and what KILL_ROUTE and KILL_RUN_CMD ran"; fi
	@echo "kept: $(DESTDIR)/etc/portsentry $(DESTDIR)/var/lib/portsentry-rs $(DESTDIR)/var/log/portsentry-rs"
	@if $(HERE) && getent passwd portsentry >/dev/null; then echo "kept: the system user portsentry"; fi
