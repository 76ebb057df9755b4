#!/bin/sh
# Compiles as rustc does, with the counters that tell libFuzzer which code an input reached: cargo's rustc-wrapper for
# infra/fuzz.py. Stable Rust has the pass; AddressSanitizer, which needs a nightly one, has little to find in safe code.
#
#   infra/coverage.sh RUSTC [ARGUMENT …]
set -eu
case " $* " in
*" --target "*) ;;
# What runs while others are compiled: nothing there counts.
*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
