#!/bin/sh
# Says hello from the machine that it runs on.
set -eu
# By itself, for inside of `echo` a failure would go unseen.
machine=$(uname -n)
echo "${GREETING:-Hello} from $machine, $*"
