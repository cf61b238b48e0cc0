#!/bin/sh
# Says hello from the instance that it runs on; with --verbose also what that is.
set -eu

echo "${GREETING:-hello} from ${SSHJOB_INSTANCE:-$(uname -n)}"
if [ "${1-}" = --verbose ]; then
    echo "kernel $(uname -r), run ${SSHJOB_RUN_ID:-none}, attempt ${SSHJOB_ATTEMPT:-none}"
fi
