#!/bin/sh
# The first organization and its admin token, once: the token is added to <directory>/env.
#
#   . .local/env && infra/local/bootstrap.sh .local
set -eu

environment=$1/env
if grep -q "^export CHAINLOOP_INTEGRATIONS_TOKEN=" "$environment"; then exit 0; fi
# A token that was made and not kept is lost: make another. The local cloud is used for longer than a day.
token=$(chainloop bootstrap --new-token --expires 1y)
echo "$token" >>"$environment"
