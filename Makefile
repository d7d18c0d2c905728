# `make` alone says what there is.

TARGET := $(or $(CARGO_TARGET_DIR),target)
ROOT   := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH,MARGAY_BIN)
# The parts of the engine with unsafe code; the rest makes system calls, which Miri does not know.
MIRI_TESTS ?= arena pool packet meta vector batch ring publish

.DEFAULT_GOAL := help
.PHONY: help build test long demo bench loom miri fuzz clean deps

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

deps: ## install what is missing (Debian 12 or later; nothing to do otherwise)
	@testbed/install-deps.sh

build: deps ## the program, optimised: target/release/margay
	cargo build --release --package control --bin margay

test: deps ## everything CI runs after formatting and lints
	@test "$$(id -u)" = 0 || echo "make test: not root, so the tests in network namespaces will be skipped by name" >&2
	MARGAY_BIN=$(abspath $(TARGET))/debug/margay cargo test --workspace
	$(MAKE) --no-print-directory loom miri

long: deps ## tests that wait for minutes of real time
	MARGAY_LONG=1 cargo test --package testbed --test wireguard_interop renewed

demo: build ## a router between hosts, and TAPs, a service, encrypted nodes; KEEP=1 leaves it running, STOP=1 ends that
	cargo build --package testbed --example demo
	$(ROOT) env MARGAY_BIN=$(abspath $(TARGET))/release/margay $(TARGET)/debug/examples/demo \
		$(if $(KEEP),--keep) $(if $(STOP),--stop)

bench: build ## measure, beside peers; the report goes to bench/results
	@bench/install-peers.sh
	rm -f $(TARGET)/bench-rows.jsonl
	MARGAY_BIN=$(abspath $(TARGET))/release/margay cargo bench --package bench --features aws-lc
	cargo run --release --package bench --bin report

loom: ## every interleaving of the lock-free parts
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom \
		cargo test --package fastpath --profile loom --test 'loom_*'
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom \
		cargo test --package fastpath --profile loom --lib model
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom \
		cargo test --package wireguard --profile loom --test 'loom_*'
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom \
		cargo test --package nat --profile loom --lib model

miri: ## the unsafe parts under Miri, where the toolchain has it
	@if cargo +nightly miri --version >/dev/null 2>&1; then \
		MIRIFLAGS=-Zmiri-disable-isolation CARGO_TARGET_DIR=$(TARGET)/miri \
			cargo +nightly miri test --package fastpath --lib -- $(MIRI_TESTS); \
	else echo "skipped miri: no Miri here; \`rustup toolchain install nightly --component miri\` brings it" >&2; fi

fuzz: deps ## search for inputs that do harm, FUZZ_SECONDS (60) for each target; CI replays what was found
	testbed/fuzz/run.sh

clean: ## what was built
	cargo clean
