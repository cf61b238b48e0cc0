# Starts the watchdog of this process, which will be the program. It is no child of it, for programs may wait for all of
# their children; it alone holds the lifeline; and the signals that a program sends to its whole group it ignores.
# Where there is a directory to remove it is out of the group before the script starts, as some kill their own group:
# that takes two programs.
sshjob_watch() {
  sshjob_setsid=setsid;
  command -v setsid >/dev/null || sshjob_setsid=;
  read -r sshjob_stat </proc/$$/stat;
  set -- ${sshjob_stat##*") "};
  [ -n "${20}" ] || sshjob_refuse tool /proc;
  exec 3<&0 </dev/null;
  sshjob_signals="HUP INT QUIT ABRT USR1 USR2 PIPE ALRM TERM TSTP TTIN TTOU VTALRM PROF XCPU XFSZ";
  trap "" $sshjob_signals;
  if [ -z "$sshjob_dir" ]; then
    { sshjob_guard $$ "${20}" <&3 3<&- >/dev/null 2>&1 & } & wait $! || sshjob_refuse watchdog;
  else
    (sshjob_dir=$sshjob_dir sshjob_limit=$sshjob_limit $sshjob_setsid /bin/sh -c "$sshjob_lib sshjob_guard $$ ${20}" \
      sshjob-watchdog "$sshjob_token" <&3 3<&- 2>/dev/null &) |
      { read -r sshjob_up && [ "$sshjob_up" = up ]; } || sshjob_refuse watchdog;
  fi;
  trap - $sshjob_signals;
  exec 3<&-;
  # What is to be ended must lead a process group: its server made it so, or it becomes one by the way.
  if [ "$3" = $$ ]; then sshjob_setsid=; else sshjob_setsid=$(command -v setsid); fi;
};
