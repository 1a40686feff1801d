# The named recipes that a person and CI run alike. `make help` lists them.

# Static binaries with the C library of the host: no other target has to be installed.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/$(HOST)/release
BUILD_RELEASE := RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target $(HOST)

FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup release release-loader release-webhook demo test lint bench fuzz

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## Install what is missing (apt, cargo), and say what
	@tests/setup.sh

release: release-loader release-webhook ## Static binaries

release-loader: setup
	$(BUILD_RELEASE) --package loader
	@ls -l $(RELEASE)/sfunnel-loader

release-webhook: # Knows no BPF, and needs none of its tools
	$(BUILD_RELEASE) --package webhook
	@ls -l $(RELEASE)/sfunnel-webhook

demo: setup ## From an annotation to a packet, on this machine
	@echo 'Building (a few minutes the first time)...'
	@$(BUILD_RELEASE) --quiet --package loader --package webhook
	@cargo build --locked --quiet --release --package tests --bin demo
	@SFUNNEL_LOADER=$(RELEASE)/sfunnel-loader SFUNNEL_WEBHOOK=$(RELEASE)/sfunnel-webhook target/release/demo

test: setup lint ## Everything
	cargo build --locked
	cargo test --locked

lint: ## Format and clippy
	@tests/setup.sh lint
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

# BENCH=udp for one section, out of loader, lookup, bulk, udp, latency, sizes; BENCH_ROUNDS=3 for a
# quick look. Make hands both on in the environment.
bench: ## Ratios, each with what it is compared to
	@tests/setup.sh bench
	@echo 'Building (a few minutes the first time)...'
	@$(BUILD_RELEASE) --quiet --package loader --package webhook
	@cargo build --locked --quiet --release --package tests --bin bench
	@SFUNNEL_LOADER=$(RELEASE)/sfunnel-loader SFUNNEL_WEBHOOK=$(RELEASE)/sfunnel-webhook target/release/bench

fuzz: ## The rule language on random bytes, for FUZZ_SECONDS
	@tests/setup.sh fuzz
	@mkdir -p tests/fuzz/corpus/ruleset
	cd tests && cargo +nightly fuzz run ruleset fuzz/corpus/ruleset fuzz/seeds/ruleset -- \
		-dict=fuzz/ruleset.dict -timeout=10 -max_len=8192 -max_total_time=$(FUZZ_SECONDS)
