#!/bin/sh
# Formatting, clippy, dependencies, the template.
#
#   infra/lint.sh
set -eu

cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
stage() { printf '== %s\n' "$*"; }

stage "rustfmt"
cargo fmt --all --check
stage "dependencies"
python3 infra/dependencies.py
stage "the template"
.venv/sam/bin/cfn-lint infra/template.yaml
stage "python"
python3 -m compileall -q infra
stage "clippy"
cargo clippy --target "$target" --profile local --workspace --all-targets -- -D warnings
