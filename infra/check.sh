#!/bin/sh
# Checks a change while it is being made: without a cloud and without peers. The first run fetches nextest.
#
#   infra/check.sh
set -eu

cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
started=$(date +%s)
cargo fmt --all --check
cargo clippy --quiet --target "$target" --profile local --workspace --all-targets -- --deny warnings
infra/run-tests.sh -E 'not (package(peers) | test(/^deployed::/) | test(=platforms::the_deployed_cloud_is_a_platform))'
echo "all passed in $(($(date +%s) - started)) s"
