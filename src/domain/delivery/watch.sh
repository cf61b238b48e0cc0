# The watchdog is no child of the script, which may wait for all of its children, and not in its process group,
# which may be ended at any moment: the script starts when the watchdog says that it has got away. It alone holds the
# lifeline.
sshjob_setsid=setsid
command -v setsid >/dev/null || sshjob_setsid=
read -r sshjob_stat </proc/$$/stat
set -- ${sshjob_stat##*") "}
[ -n "${20}" ] || sshjob_refuse tool /proc
exec 3<&0 </dev/null
($sshjob_setsid /bin/sh -c "$sshjob_watchdog" sshjob-watchdog \
  "$sshjob_token" $$ "${20}" "$sshjob_limit" "$sshjob_dir" <&3 3<&- 2>/dev/null &) |
  { read -r sshjob_up && [ "$sshjob_up" = up ]; } || sshjob_refuse watchdog
exec 3<&-
# What is to be ended must lead a process group: its server made it so, or it becomes one by the way.
if [ "$3" = $$ ]; then sshjob_setsid=; else sshjob_setsid=$(command -v setsid); fi
