#!/bin/sh
# Refuses a stack's name that would make the name of a function or a queue too long.
#
#   infra/stack-name.sh NAME
set -eu

longest=39 # 64 of FunctionName, less "-deliver-dependency-track"

length=${#1}
if [ "$length" -gt "$longest" ]; then
    echo "the stack's name has $length characters, and $longest are possible: AWS limits the names that begin with it" >&2
    exit 2
fi
