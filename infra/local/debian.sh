#!/bin/sh
# Unpacks one of the pinned Debian packages into .venv/<name>, once and without root.
#
#   infra/local/debian.sh docker-registry
#
# It is fetched from wherever this machine's apt fetches, and compared with the hash that was reviewed.
set -eu

name=${1:?usage: infra/local/debian.sh docker-registry}
root=$(cd "$(dirname "$0")/../.." && pwd)
requirements=$root/infra/requirements/$name.deb.txt
directory=$root/.venv/$name
stamp=$directory/requirements.sha256

wanted=$(sha256sum <"$requirements")
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

started=$(date +%s)
fail() {
    echo "$name cannot be installed: $1" >&2
    exit 1
}
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || fail "there is no $tool here. It is a package of Debian 12; the tests look for it in .venv/$name"
done
architecture=$(dpkg --print-architecture)
pin=$(grep -v '^#' "$requirements" | grep " $architecture ") || fail "no hash is known of its file for $architecture"
# shellcheck disable=SC2086 # four words
set -- $pin
version=$2 hash=$4

rm -rf "$directory"
mkdir -p "$directory"
cd "$directory"
# Said of a folder that apt's own user may not write to; it writes as we do then.
apt-get download -qq "$name=$version" 2>apt.log || {
    cat apt.log >&2
    fail "apt-get update, and a source with Debian 12, may be missing"
}
echo "$hash  $(ls ./*.deb)" | sha256sum --check --quiet || fail "its file is not the one that was reviewed"
dpkg -x ./*.deb .
rm -f ./*.deb apt.log
echo "$wanted" >"$stamp"
echo "unpacked $name into .venv/$name in $(($(date +%s) - started)) s"
