# Arguments: the token, for whoever looks at a process list; the program's process id and start time; the limit in
# seconds; the directory to remove, or nothing.
leader=$2 born=$3 limit=$4 dir=$5
trap "" HUP INT TERM
cd /
echo up
exec >/dev/null

# The lifeline ends with the channel, however that comes about. Its reader holds it alone.
exec 3<&0 </dev/null
sleep "$limit" 3<&- &
timer=$!
{ while read -r line; do :; done; kill -KILL "$timer"; } <&3 3<&- &
lifeline=$!
exec 3<&-
# A timer that cannot run, or was killed, leaves the lifeline to wait for.
wait "$timer" || wait "$lifeline"
kill -KILL "$timer" "$lifeline"

# A script that has ended is left in peace: what it started in the background lives on, as with plain ssh.
if sshjob_alive "$leader" "$born"; then
  [ "$sshjob_group" = "$leader" ] && target=-$leader || target=$leader
  sshjob_stop "$target"
fi
[ -z "$dir" ] || rm -rf "$dir"
