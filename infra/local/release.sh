#!/bin/sh
# Builds functions as for AWS, and runs the demo with them, on a local cloud of its own: the one that accepts, the authorizer,
# and one that delivers. The others of the release are those in target/lambda.
#
#   infra/local/release.sh
set -eu

cd "$(dirname "$0")/../.."
directory=$PWD/.local/release
arch=$(uname -m | sed s/aarch64/arm64/)
end() {
    infra/local/receiver.py down --directory "$directory"
    infra/local/cloud.py down --directory "$directory"
}
trap end EXIT

# The last of those that deliver: the demo delivers through it.
delivering=$(for file in functions/src/bin/deliver-*.rs; do basename "$file" .rs; done | tail -n 1)
infra/release.py --arch "$arch" --function attestations --function authorizer --function "$delivering" --to target/three
for folder in target/lambda/*; do
    zip=target/three/$arch/functions/$(basename "$folder").zip
    if ! [ -e "$zip" ]; then cp "$folder/bootstrap.zip" "$zip"; fi
done
end
rm -rf "$directory"
infra/local/cloud.py up --directory "$directory" --ephemeral
.venv/sam/bin/python infra/local/deploy.py --directory "$directory" --template "target/three/$arch/template.yaml"
infra/local/receiver.py up --directory "$directory"
for name in TOKEN URL TABLE PROFILE; do unset "CHAINLOOP_INTEGRATIONS_$name" "CHAINLOOP_$name"; done
. "$directory/env"
infra/local/bootstrap.sh "$directory"
. "$directory/env"
.venv/sam/bin/python infra/local/demo.py --directory "$directory"
