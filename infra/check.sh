#!/bin/sh
# What a change is checked by while it is being made: no cloud, no peer, no network.
#
#   infra/check.sh
set -eu

cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
started=$(date +%s)
cargo fmt --all --check
cargo clippy --quiet --target "$target" --profile local --workspace --all-targets -- --deny warnings
infra/run-tests.sh -E 'not (package(peers) | test(deployed))'
echo "all passed in $(($(date +%s) - started)) s"
