# portsentry-rs: `make help` says what there is.

SHELL := /bin/sh
PREFIX ?= /usr/local
DESTDIR ?=

# Under sudo the invoking user's toolchain is used, and what was built is handed back to that user.
SUDO_HOME := $(if $(SUDO_USER),$(shell getent passwd $(SUDO_USER) | cut -d: -f6))
ifneq ($(SUDO_HOME),)
export CARGO_HOME ?= $(if $(wildcard $(SUDO_HOME)/.cargo),$(SUDO_HOME)/.cargo,$(HOME)/.cargo)
export RUSTUP_HOME ?= $(if $(wildcard $(SUDO_HOME)/.rustup),$(SUDO_HOME)/.rustup,$(HOME)/.rustup)
endif
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CARGO_HOME)/bin:$(PATH):/usr/sbin:/sbin
CARGO ?= cargo
NEED := tests/support/need.sh
hand_back = if [ -n "$(SUDO_UID)" ] && [ -d target ]; then chown -R $(SUDO_UID):$(SUDO_GID) target; fi

# Static without touching build scripts: crt-static is a property of the target, so the target is named.
TARGET ?= $(shell $(CARGO) -vV 2>/dev/null | sed -n 's/^host: //p')
RELEASE := target/$(TARGET)/release
STATIC := RUSTFLAGS="-C target-feature=+crt-static" $(CARGO)

.PHONY: help build run demo test lint bench bench-quick install uninstall toolchain

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

toolchain:
	@$(NEED) cc:gcc ld:binutils
	@command -v $(CARGO) >/dev/null || { echo "no cargo here: install Rust 1.90 or newer (https://rustup.rs)" >&2; exit 1; }

build: toolchain ## Build both static binaries (release).
	$(STATIC) build --release --locked --target $(TARGET) --bins
	@$(hand_back)
	@ls -l $(RELEASE)/portsentry-rs $(RELEASE)/portsentry-rs-helper

run: build ## Run the daemon on this machine with config/portsentry.conf (root).
	$(RELEASE)/portsentry-rs -c config/portsentry.conf

demo: build ## Two hosts in namespaces, a real nmap scan, the events and the kernel's block list (root).
	@$(NEED) nmap:nmap nft:nftables ip:iproute2 curl:curl python3:python3-minimal
	tests/demo.sh $(RELEASE)/portsentry-rs

test: build ## Every test, in network namespaces (root; about 10 minutes).
	@[ "$$(id -u)" = 0 ] || { echo "the tests make network namespaces: run 'sudo make test'" >&2; exit 1; }
	@$(NEED) nmap:nmap nft:nftables ip:iproute2 python3:python3 hping3:hping3 masscan:masscan zmap:zmap iperf3:iperf3 ping:iputils-ping nc:netcat-openbsd setpriv:util-linux curl:curl
	PORTSENTRY_RELEASE=$(CURDIR)/$(RELEASE) $(CARGO) test --locked
	CARGO_TARGET_DIR=target/escape $(CARGO) test --locked --features escape-attempts --test cage_holds
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --locked --release --lib detect::table
	@$(hand_back)

lint: toolchain ## Format, clippy, documentation, licences.
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --locked --no-deps --document-private-items --quiet
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline --locked check licenses bans sources; \
	else echo "licences: not checked, for want of cargo-deny (cargo install cargo-deny --locked)"; fi
	@$(hand_back)

# With build's own flags, so that what is measured are the very binaries that are installed.
bench: build ## Speed, latency and weight, in one run on one machine (root; about 10 minutes).
	@$(NEED) ip:iproute2
	$(STATIC) bench --locked --target $(TARGET)
	@$(hand_back)

bench-quick: build ## The same of the whole daemon only, in under a minute once built (root).
	@$(NEED) ip:iproute2
	$(STATIC) bench --locked --target $(TARGET) --bench system -- --quick
	@$(hand_back)

install: build ## Install below PREFIX (/usr/local); DESTDIR is honoured. Keeps an existing configuration.
	install -D -m 755 $(RELEASE)/portsentry-rs $(DESTDIR)$(PREFIX)/sbin/portsentry-rs
	install -D -m 755 $(RELEASE)/portsentry-rs-helper $(DESTDIR)$(PREFIX)/sbin/portsentry-rs-helper
	@for file in portsentry.conf portsentry.ignore; do \
	  [ -e $(DESTDIR)/etc/portsentry/$$file ] || install -D -m 644 config/$$file $(DESTDIR)/etc/portsentry/$$file; done

uninstall: ## Remove what install put there; configuration and state are kept and named.
	rm -f $(DESTDIR)$(PREFIX)/sbin/portsentry-rs $(DESTDIR)$(PREFIX)/sbin/portsentry-rs-helper
	@echo "kept: $(DESTDIR)/etc/portsentry $(DESTDIR)/var/lib/portsentry-rs; blocks in the kernel end by themselves"
