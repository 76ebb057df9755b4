#!/bin/sh
# Formatting, clippy, dependencies, the template, pictures, the console's scripts.
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
# W2533 asks for Handler and Runtime on the loop's functions, although Globals sets both.
.venv/sam/bin/cfn-lint --ignore-checks W2533 --template infra/template.yaml
.venv/sam/bin/python infra/rollouts.py
stage "the template, by checkov"
infra/local/venv.sh checkov
.venv/sam/bin/python infra/checkov.py
stage "python"
python3 -m compileall -q infra
stage "pictures"
python3 infra/pictures.py
stage "the console's scripts"
infra/local/npm.sh typescript
.venv/typescript/node_modules/.bin/tsc --project shared/web/jsconfig.json
stage "clippy"
cargo clippy --target "$target" --profile local --workspace --all-targets -- -D warnings
stage "clippy, of the command line without AWS"
cargo clippy --target "$target" --profile local --package chainloop --no-default-features -- -D warnings
