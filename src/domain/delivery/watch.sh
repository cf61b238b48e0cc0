# Starts the watchdog of this process, which will be the program. It is no child of it, for programs may wait for all of
# their children, and not in its process group, which may be ended at any moment: the program starts when the watchdog
# says that it has got away. It alone holds the lifeline.
sshjob_watch() {
  sshjob_setsid=setsid;
  command -v setsid >/dev/null || sshjob_setsid=;
  read -r sshjob_stat </proc/$$/stat;
  set -- ${sshjob_stat#*") "};
  [ -n "${20}" ] || sshjob_refuse tool /proc;
  exec 3<&0 </dev/null;
  (sshjob_dir=$sshjob_dir sshjob_limit=$sshjob_limit $sshjob_setsid /bin/sh -c "$sshjob_lib sshjob_guard $$ ${20}" \
    sshjob-watchdog "$sshjob_token" <&3 3<&- 2>/dev/null &) |
    { read -r sshjob_up && [ "$sshjob_up" = up ]; } || sshjob_refuse watchdog;
  exec 3<&-;
  # What is to be ended must lead a process group: its server made it so, or it becomes one by the way.
  if [ "$3" = $$ ]; then sshjob_setsid=; else sshjob_setsid=$(command -v setsid); fi;
};
