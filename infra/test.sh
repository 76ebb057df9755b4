#!/bin/sh
# Everything, from unit to deployed: a cloud of its own, which holds nothing before and nothing after.
#
#   infra/test.sh
set -eu

cd "$(dirname "$0")/.."
directory=$PWD/.local/test
stages=13
. infra/stages.sh
end() {
    code=$?
    infra/local/cloud.py down --directory "$directory" >/dev/null || code=1
    end_stages $code
    exit $code
}
trap end EXIT

stage "build the functions"
make --no-print-directory functions
stage "build the command line"
make --no-print-directory cli
stage "build the tests"
infra/run-tests.sh --no-run
stage "deploy to a local cloud"
infra/local/cloud.py down --directory "$directory"
rm -rf "$directory"
infra/local/cloud.py up --directory "$directory" --ephemeral --schedule-secs 10
.venv/sam/bin/python infra/local/deploy.py --directory "$directory" --stack test
# An operator's own settings must not reach the tests.
for name in TOKEN URL TABLE PROFILE; do unset "CHAINLOOP_INTEGRATIONS_$name" "CHAINLOOP_$name"; done
. "$directory/env"
infra/local/bootstrap.sh "$directory"
. "$directory/env"
export CHAINLOOP="$PWD/target/bin/chainloop"
stage "test"
infra/run-tests.sh
stage "the API by its description"
.venv/schemathesis/bin/python infra/local/api.py --directory "$directory"
stage "audit"
# Whatever the tests did, every delivery is accounted for.
"$CHAINLOOP" delivery audit
stage "the platform's suite over another emulator, and with faults of AWS"
.venv/sam/bin/python infra/local/oracles.py --directory "$directory"
stage "restore"
.venv/sam/bin/python infra/local/restore.py
# What could not be tried here, such as networks without the right to make one, is said in the summary.
try() {
    "$@" || {
        code=$?
        [ $code = 77 ] || exit $code
        stage_name="$stage_name: NOT RUN"
    }
}
stage "operator events"
.venv/sam/bin/python infra/local/events.py
stage "the console in a browser"
try .venv/sam/bin/python infra/local/console.py
stage "upgrade and roll back"
try infra/local/upgrade.py
stage "private networks and the proxy"
try infra/local/networks.py
