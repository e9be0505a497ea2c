# The one list of commands, for people and for CI alike. `make help` prints it.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/orrery
# Build output stays outside the clone, and `make demo` and `make test` share it.
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PATH := $(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

PREFIX ?= /usr/local
DESTDIR ?=
# Arguments for the program: make demo ARGS="--speed 20"
ARGS ?=

DASHBOARD := dashboards
DASHBOARD_SOURCES := $(shell find $(DASHBOARD)/src $(DASHBOARD)/public -type f 2>/dev/null) \
	$(wildcard $(DASHBOARD)/*.html $(DASHBOARD)/*.ts $(DASHBOARD)/*.js $(DASHBOARD)/package.json)
MODULES := $(DASHBOARD)/node_modules/.package-lock.json
DIST := $(DASHBOARD)/dist/index.html

.PHONY: help setup demo test test-rust test-dashboard test-e2e check bench compare install screenshots dashboard clean

help: ## print this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | column -t -s $$'\t'

setup: ## install what demo and test need
	@scripts/setup.sh test

# Every build names the whole workspace, and one test with it: cargo unites the features of what it builds, those of the
# tests' own dependencies only where a test is among it, and another selection would compile the dependencies again.
BUILD := cargo build --locked --workspace --bins --test arrows

demo: ## build and start Orrery with the simulated rig (ARGS="--speed 20 …")
	@scripts/setup.sh demo
	@$(MAKE) --no-print-directory dashboard
	$(BUILD)
	@exec "$(CARGO_TARGET_DIR)/debug/orrery" up --demo $(ARGS)

test: ## run every test
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory test-rust test-dashboard test-e2e
	@echo "make test: everything passed"

# The tests that drive Python clients, mosquitto and Kafka are Rust tests too: they start what they need.
test-rust: dashboard
	$(BUILD)
	cargo test --locked --workspace

test-dashboard: $(MODULES)
	cd $(DASHBOARD) && npm run --silent test

test-e2e: dashboard
	cd $(DASHBOARD) && ORRERY_BIN="$(CARGO_TARGET_DIR)/debug/orrery" npm run --silent e2e
	cd $(DASHBOARD) && npm run --silent budget

check: dashboard ## format, lints, licences, types: warnings are errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if cargo deny --version > /dev/null 2>&1; then \
		cargo deny --locked check; \
	else \
		echo "check: cargo-deny is not installed, licences and advisories are not checked (cargo install cargo-deny)"; \
	fi
	cd $(DASHBOARD) && npm run --silent check

bench: ## run the benchmarks
	cargo bench --locked --workspace

# Its own workspace, so that no other build has diffsol in it. diffrax needs the environment of tests/references/README.md.
compare: ## models beside diffsol, diffrax and hand-written Rust (ARGS="stiff" for one table)
	ORRERY_REFERENCES_PYTHON="$(CACHE)/references-venv/bin/python" \
		cargo run --locked --release --manifest-path tests/compare/Cargo.toml -- $(ARGS)

install: dashboard ## put orrery and orrery-edge into PREFIX/bin
	cargo build --locked --release --workspace --bins
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -s -m 755 "$(CARGO_TARGET_DIR)/release/orrery" "$(CARGO_TARGET_DIR)/release/orrery-edge" "$(DESTDIR)$(PREFIX)/bin"

screenshots: dashboard ## make the screenshots of the dashboard in light, dark and phone
	$(BUILD)
	cd $(DASHBOARD) && ORRERY_BIN="$(CARGO_TARGET_DIR)/debug/orrery" npm run --silent screenshots

dashboard: $(DIST) ## build the dashboard

$(MODULES): $(DASHBOARD)/package-lock.json
	cd $(DASHBOARD) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(DIST): $(MODULES) $(DASHBOARD_SOURCES)
	cd $(DASHBOARD) && npm run --silent build
	@touch $@

clean: ## remove the dashboard's build and the build output of cargo
	rm -rf $(DASHBOARD)/dist $(DASHBOARD)/node_modules
	cargo clean
