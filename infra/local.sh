#!/bin/sh
# Deploys to the local cloud, and runs the demo: arguments go to infra/local/demo.py.
#
#   infra/local.sh [--attestation FILE --material NAME=FILE …]
set -eu

cd "$(dirname "$0")/.."
stages=5
. infra/stages.sh
trap 'code=$?; end_stages $code; exit $code' EXIT

stage "install the tools"
make --no-print-directory tools
stage "build the functions (the first time, up to ten minutes)"
make --no-print-directory functions
stage "build the command line (the first time, up to five minutes)"
make --no-print-directory cli
stage "deploy to the local cloud"
infra/local/cloud.py up
.venv/sam/bin/python infra/local/deploy.py
infra/local/receiver.py up
. .local/env
infra/local/bootstrap.sh .local
. .local/env
stage "run the demo"
.venv/sam/bin/python infra/local/demo.py "$@"
