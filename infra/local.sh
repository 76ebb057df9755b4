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
cat <<'END'

The system is running. Next:

  . .local/env                                  point the command line at it
  chainloop delivery list                       list the deliveries
  chainloop open                                show them in a browser
  chainloop integration registered list         list the registrations
  make local ATTESTATION=FILE MATERIALS="NAME=FILE …"   push your own attestation
  make local-down                               stop it; `make local` continues with its data
END
