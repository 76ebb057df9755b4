#!/bin/sh
# Unpacks pinned Debian packages, those that one file of infra/requirements lists, into .venv/<name>, once and without
# root.
#
#   infra/local/debian.sh docker-registry|mail-servers|chromium
#
# They are fetched from wherever this machine's apt fetches, and compared with the hashes that were reviewed.
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
pins=$(grep -v '^#' "$requirements" | grep " $architecture ") || fail "no hash is known of its file for $architecture"

rm -rf "$directory"
mkdir -p "$directory"
cd "$directory"
lists=
# With package lists of our own where the machine has none: to fetch those needs no root either.
# shellcheck disable=SC2086 # options
fetch() { apt-get $lists download -qq "$1" 2>apt.log; }
echo "$pins" | while read -r package version _ hash; do
    fetch "$package=$version" || {
        mkdir -p apt/lists/partial apt/archives/partial
        lists="-o Dir::State=$directory/apt -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=$directory/apt"
        # shellcheck disable=SC2086 # options
        apt-get $lists update -qq 2>>apt.log && fetch "$package=$version"
    } || {
        cat apt.log >&2
        fail "this machine's apt does not fetch $package $version; it wants a source with Debian 12"
    }
    echo "$hash  $(ls ./*.deb)" | sha256sum --check --quiet || fail "$package does not match the reviewed hash"
    dpkg -x ./*.deb .
    rm -f ./*.deb
done
rm -rf apt.log apt
echo "$wanted" >"$stamp"
echo "unpacked $name into .venv/$name in $(($(date +%s) - started)) s"
