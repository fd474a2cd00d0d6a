# What there is to do. `make` alone says it.

.DEFAULT_GOAL := help
.PHONY: help dev test test-browser test-exhaustion test-memory attack-load fuzz release bench bench-enumeration bench-instructions bench-matching bench-reload restart-load torture

VENV := .vestibule/venv
CLIENTS := tests/clients/better-auth
PROVIDERS := tests/clients/providers
ASSERTIONS := tests/clients/assertions
SCHEMATHESIS := .vestibule/schemathesis
ACME := .vestibule/acme
PROTOCOLS := .vestibule/protocols
RELEASED := target/guided/vestibule
SECONDS ?= 600

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Unoptimised but for password hashing, as the tests are: what one has built, the other need not.
dev: ## Start everything: Postgres, gateway, the example application, a mail inbox. Ctrl-C stops it
	@scripts/ensure-tools cc curl
	@scripts/ensure-postgres
	@scripts/ensure-venv $(VENV) examples/upstream/requirements.txt
	@exec cargo run --locked --bin vestibule -- dev --config gateway.toml --with \
		"$(VENV)/bin/python -m uvicorn --app-dir examples/upstream main:app --host 127.0.0.1 --port 8000 --no-access-log"

test: ## Everything that must pass: format, lints, documentation, tests
	@scripts/ensure-tools cc curl
	@scripts/ensure-postgres
	@scripts/ensure-pgbouncer
	@scripts/ensure-venv $(VENV) examples/upstream/requirements.txt
	@scripts/ensure-venv $(SCHEMATHESIS) tests/clients/schemathesis/requirements.txt
	@scripts/ensure-venv $(ACME) tests/clients/acme/requirements.txt
	@scripts/ensure-venv $(PROTOCOLS) tests/clients/protocols/requirements.txt
	@scripts/ensure-node-modules $(CLIENTS)
	@scripts/ensure-node-modules $(PROVIDERS)
	@scripts/ensure-node-modules $(ASSERTIONS)
	@scripts/check

test-browser: ## Signing in at providers with a real browser: needs chromium
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@scripts/ensure-node-modules $(PROVIDERS)
	@scripts/ensure-node-modules tests/clients/browser
	@cargo build --locked
	@VESTIBULE_BIN=$(CURDIR)/target/debug/vestibule npm --prefix tests/clients/browser test

test-memory: ## 1 GiB through the gateway each way, and 10,000 connections that wait
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@VESTIBULE_TEST_BODY_MIB=1024 VESTIBULE_TEST_CONNECTIONS=10000 cargo test --locked --profile load --test it memory:: -- --nocapture --test-threads 1

fuzz: ## Looks ten minutes each for inputs that the gateway and the oracle judge differently: needs nightly and cargo-fuzz
	@scripts/ensure-tools cc c++
	@scripts/ensure-postgres
	@fuzz/run

release: $(RELEASED) ## The program as fast as it can be built, by what it does under load: half an hour
	@echo $(RELEASED)

$(RELEASED): Cargo.toml Cargo.lock build.rs scripts/release $(shell find src migrations config bench -type f)
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@scripts/release

bench: $(RELEASED) ## CPU per request of what `make release` builds, beside nginx and HAProxy
	@bench/run --gateway $(CURDIR)/$(RELEASED)

bench-instructions: ## Instructions per request, counted by valgrind
	@scripts/ensure-tools cc valgrind
	@scripts/ensure-postgres
	@bench/run --instructions

bench-matching: ## What finding a route costs with ten routes and with twenty thousand
	@scripts/ensure-tools cc
	@cargo bench --locked --bench matching

bench-reload: ## What a reload of ten thousand routes takes
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@cargo bench --locked --bench reload

attack-load: ## How long somebody ordinary waits while others attack: a table
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@ulimit -n 65536 2>/dev/null || ulimit -n $$(ulimit -Hn); VESTIBULE_TEST_CROWD=$${VESTIBULE_TEST_CROWD:-9000} \
		cargo test --locked --profile load --test it exhaustion::load:: -- --ignored --nocapture

test-exhaustion: ## The attacks on the gateway, with a hundred thousand made-up tokens
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@VESTIBULE_TEST_JUNK=100000 cargo test --locked --test it exhaustion:: -- --nocapture

restart-load: ## Whether a request fails while gateways restart and reload, at 2,000 a second
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@cargo test --locked --profile load --test it restart_load -- --ignored --nocapture

torture: ## Whether anybody passes whose session was ended, under load and with faults, for SECONDS=600
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@VESTIBULE_TORTURE_SECONDS=$(SECONDS) cargo test --locked --profile load --test it torture:: -- --ignored --nocapture

bench-enumeration: ## Whether an answer's time tells if an address has a user
	@scripts/ensure-tools cc
	@scripts/ensure-postgres
	@cargo bench --locked --bench enumeration
