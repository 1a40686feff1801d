# The named recipes that a person and CI run alike. `make help` lists them.

# Static binaries with the C library of the host: no other target has to be installed.
# ARCH (amd64 or arm64) names another architecture to compile for.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_amd64 := x86_64-unknown-linux-gnu
TARGET_arm64 := aarch64-unknown-linux-gnu
TARGET := $(if $(ARCH),$(or $(TARGET_$(ARCH)),$(error ARCH=$(ARCH): amd64 or arm64)),$(HOST))
RELEASE := target/$(TARGET)/release
ifeq ($(TARGET),$(HOST))
BUILD_RELEASE := RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target $(HOST)
else
BUILD_RELEASE := tests/cross.sh $(ARCH) cargo build --locked --release
endif

FUZZ_SECONDS ?= 600

# One path for make, cargo, which builds each crate in its own folder, and the scripts.
ifdef SFUNNEL_CACHE
override SFUNNEL_CACHE := $(abspath $(SFUNNEL_CACHE))
export SFUNNEL_CACHE
endif

.DEFAULT_GOAL := help
# Recipes print for people, and share caches; cargo and go use all cores by themselves.
.NOTPARALLEL:
.PHONY: root machine help setup release release-loader release-webhook release-example demo test kernels bpf bpf-check lint manifests manifests-check bench fuzz images cluster cluster-down

# First of all, so that nobody waits for a build in vain.
root:
	@[ "$$(id -u)" = 0 ] || { echo 'root is needed: this makes namespaces and loads BPF programs' >&2; exit 1; }

machine: root
	@tests/setup.sh machine

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 17

setup: ## Install what is missing (apt, cargo), and say what
	@tests/setup.sh

release: setup release-loader release-webhook release-example ## Static binaries; ARCH=arm64 for another machine

# DESTDIR=folder for a copy in a place that does not depend on the architecture.
release-loader release-webhook release-example: release-%:
	$(BUILD_RELEASE) --package $*
	@ls -l $(RELEASE)/sfunnel-$*
	$(if $(DESTDIR),cp $(RELEASE)/sfunnel-$* $(DESTDIR))

# BUILD_IMAGE=docker.io/library/rust:1-bookworm for a base from a registry.
images: ## The container images, as archives in target/images
	@tests/images.sh

demo: root setup ## From an annotation to a packet, on this machine
	@echo 'Building loader, webhook and demonstration: 2 to 4 minutes the first time, on two cores.'
	cargo build --locked --package loader --package webhook --package tests \
		--bin sfunnel-loader --bin sfunnel-webhook --bin demo
	@SFUNNEL_LOADER=target/debug/sfunnel-loader SFUNNEL_WEBHOOK=target/debug/sfunnel-webhook target/debug/demo

ifdef TEST
# A crate with its unit tests, or one of tests/tests: both take seconds once they are built.
test: root setup
	cargo test --locked $(if $(filter abi certs ruleset webhook,$(TEST)),--package,--workspace --test) $(TEST)
else
test: machine setup lint bpf-check manifests-check images ## Everything; TEST=webhook for one crate, TEST=admission for one of tests/tests
	@tests/setup.sh cluster
	@tests/setup.sh kernels
	cargo build --locked
	cargo test --locked
endif

# KERNEL=6.1 for one line of tests/kernels/list.txt, KERNEL=newest for the newest that Debian has.
kernels: root setup images ## Loader, program and traffic on every kernel that we name, under qemu
	@tests/setup.sh kernels
	cargo test --locked --test kernels -- --nocapture

bpf: ## injector-bpf/sfunnel.bpf.o anew, after a change of the BPF program; commit it
	@tests/setup.sh bpf
	@injector-bpf/build.sh

bpf-check: ## Whether injector-bpf/sfunnel.bpf.o is what its source compiles to
	@tests/setup.sh bpf
	@injector-bpf/build.sh check

lint: ## Format and clippy
	@tests/setup.sh lint
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

# KUBECTL=kubectl for another one than that of the pinned Kubernetes.
manifests: ## deploy/install.yaml anew, from deploy/base, and the PrometheusRule
	@tests/checks/manifests.sh render

manifests-check: ## The manifests against their schemas, and a hardening linter
	@tests/setup.sh checks
	@tests/checks/manifests.sh check

# BENCH=udp for one section, out of loader, lookup, bulk, udp, latency, sizes, webhook, webhook-memory, pods;
# BENCH_ROUNDS=3 for a quick look. Make hands both on in the environment. Only pods needs a cluster and the
# images.
BENCH_PODS := $(if $(BENCH),$(findstring $(BENCH),pods),pods)

bench: root $(if $(BENCH_PODS),machine images) ## Ratios, each with what it is compared to
	@tests/setup.sh bench
	$(if $(BENCH_PODS),@tests/setup.sh cluster)
	@echo 'Building (a few minutes the first time)...'
	@$(BUILD_RELEASE) --quiet --package loader --package webhook
	@cargo build --locked --quiet --release --package tests --bin bench --bin cluster
	@SFUNNEL_LOADER=$(RELEASE)/sfunnel-loader SFUNNEL_WEBHOOK=$(RELEASE)/sfunnel-webhook target/release/bench

# CLUSTER=name for a second one, PROXY_MODE=nftables, KUBERNETES_VERSION=1.35.4.
CLUSTER ?= dev
PROXY_MODE ?= iptables

cluster: machine setup images ## A Kubernetes node in namespaces of its own; prints what to export for kubectl
	@tests/setup.sh cluster
	@cargo build --locked --quiet --package tests --bin cluster
	@target/debug/cluster up --name $(CLUSTER) --proxy-mode $(PROXY_MODE) \
		$(foreach image,webhook loader example,--image target/images/$(image).tar)

cluster-down: root ## Ends it, and removes every trace of it
	@cargo build --locked --quiet --package tests --bin cluster
	@target/debug/cluster down --name $(CLUSTER)

# FUZZ=review for one target, out of ruleset, annotations, review, certificates. FUZZ_SECONDS=60 for each.
fuzz: ## What strangers write, made up by a fuzzer: rules, annotations, reviews, certificates
	@tests/setup.sh fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run.sh $(FUZZ)
