#!/bin/sh
# Builds and runs the tests of all crates but those named: arguments go to `cargo nextest run`.
#
#   infra/run-tests.sh [--no-run] [-E FILTER]
#
# In three, since tests of the integrations run servers whose features would have the SDKs built again.
set -eu
cd "$(dirname "$0")/.."
infra/local/venv.sh nextest
PATH="$PWD/.venv/nextest/bin:$PATH"
target=$(rustc -vV | sed -n 's/^host: //p')
profile=default
if [ -z "${SAMPLES_DIR:-}" ]; then profile=without-samples; fi
code=0
group() {
    cargo nextest run --profile "$profile" --target "$target" --cargo-profile local "$@" || code=$?
}
group --package attestation --package api --package integrations --package peers "$@"
group --package chainloop --package fuzz "$@"
group --package pipeline --package aws --package memory --package tests --package simulation --package verify --package authority --package bench --package web "$@"
exit "$code"
