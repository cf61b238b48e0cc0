# The watchdog is no child of the script, which may wait for all of its children, and not in its process group,
# which may be ended: it has its own session before the script starts. It alone holds the lifeline, which comes to it
# as standard input, because some shells pass on no other descriptor of theirs.
sshjob_setsid=setsid
command -v setsid >/dev/null || sshjob_setsid=
read -r sshjob_stat </proc/$$/stat
set -- ${sshjob_stat##*") "}
[ -n "${20}" ] || sshjob_refuse tool /proc
exec 3<&0 </dev/null
$sshjob_setsid /bin/sh -c 'exec 3<&0; { exec <&3 3<&-; eval "$0"; } &' \
  "$sshjob_watchdog" "$sshjob_token" $$ "${20}" "$sshjob_limit" "$sshjob_dir" <&3 3<&- >/dev/null 2>&1
exec 3<&-
# What is to be ended must lead a process group: its server made it so, or it becomes one by the way.
if [ "$3" = $$ ]; then sshjob_setsid=; else sshjob_setsid=$(command -v setsid); fi
