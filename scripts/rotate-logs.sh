#!/bin/sh
# Compresses the logs of a folder that are older than a day, and removes those older than so many days.
set -eu

folder=${1:?usage: rotate-logs.sh FOLDER DAYS}
days=${2:?usage: rotate-logs.sh FOLDER DAYS}

[ -d "$folder" ] || {
    echo "no folder $folder here"
    exit 0
}
find "$folder" -xdev -type f -name '*.log.gz' -mtime "+$days" -print -exec rm -f -- {} +
find "$folder" -xdev -type f -name '*.log' -mtime +0 -print -exec gzip -f -- {} +
