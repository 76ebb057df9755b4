#!/bin/sh
# The first organization and its admin token on AWS: what `make deploy` ends with. Repeating it changes nothing.
#
#   infra/bootstrap.sh STACK
set -eu

stack=$1
root=$(cd "$(dirname "$0")/.." && pwd)
output() {
    "$root/.venv/sam/bin/python" -c '
import sys, boto3
outputs = boto3.client("cloudformation").describe_stacks(StackName=sys.argv[1])["Stacks"][0]["Outputs"]
print(next(output["OutputValue"] for output in outputs if output["OutputKey"] == sys.argv[2]))
' "$stack" "$1"
}
CHAINLOOP_TABLE=$(output TableName)
export CHAINLOOP_TABLE
"$root/target/release/chainloop" bootstrap
echo "export CHAINLOOP_URL=$(output ApiUrl)"
