#!/bin/sh
# Says hello from the machine that it runs on; with --verbose also what that machine is.
set -eu

name=$(hostname)
echo "${GREETING:-hello} from $name"
if [ "${1-}" = --verbose ]; then
    echo "kernel $(uname -r), run ${SSHJOB_RUN_ID:-none}, attempt ${SSHJOB_ATTEMPT:-none}"
fi
