#!/bin/sh
# Fails where a local file system is fuller than MAX_PERCENT; names each one that is.
set -eu

df -P -l | awk -v max="${MAX_PERCENT:-90}" '
    NR > 1 && $1 ~ "^/" {
        used = $5
        sub("%", "", used)
        if (used + 0 > max + 0) {
            printf "%s is %d%% full, more than %d%%\n", $6, used, max
            full = 1
        }
    }
    END { exit full }
'
