#!/usr/bin/env bash
# Runs a command, such as cargo, with the environment that compiles Rust for an architecture, which may be
# another than this machine's. Executables are static. Installs what is missing, and says what.
#
#   tests/cross.sh arm64 cargo build --release --package loader     into target/aarch64-unknown-linux-gnu
#   CARGO_PROFILE_DEV_DEBUG=0 tests/cross.sh arm64 cargo test --no-run --package tests --test traffic
set -euo pipefail

environment=$("$(dirname "${BASH_SOURCE[0]}")/setup.sh" cross "${1:?amd64 or arm64}")
shift
mapfile -t environment <<<"$environment"
# RUSTFLAGS would replace those of the target.
exec env --unset=RUSTFLAGS "${environment[@]}" "$@"
