#!/bin/sh
# Puts one bug after another into a copy of the pipeline: the simulation must find each of them. Some
# were thought up, and some were found by it: those stand here for the seeds that found them, since a seed
# is another run as soon as anything changes.
#
#   tests/simulation/mutants.sh [name...]
set -eu

cd "$(dirname "$0")/../.."
seeds=10000
mutants=$PWD/tests/simulation/mutants
copy=$PWD/target/mutants/copy
built=$PWD/target/mutants/target
target=$(rustc -vV | sed -n 's/^host: //p')
missed=0

# As they are now, committed or not. Files that have not changed keep their time, so that little is rebuilt.
mkdir -p "$copy"
git ls-files --cached --others --exclude-standard -- '*.toml' '*.rs' Cargo.lock docs/openapi.json shared events | while read -r file; do
    if [ ! -e "$file" ]; then
        rm -f "$copy/$file"
    elif ! cmp -s "$file" "$copy/$file"; then
        mkdir -p "$copy/$(dirname "$file")"
        cp "$file" "$copy/$file"
    fi
done

[ $# -gt 0 ] || set -- $(basename -s .patch "$mutants"/*.patch)
for name in "$@"; do
    if ! patch --silent --dry-run -d "$copy" -p1 <"$mutants/$name.patch" >/dev/null; then
        echo "$name: the patch does not apply"
        missed=$((missed + 1))
        continue
    fi
    patch --silent --no-backup-if-mismatch -d "$copy" -p1 <"$mutants/$name.patch"
    if cargo build --quiet --manifest-path "$copy/Cargo.toml" --target-dir "$built" \
        --target "$target" --profile local --package simulation &&
        out=$("$built/$target/local/simulate" --seeds $seeds --violations 1); then
        echo "$name: NOT FOUND in $seeds seeds"
        missed=$((missed + 1))
    elif found=$(echo "$out" | grep -m 1 '^seed '); then
        echo "$name: $found"
    else
        echo "$name: did not build or run"
        missed=$((missed + 1))
    fi
    patch --silent --reverse --no-backup-if-mismatch -d "$copy" -p1 <"$mutants/$name.patch"
done
exit $((missed > 0))
