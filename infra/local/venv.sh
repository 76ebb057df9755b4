#!/bin/sh
# Installs one of the pinned Python tools into .venv/<name>, once.
#
#   infra/local/venv.sh ministack|sam|cargo-lambda|syft|aiosmtpd|schemathesis|nextest|checkov|moto
#
# The stamp holds the requirement file's hash, so that a changed pin installs anew
# and an unchanged one costs nothing. Hashes are required: what was reviewed is what runs.
set -eu

name=${1:?usage: infra/local/venv.sh NAME}
root=$(cd "$(dirname "$0")/../.." && pwd)
requirements=$root/infra/requirements/$name.txt
venv=$root/.venv/$name
stamp=$venv/requirements.sha256

wanted=$(sha256sum <"$requirements")
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

started=$(date +%s)
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$python is older than 3.11: install a newer version, or set PYTHON to one" >&2
    exit 1
}
rm -rf "$venv"
"$python" -m venv "$venv" || {
    echo "python cannot create virtual environments: apt-get install python3-venv" >&2
    exit 1
}
# --no-deps: the file is the whole closure already, and pip would otherwise ask for
# unpinned copies of packages that are wanted with extras.
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-compile \
    --no-deps --require-hashes --requirement "$requirements"
echo "$wanted" >"$stamp"
echo "installed $name into .venv/$name in $(($(date +%s) - started)) s"
