# The targets for people. `make` alone lists them; cargo and scripts/ do the work.

CARGO ?= cargo
# Passed on to the program behind `make run` and `make demo`: make run ARGS="--config config.yaml"
ARGS ?=
# Which fuzz target, and for how many seconds.
FUZZ ?= scan
FUZZ_SECONDS ?= 60

# Debian and similar systems install servers where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help run test check bench compat demo setup fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## installs what is missing, starts Redis, NATS and Shortstop on 127.0.0.1:6380; Ctrl-C stops them
	@scripts/setup run
	@exec scripts/run $(ARGS)

test: ## installs what is missing, then every test
	@scripts/setup test
	$(CARGO) test

check: ## format, lints, documentation, imports and scripts, with warnings as errors
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path demo/Cargo.toml
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --manifest-path demo/Cargo.toml --target-dir target --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps
	$(CARGO) test --test structure
	scripts/check

bench: ## Redis, twemproxy, HAProxy and Shortstop in one run; the table is kept in benches/RESULTS.md
	@scripts/setup bench
	@exec scripts/bench $(ARGS)

compat: ## client libraries, in typical use, against Shortstop; make compat ARGS="--only ioredis"
	@scripts/setup compat
	@exec scripts/compat $(ARGS)

demo: ## two Shortstops, market data through both, in this terminal; make demo ARGS="--seconds 20"
	@scripts/setup run
	@exec scripts/demo $(ARGS)

setup: ## only installs: what run, test and bench need
	@scripts/setup run test bench

fuzz: ## FUZZ=scan FUZZ_SECONDS=60: a fuzz target: scan, reply or envelope (needs cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	$(CARGO) fuzz run --sanitizer none $(FUZZ) -- -max_total_time=$(FUZZ_SECONDS)
