#!/bin/sh
# The first organization and its admin token on AWS: what `make deploy` ends with. Repeating it changes nothing.
#
#   infra/bootstrap.sh STACK CHAINLOOP
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
# The stack's outputs, and the credentials that `sam deploy` found too, as variables: nothing of it is printed.
settings=$("$root/.venv/sam/bin/python" - "$1" <<'END'
import os
import shlex
import sys

import boto3

# boto3 does not read AWS_REGION by itself.
session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
if not session.region_name:
    sys.exit("no region is configured: set AWS_REGION, AWS_DEFAULT_REGION or the region of the profile")
stack = session.client("cloudformation").describe_stacks(StackName=sys.argv[1])["Stacks"][0]
outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
credentials = session.get_credentials().get_frozen_credentials()
variables = {
    "CHAINLOOP_INTEGRATIONS_TABLE": outputs["TableName"],
    "api": outputs["ApiUrl"],
    "AWS_REGION": session.region_name,
    "AWS_ACCESS_KEY_ID": credentials.access_key,
    "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
    "AWS_SESSION_TOKEN": credentials.token or "",
}
for name, value in variables.items():
    print(f"export {name}={shlex.quote(value)}")
END
)
eval "$settings"
"$2" bootstrap
echo "export CHAINLOOP_INTEGRATIONS_URL=$api"
