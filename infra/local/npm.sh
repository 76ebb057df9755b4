#!/bin/sh
# Installs one of the pinned npm programs into .venv/<name>, once.
#
#   infra/local/npm.sh azurite
#
# The stamp holds the lock file's hash, as with venv.sh. The lock file has the hash of every package, and no
# package's own scripts are run.
set -eu

name=${1:?usage: infra/local/npm.sh azurite}
root=$(cd "$(dirname "$0")/../.." && pwd)
packages=$root/infra/npm/$name
place=$root/.venv/$name
stamp=$place/package-lock.sha256

wanted=$(sha256sum <"$packages/package-lock.json")
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

started=$(date +%s)
npm --version >/dev/null 2>&1 || {
    echo "npm not found: apt-get install npm, or see https://nodejs.org (node 20 or newer)" >&2
    exit 1
}
rm -rf "$place"
mkdir -p "$place"
cp "$packages/package.json" "$packages/package-lock.json" "$place"
npm ci --prefix "$place" --loglevel=error --ignore-scripts --omit=dev --no-audit --no-fund
echo "$wanted" >"$stamp"
echo "installed $name into .venv/$name in $(($(date +%s) - started)) s"
